from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from revela_rag.corpus import Chunk, Part, StructuralPair
from revela_rag.evaluation import Comparison, Evaluation, compare, fused_run, score_run
from revela_rag.index.words import WordIndex
from revela_training.gate import choose as rule
from revela_training.gate import run_gate
from revela_training.gate.held_back import EvaluationSet, evaluation_pairs, make_evaluation_set


def pairs(count: int, start: int = 0) -> list[StructuralPair]:
    return [StructuralPair(f"query {i}", f"c{i}", "d", "docstring", f"answer {i}") for i in range(start, start + count)]


CHOOSE, REPORT = pairs(40), pairs(40, 40)
DATA = EvaluationSet([f"c{i}" for i in range(80)], [f"answer {i}" for i in range(80)], CHOOSE, REPORT)


def embedder(quality: dict[float, float]):
    """Queries are their answer's direction plus noise; quality is how much of it is signal."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(80, 32))
    noise = rng.normal(size=(80, 32))

    def embed(texts: Sequence[str], role: str, strength: float) -> np.ndarray:
        rows = [int(text.split()[1]) for text in texts]
        signal = quality[strength] if role == "query" else 1.0
        vectors = signal * directions[rows] + (1 - signal) * noise[rows]
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return embed


def test_the_best_strength_is_taken_and_reported_on_the_other_half() -> None:
    gate = run_gate(DATA, embedder({0.0: 0.1, 0.5: 0.6, 1.0: 0.3}), [0.5, 1.0])
    assert gate.strength == 0.5
    assert gate.comparison is not None
    assert gate.comparison.difference > 0.1
    assert list(gate.evaluations) == ["bm25", "base", "adapted", "hybrid_base", "hybrid"]
    assert gate.evaluations["adapted"].queries == len(REPORT)
    assert gate.summary.startswith("adapted: ")
    assert "p < 0.001" in gate.summary
    assert gate.hybrid_comparison is not None
    change = f"{gate.evaluations['hybrid_base'].mean('nDCG@10'):.4f} → {gate.evaluations['hybrid'].mean('nDCG@10'):.4f}"
    assert f"; hybrid search {change}, p" in gate.summary


def test_a_loss_in_hybrid_search_keeps_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    def falls(before: Evaluation, after: Evaluation, *, metric: str) -> Comparison:
        found = compare(before, after, metric=metric)
        calls.append(found)
        return found if len(calls) == 1 else replace(found, difference=-0.1, after=found.before - 0.1, p_value=0.01)

    calls: list[Comparison] = []
    monkeypatch.setattr("revela_training.gate.choose.compare", falls)
    gate = run_gate(DATA, embedder({0.0: 0.1, 0.5: 0.6}), [0.5])
    assert gate.strength == 0.0 and set(gate.evaluations) == {"bm25", "base", "hybrid"}
    assert gate.comparison is not None and gate.comparison.difference > 0.1
    assert gate.summary.startswith("kept the base model: strength 0.5, chosen on other queries, took hybrid search ")
    assert gate.as_dict()["hybrid_comparison"]["difference"] == -0.1


def test_hybrid_search_is_that_of_an_index_of_chunks() -> None:
    def numberless(texts: Sequence[str], role: str, strength: float) -> np.ndarray:  # BM25 cannot tell the answer
        return embed([f"x {int(text.split()[1]) % 1000}" for text in texts], role, strength)

    embed, sources = embedder({0.0: 0.2, 0.5: 0.4}), [f"d{i // 4}" for i in range(80)]
    choose, report = ([replace(p, query=f"query {1000 + int(p.chunk_id[1:])}") for p in ps] for ps in (CHOOSE, REPORT))
    data = replace(DATA, choose=choose, report=report, sources=sources)
    gate = run_gate(data, numberless, [0.5])
    texts, asked = DATA.documents, {str(i): pair.query for i, pair in enumerate(report)}
    words = WordIndex.build(range(80), texts, sources)
    for name, strength in (("hybrid_base", 0.0), ("hybrid", 0.5)):
        vectors = numberless(list(asked.values()), "query", strength), numberless(texts, "document", strength)
        run = fused_run(*vectors, asked, sources, words, chunk_ids=DATA.document_ids)
        expected = score_run(run, {str(i): {pair.chunk_id: 1} for i, pair in enumerate(report)})
        assert gate.evaluations[name].per_query == expected.per_query
    assert gate.trust == 0.5  # of fewer than a hundred texts
    alone = run_gate(replace(data, sources=None), numberless, [0.5])
    assert alone.evaluations["hybrid"].per_query != gate.evaluations["hybrid"].per_query


def test_hybrid_search_trusts_an_adapted_model_as_far_as_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    embed, asked = embedder({0.0: 0.2, 0.5: 0.4}), []
    monkeypatch.setattr(rule, "dense_share", lambda owners, vectors: asked.append(vectors([0, 1, 2])) or 0.61)
    trusts = []
    monkeypatch.setattr(rule, "fused_run", lambda *a, trust, **k: trusts.append(trust) or fused_run(*a, **k))
    gate = run_gate(DATA, embed, [0.5])
    assert gate.trust == 0.61 and trusts == [0.61, 0.61] and gate.as_dict()["trust"] == 0.61
    assert np.array_equal(asked, [embed(DATA.documents, "document", 0.0)[:3]])


def test_a_harmful_adapter_keeps_the_base() -> None:
    gate = run_gate(DATA, embedder({0.0: 0.4, 0.5: 0.2, 1.0: 0.1}), [0.5, 1.0])
    assert gate.strength == 0.0
    assert gate.comparison is None
    assert "adapted" not in gate.evaluations
    assert gate.summary.startswith("kept the base model: no strength beat it")


def two_halves(choosing: dict[float, float], reporting: dict[float, float]):
    one, other = embedder(choosing), embedder(reporting)

    def embed(texts: Sequence[str], role: str, strength: float) -> np.ndarray:
        chooses = role == "document" or int(texts[0].split()[1]) < 40
        return (one if chooses else other)(texts, role, strength)

    return embed


def test_a_loss_on_the_reporting_half_keeps_the_base() -> None:
    gate = run_gate(DATA, two_halves({0.0: 0.1, 1.0: 0.6}, {0.0: 0.6, 1.0: 0.1}), [1.0])
    assert gate.strength == 0.0 and "adapted" not in gate.evaluations
    assert gate.comparison is not None and gate.comparison.difference < 0
    assert gate.summary.startswith("kept the base model: strength 1, chosen on other queries, took ")


def test_no_difference_on_the_reporting_half_is_said() -> None:
    gate = run_gate(DATA, two_halves({0.0: 0.1, 1.0: 0.6}, {0.0: 0.4, 1.0: 0.399}), [1.0])
    assert gate.strength == 1.0
    assert gate.summary.startswith("trained, but no difference can be told from chance: 0.")
    assert "(strength 1, which gained on the queries it was chosen by); hybrid search" in gate.summary
    assert "adapted" not in gate.summary


def test_queries_that_are_too_easy_are_said_to_be() -> None:
    gate = run_gate(DATA, two_halves({0.0: 0.1, 1.0: 0.6}, {0.0: 1.0, 1.0: 1.0}), [1.0])
    assert gate.strength == 1.0
    assert gate.summary.startswith(
        "trained, but these queries are too easy to tell, as the base model finds nearly every answer first: "
        "1.0000 → 1.0000 nDCG@10 on 40 held-back structural queries, p = 1.000 (strength 1, "
    )
    kept = run_gate(DATA, embedder({0.0: 1.0, 1.0: 1.0}), [1.0])
    assert kept.summary == (
        "kept the base model: the 40 held-back structural queries are too easy to choose by, it already finds nearly "
        "every answer first (1.0000 nDCG@10)"
    )


def test_a_gain_within_noise_keeps_the_base() -> None:
    gate = run_gate(DATA, embedder({0.0: 0.30, 1.0: 0.301}), [1.0])
    assert gate.strength == 0.0


def test_documents_lose_their_query_part_and_are_capped() -> None:
    chunks = [
        Chunk(
            id=f"c{i}",
            text=f'def f{i}(): """find thing {i} quickly now"""',
            document_id="d",
            parts=(Part("docstring", f"find thing {i} quickly now"), Part("body", f"def f{i}(): ...")),
        )
        for i in range(100)
    ]
    found, weak = evaluation_pairs(chunks)
    assert len(found) == 100
    assert not weak
    data = make_evaluation_set(chunks, found[:10], found[10:20], max_documents=50, weak=weak, seed=0)
    assert len(data.documents) == 50
    assert {pair.chunk_id for pair in found[:20]} <= set(data.document_ids)
    assert not any("quickly" in text for text in data.documents)


def test_without_structure_queries_are_cropped_and_flagged() -> None:
    chunks = [Chunk(id=f"c{i}", text=" ".join(f"word{i}x{j}" for j in range(30)), document_id="d") for i in range(50)]
    found, weak = evaluation_pairs(chunks)
    assert weak
    assert len(found) == 50
    assert not set(found[0].query.split()) & set(found[0].answer_text.split())


def titled(count: int, of: int) -> list[Chunk]:
    def parts(i: int, text: str) -> tuple[Part, ...]:
        return (Part("title", f"All about thing {i}"), Part("text", text)) if i < count else ()

    texts = [" ".join(f"word{i}x{j}" for j in range(30)) for i in range(of)]
    return [Chunk(id=f"c{i}", text=text, document_id=f"d{i}", parts=parts(i, text)) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("count", "of", "weak"), [(39, 60, True), (40, 60, False), (60, 700, True), (70, 700, False)])
def test_a_few_titles_in_a_large_corpus_are_not_its_structure(count: int, of: int, weak: bool) -> None:
    pairs, found = evaluation_pairs(titled(count, of))
    assert (len(pairs), found) == (of if weak else count, weak)
    assert sum(pair.query_role == "title" for pair in pairs) == count


def test_three_hundred_pairs_are_enough_in_any_corpus() -> None:
    assert [evaluation_pairs(titled(count, 4000))[1] for count in (299, 300)] == [True, False]


def test_where_answers_are_halves_the_others_are_too() -> None:
    chunks = titled(0, 60)
    pairs, weak = evaluation_pairs(chunks)
    data = make_evaluation_set(chunks, pairs[:10], pairs[10:20], max_documents=50, weak=weak, seed=0)
    assert {len(text.split()) for text in data.documents} == {15}
    whole = make_evaluation_set(chunks, pairs[:10], pairs[10:20], max_documents=50, weak=False, seed=0)
    assert {len(text.split()) for text in whole.documents} == {15, 30}


def test_headings_of_chunks_that_are_not_drawn_are_taken_out_too() -> None:
    title, text = Part("title", "On the creep of columns"), " ".join(f"word{j}" for j in range(30))
    chunks = titled(40, 40)
    for i in range(40):
        first = Chunk(f"e{i}", text, f"e{i}", 0, title=f"{title.text} {i}", parts=(title, Part("text", text)))
        chunks += [first, Chunk(f"f{i}", text, f"e{i}", 1, title=f"{title.text} {i}")]
    pairs = evaluation_pairs(chunks[:40])[0]
    data = make_evaluation_set(chunks, pairs[:10], pairs[10:20], max_documents=70, weak=False, seed=0)
    assert not any("creep" in found for found in data.documents)


def test_terse_texts_are_cropped_where_long_ones_are_few() -> None:
    def worded(count: int, words: int) -> list[Chunk]:
        texts = [" ".join(f"word{words}x{i}x{j}" for j in range(words)) for i in range(count)]
        return [Chunk(id=text.split()[0], text=text, document_id="d") for text in texts]

    tools = worded(60, 10)
    pairs, weak = evaluation_pairs(tools)
    assert weak and len(pairs) == 60
    assert {len(text.split()) for pair in pairs for text in (pair.query, pair.answer_text)} == {5}
    data = make_evaluation_set(tools, pairs[:10], pairs[10:20], max_documents=50, weak=weak, seed=0)
    assert data.terse and {len(text.split()) for text in data.documents} == {5}
    assert len(evaluation_pairs(tools + worded(40, 30))[0]) == 40, "the usual length where enough have it"
    assert len(evaluation_pairs(tools + worded(39, 30))[0]) == 99


def test_less_than_ten_documents_cannot_choose() -> None:
    def gate(choosing: int) -> Any:
        data = EvaluationSet(DATA.document_ids, DATA.documents, CHOOSE[:choosing], REPORT)
        return run_gate(data, embedder({0.0: 0.1, 1.0: 0.9}), [1.0])

    assert gate(10).strength == 1.0
    assert gate(9).strength == 0.0
    assert (
        "kept the base model: 9 held-back structural queries are too few to choose by, it takes 10" in gate(9).summary
    )


@pytest.mark.parametrize("words", [0, 5])
def test_short_texts_are_not_cropped(words: int) -> None:
    assert evaluation_pairs([Chunk(id="c", text="word " * words, document_id="d")]) == ([], True)


def witnessed(quality: dict[str, dict[float, float]]):
    """An embedder whose queries of each kind (the first word of the query) are as good as told."""
    rng = np.random.default_rng(0)
    directions, noise = rng.normal(size=(80, 32)), rng.normal(size=(3, 80, 32))

    def embed(texts: Sequence[str], role: str, strength: float) -> np.ndarray:
        rows = [int(text.split()[1]) for text in texts]
        if role == "document":
            vectors = directions[rows]
        else:
            kind = texts[0].split()[0]
            signal = quality[kind][strength]
            vectors = signal * directions[rows] + (1 - signal) * noise[list(quality).index(kind)][rows]
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return embed


WITNESSES = {
    kind: [StructuralPair(f"{kind} {i}", f"c{i}", "d", kind, f"answer {i}") for i in range(40)]
    for kind in ("keywords", "span")
}


def test_all_kinds_of_queries_choose_with_the_same_weight() -> None:
    data = EvaluationSet(DATA.document_ids, DATA.documents, CHOOSE, REPORT, witnesses=WITNESSES)
    rising = {0.0: 0.1, 0.5: 0.2, 1.0: 0.25}
    falling_late = {0.0: 0.2, 0.5: 0.3, 1.0: 0.1}
    gate = run_gate(data, witnessed({"query": rising, "keywords": falling_late, "span": falling_late}), [0.5, 1.0])
    assert gate.strength == 0.5
    assert set(gate.details["kinds"]) == {"structure", "keywords", "span"}
    means = [gate.details["kinds"][kind]["0.5"] for kind in gate.details["kinds"]]
    assert gate.choosing[0.5] == pytest.approx(np.mean(means))


def test_a_strength_that_harms_one_kind_is_refused_whatever_the_others_gain() -> None:
    data = EvaluationSet(DATA.document_ids, DATA.documents, CHOOSE, REPORT, witnesses=WITNESSES)
    quality = {"query": {0.0: 0.1, 1.0: 0.9}, "keywords": {0.0: 0.4, 1.0: 0.2}, "span": {0.0: 0.1, 1.0: 0.9}}
    gate = run_gate(data, witnessed(quality), [1.0])
    assert gate.strength == 0.0
    assert gate.summary.startswith("kept the base model: every strength costs one kind")
    assert re.search(r"\(keywords queries 0\.\d+ → 0\.\d+ nDCG@10 at strength 1\), whatever the others", gate.summary)


@pytest.mark.parametrize(("loss", "harmless"), [(0.008, True), (0.012, False), (0.03, False)])
def test_a_kind_may_lose_a_point_and_no_more(loss: float, harmless: bool) -> None:
    data = EvaluationSet(DATA.document_ids, DATA.documents, CHOOSE, REPORT, witnesses={"span": WITNESSES["span"]})
    values = {
        (CHOOSE[0].query, 0.0): 0.5,
        (CHOOSE[0].query, 1.0): 0.7,
        ("span 0", 0.0): 0.5,
        ("span 0", 1.0): 0.5 - loss,
    }

    def score(pairs: Sequence[StructuralPair], strength: float) -> Evaluation:
        value = values[pairs[0].query, strength]
        return Evaluation("run", {"nDCG@10": {str(i): value for i in range(len(pairs))}})

    choice = rule._choose(data, score, [1.0], strict=False, gentle=False)
    assert (choice.harmless, choice.accepted) == (harmless, harmless)


@pytest.mark.parametrize(
    ("full", "share"), [(0.1, 1.0), (0.05, 0.75), (0.025, 0.625), (0.0, 0.5), (-0.2, 0.5), (0.2, 1.0)]
)
def test_the_share_of_the_best_gain_follows_what_full_strength_leaves_of_it(full: float, share: float) -> None:
    assert rule._enough(0.1, full) == pytest.approx(share)
    assert rule._enough(0.0, full) == 0.5


def test_lora_must_gain_on_more_than_words() -> None:
    data = EvaluationSet(DATA.document_ids, DATA.documents, CHOOSE, REPORT, witnesses=WITNESSES)
    words = {0.0: 0.1, 1.0: 0.9}
    flat = {"query": {0.0: 0.2, 1.0: 0.2}, "keywords": words, "span": words}
    assert run_gate(data, witnessed(flat), [1.0]).strength == 1.0
    strict = run_gate(data, witnessed(flat), [1.0], strict=True)
    assert strict.strength == 0.0
    assert "held-back keywords and span queries gain, structural ones do not beyond noise" in strict.summary
    rising = {**flat, "query": {0.0: 0.1, 1.0: 0.6}}
    assert "try --adapter linear" in strict.summary
    terse = run_gate(replace(data, terse=True), witnessed(flat), [1.0], strict=True)
    assert terse.strength == 0.0 and "--adapter" not in terse.summary
    assert run_gate(data, witnessed(rising), [1.0], strict=True).strength == 1.0


def test_witnesses_come_from_the_documents_that_choose() -> None:
    words = ["river", "engine", "window", "garden", "letter", "mirror", "bridge", "candle", "forest", "apple"]
    chunks = [
        Chunk(
            f"c{i}",
            f"what it does {i}\n" + " ".join(words[(i + j) % 10] for j in range(14)),
            "d",
            parts=(
                Part("docstring", f"what it does {i}"),
                Part("body", " ".join(words[(i + j) % 10] for j in range(14))),
            ),
        )
        for i in range(80)
    ]
    found, weak = evaluation_pairs(chunks)
    assert not weak
    data = make_evaluation_set(chunks, found[:40], found[40:], max_documents=100, weak=False, seed=0)
    assert set(data.witnesses) == {"keywords", "span"}
    choosing = {pair.chunk_id for pair in found[:40]}
    documents = dict(zip(data.document_ids, data.documents, strict=True))
    for pairs_ in data.witnesses.values():
        assert {pair.chunk_id for pair in pairs_} <= choosing
        assert all(word in documents[pair.chunk_id] for pair in pairs_ for word in pair.query.split())


def test_few_documents_give_several_witnesses_each_and_count_once() -> None:
    words = [f"word{letter}{other}" for letter in "abcdefgh" for other in "abcdefgh"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 30)) for _ in range(30)]
    chunks = [
        Chunk(f"c{i}", f"what {i} does\n{text}", "d", parts=(Part("docstring", f"what {i} does"), Part("body", text)))
        for i, text in enumerate(texts)
    ]
    found = [StructuralPair(f"what {i} does", f"c{i}", "d", "docstring", text) for i, text in enumerate(texts)]
    data = make_evaluation_set(chunks, found[:20], found[20:], max_documents=100, weak=False, seed=0)
    assert all(140 < len(pairs) <= 160 for pairs in data.witnesses.values())  # eight draws, fewer where two are alike
    data = make_evaluation_set(chunks, found[:19], found[19:], max_documents=100, weak=False, seed=0)
    assert not data.witnesses  # many queries of few documents are few witnesses

    asked_once = [StructuralPair(f"keywords {i}", f"c{i}", "d", "keywords", f"answer {i}") for i in range(40)]
    lost = [StructuralPair("keywords 0", "c0", "d", "keywords", "answer 0")] * 500
    quality = {"query": {0.0: 0.1, 1.0: 0.6}, "keywords": {0.0: 0.2, 1.0: 0.5}}

    def kinds(witnesses: list[StructuralPair]) -> dict[str, float]:
        data = EvaluationSet(DATA.document_ids, DATA.documents, CHOOSE, REPORT, witnesses={"keywords": witnesses})
        found: dict[str, float] = run_gate(data, witnessed(quality), [1.0]).details["kinds"]["keywords"]
        return found

    assert kinds([*asked_once, *lost]) == pytest.approx(kinds(asked_once))


def test_the_gentlest_strength_is_taken_that_comes_the_nearer_to_the_best_the_less_full_strength_loses() -> None:
    def chosen(full: float, **options: Any) -> tuple[float, dict[float, float]]:
        gate = run_gate(DATA, embedder({0.0: 0.1, 0.25: 0.34, 0.5: 0.6, 1.0: full}), [0.25, 0.5, 1.0], **options)
        base, best = gate.choosing[0.0], gate.choosing[0.5]
        return gate.strength, {s: (value - base) / (best - base) for s, value in gate.choosing.items()}

    kept, shares = chosen(0.6)
    assert 0.6 < shares[0.25] < 0.9 < shares[1.0]
    assert kept == 0.5
    fallen, shares = chosen(0.15)
    assert shares[1.0] < 0.2
    assert fallen == 0.25
    assert chosen(0.15, gentle=False)[0] == 0.5


def test_what_nothing_held_to_the_base_is_taken_at_five_eighths_at_most() -> None:
    rising = {0.0: 0.1, 0.5: 0.3, 0.625: 0.4, 0.75: 0.5, 1.0: 0.7}
    asked = [0.5, 0.625, 0.75, 1.0]
    assert run_gate(DATA, embedder(rising), asked).strength == 0.625
    assert run_gate(DATA, embedder(rising), asked, gentle=False).strength == 1.0
    assert run_gate(DATA, embedder({0.0: 0.1, 1.0: 0.7}), [1.0]).strength == 1.0  # there is no other
