from __future__ import annotations

import numpy as np
import pytest

from revela_rag.context import in_context
from revela_rag.evaluation import dense_run, fused_run, hybrid_run, lexical_run
from revela_rag.evaluation import runs as runs_module
from revela_rag.fusion import fuse
from revela_rag.lexical import LexicalIndex


def _unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 100, 1 << 25])
@pytest.mark.parametrize("documents", [3, 7, 60])
def test_dense_run_is_exact_and_scores_documents_by_their_best_chunk(
    block: int, documents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "_BLOCK", block)
    queries, chunks = _unit(9, 0), _unit(60, 1)
    document_ids = [f"d{i % documents}" for i in range(60)]
    query_ids = [f"q{i}" for i in range(9)]
    run = dense_run(queries, chunks, query_ids, document_ids, k=5)
    for row, query_id in enumerate(query_ids):
        best: dict[str, float] = {}
        for column, document_id in enumerate(document_ids):
            cosine = float(queries[row] @ chunks[column])
            best[document_id] = max(best.get(document_id, -1.0), cosine)
        expected = sorted(best.items(), key=lambda item: -item[1])[:5]
        assert list(run[query_id]) == [document_id for document_id, _ in expected]
        assert list(run[query_id].values()) == pytest.approx([score for _, score in expected], abs=1e-6)


def test_dense_run_keeps_self_matches() -> None:
    vectors = _unit(4, 2)
    ids = ["a", "b", "c", "d"]
    run = dense_run(vectors, vectors, ids, ids, k=2)
    assert [next(iter(found)) for found in run.values()] == ids


def test_dense_run_without_documents_finds_nothing() -> None:
    assert dense_run(_unit(2, 0), np.empty((0, 8)), ["a", "b"], []) == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    ("documents", "ids", "k", "message"),
    [
        (_unit(2, 0), ["a"], 5, "2 document vectors"),
        (np.ones((2, 3)), ["a", "b"], 5, "shapes"),
        (_unit(1, 0), ["a"], 0, "k must"),
    ],
)
def test_dense_run_refuses_what_does_not_fit(documents: np.ndarray, ids: list[str], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense_run(_unit(1, 0), documents, ["q"], ids, k=k)


def test_lexical_run_finds_words() -> None:
    texts = ["red apples grow on trees", "boats sail across the sea", "def readFile(path): return path"]
    run = lexical_run(["the sea", "read a file", "zebra"], texts, ["q1", "q2", "q3"], ["d1", "d2", "d3"], k=2)
    assert next(iter(run["q1"])) == "d2"
    assert next(iter(run["q2"])) == "d3", "identifiers are split"
    assert run["q3"] == {} or max(run["q3"].values()) == 0
    with pytest.raises(ValueError, match="needs one id"):
        lexical_run(["a"], texts, ["q1"], ["d1"])


def test_hybrid_run_by_rank() -> None:
    first = {"q": {"a": 9.0, "b": 8.0}, "only": {"a": 1.0}}
    second = {"q": {"b": 0.5, "c": 0.4}}
    run = hybrid_run([first, second], k=2, method="rrf")
    assert list(run["q"]) == ["b", "a"]
    assert run["q"]["b"] == pytest.approx(1 / 62 + 1 / 61)
    assert list(run["only"]) == ["a"]


def test_hybrid_run_by_score() -> None:
    lexical = {"q": {"a": 20.0, "b": 10.0}, "words": {"a": 1.0}}
    dense = {"q": {"c": 0.5, "b": 0.4, "d": 0.3}, "meaning": {"d": 0.2, "a": 0.1}}
    run = hybrid_run([lexical, dense], k=3)
    fused = dict(fuse({"c": 0.5, "b": 0.4, "d": 0.3, "a": 0.3}, lexical["q"]))  # what dense lacks is its least
    assert run["q"] == pytest.approx({id_: fused[id_] for id_ in "abc"}) and next(iter(run["q"])) == "a"
    assert run["words"] == {"a": 1.0} and list(run["meaning"]) == ["d", "a"]


def test_hybrid_run_refuses_what_it_cannot_fuse() -> None:
    lexical, dense = {"q": {"a": 20.0}}, {"q": {"a": 0.5}}
    with pytest.raises(ValueError, match=r"20\.0 in the second run"):
        hybrid_run([dense, lexical])
    with pytest.raises(ValueError, match="got 1 runs"):
        hybrid_run([dense])
    with pytest.raises(ValueError, match="method='rank'"):
        hybrid_run([lexical, dense], method="rank")
    with pytest.raises(ValueError, match="k must"):
        hybrid_run([lexical, dense], k=0)


@pytest.mark.parametrize("block", [1, 1 << 25])
def test_fused_run_is_hybrid_run_over_the_candidates(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "_BLOCK", block)
    words = ["red", "blue", "green", "gold", "grey"]
    texts = [" ".join(words[i % 5 :: 1 + i % 3]) + f" thing{i}" for i in range(30)]
    document_ids = [f"d{i}" for i in range(30)]
    queries = {"q0": "red thing7", "q1": "zebra", "q2": "to be chosen"}
    passages = [*document_ids[::-1], "d4", "d9"]  # in another order, and two documents of two chunks
    query_vectors, vectors = _unit(3, 0), _unit(32, 1)
    dense = dense_run(query_vectors, in_context(vectors, passages), list(queries), passages, k=30)
    last = list(dense["q2"])[-1]
    queries["q2"] = f"thing{last[1:]} " * 9
    lexical = lexical_run(list(queries.values()), texts, list(queries), document_ids, k=30)
    fused = fused_run(query_vectors, vectors, queries, passages, LexicalIndex.build(document_ids, texts), k=8)
    expected = hybrid_run([lexical, dense], k=8)
    for query_id in queries:
        assert list(fused[query_id]) == list(expected[query_id])
        assert fused[query_id] == pytest.approx(expected[query_id], abs=1e-6)
    assert list(fused["q1"]) == list(dense["q1"])[:8] and last in fused["q2"]


def test_fused_run_takes_candidates_from_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "DEPTH", 2)
    ids = [f"d{i}" for i in range(6)]
    vectors = np.eye(6, dtype=np.float32)
    query = np.array([[0.9, 0.4, 0.1, 0.1, 0.1, 0.05]], dtype=np.float32)
    lexical = LexicalIndex.build(ids, ["a b", "a b", "a b", "a b", "zebra", "zebra zebra"])
    run = fused_run(query / np.linalg.norm(query), vectors, {"q": "zebra"}, ids, lexical, k=1)
    assert list(run["q"]) == ["d0"]
    near = {f"d{i}": float(query[0, i] / np.linalg.norm(query)) for i in (0, 1, 4, 5)}
    words = dict(zip(ids, lexical.scores("zebra").tolist(), strict=True))
    assert run["q"]["d0"] == pytest.approx(dict(fuse(near, {id_: words[id_] for id_ in near}))["d0"], abs=1e-6)


def test_fused_run_refuses_a_lexical_index_of_other_documents() -> None:
    with pytest.raises(ValueError, match="lacks the document 'b'"):
        fused_run(_unit(1, 0), _unit(2, 1), {"q": "x"}, ["a", "b"], LexicalIndex.build(["a"], ["x"]))
