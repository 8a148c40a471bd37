"""That a run is what an index finds is tested with the index, tests/index/test_hybrid.py."""

from __future__ import annotations

import numpy as np
import pytest

from revela_rag.context import DocumentContext
from revela_rag.evaluation import fused as fused_module
from revela_rag.evaluation import fused_run, runs
from revela_rag.fusion import cosine_step, fused_scores
from revela_rag.index.words import WordIndex

WORDS = ["red", "blue", "green", "gold", "grey"]
TEXTS = [" ".join(WORDS[i % 5 :: 1 + i % 3]) + f" thing{i}" for i in range(30)]
DOCUMENTS = [f"d{i // 3}" if i < 12 else f"d{i}" for i in range(30)]
QUERIES = {"q0": "red thing7", "q1": "zebra", "q2": "thing29 thing29"}


def _unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 1 << 25])
def test_documents_score_as_their_best_chunk(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_BLOCK", block)
    queries, vectors = _unit(3, 0), _unit(30, 1)
    words = WordIndex.build(range(30), TEXTS, DOCUMENTS)
    found = fused_run(queries, vectors, QUERIES, DOCUMENTS, words, k=40)
    ids = [f"c{i}" for i in range(30)]
    chunks = fused_run(queries, vectors, QUERIES, DOCUMENTS, words, chunk_ids=ids, k=8)
    context = DocumentContext.build(np.arange(30), DOCUMENTS, vectors.__getitem__)
    step = cosine_step(30, vectors.__getitem__)
    for row, (query_id, text) in enumerate(QUERIES.items()):
        bm25 = words.scores_in_context(text)
        cosines = context.cosines(queries[row], np.arange(30), vectors @ queries[row])
        scores = fused_scores(cosines, bm25, cosine_step=step)
        ranked = [(place, scores[place]) for place in np.argsort(-scores, kind="stable").tolist()]
        best: dict[str, float] = {}
        for place, score in ranked:
            best.setdefault(DOCUMENTS[place], score)
        assert list(found[query_id]) == list(best)
        assert found[query_id] == pytest.approx(best, abs=1e-6)
        assert list(chunks[query_id]) == [ids[place] for place, _ in ranked[:8]]
    assert next(iter(chunks["q2"])) == "c29"


def test_candidates_come_from_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_module, "DEPTH", 1)
    ids = [f"d{i}" for i in range(6)]
    vectors = np.eye(6, dtype=np.float32)
    query = np.array([[0.9, 0.4, 0.1, 0.1, 0.1, 0.05]], dtype=np.float32)
    words = WordIndex.build(range(6), ["a b", "a b", "a b", "a b", "zebra", "zebra zebra"], ids)
    query /= np.linalg.norm(query)
    run = fused_run(query, vectors, {"q": "zebra"}, ids, words, k=1)
    bm25 = words.scores_in_context("zebra")
    near = [0, 1, 4, 5]
    step = cosine_step(6, vectors.__getitem__)
    score = fused_scores(query[0, near], bm25[near], cosine_step=step)[0]
    assert run["q"] == pytest.approx({"d0": score}, abs=1e-6)


def test_more_candidates_where_chunks_are_of_few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_module, "DEPTH", 1)
    documents = ["many"] * 27 + ["a", "b", "c"]
    vectors = np.zeros((30, 2), dtype=np.float32)
    angles = np.linspace(0, 1.5, 30)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    words = WordIndex.build(range(30), TEXTS, documents)
    run = fused_run(vectors[:1], vectors, {"q": "zebra"}, documents, words, k=3)
    assert list(run["q"]) == ["many", "a", "b"]


def test_nothing_to_find() -> None:
    words = WordIndex.build([], [], [])
    assert fused_run(_unit(1, 0), np.empty((0, 8), dtype=np.float32), {"q": "x"}, [], words) == {"q": {}}


def test_what_does_not_fit_is_refused() -> None:
    words = WordIndex.build(range(2), ["x", "y"], ["a", "b"])
    with pytest.raises(ValueError, match="BM25 of 2 chunks"):
        fused_run(_unit(1, 0), _unit(3, 1), {"q": "x"}, ["a", "b", "c"], words)
    with pytest.raises(ValueError, match="1 names"):
        fused_run(_unit(1, 0), _unit(2, 1), {"q": "x"}, ["a", "b"], words, chunk_ids=["c"])
    with pytest.raises(ValueError, match="3 document vectors"):
        fused_run(_unit(1, 0), _unit(3, 1), {"q": "x"}, ["a", "b"], words)
    with pytest.raises(ValueError, match="k must"):
        fused_run(_unit(1, 0), _unit(2, 1), {"q": "x"}, ["a", "b"], words, k=0)
