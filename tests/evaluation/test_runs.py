from __future__ import annotations

import numpy as np
import pytest

from revela_rag.evaluation import dense_run, lexical_run
from revela_rag.evaluation import runs as runs_module


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
