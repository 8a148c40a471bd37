"""Runs: for every query the documents a retriever ranks first, with their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from revela_rag.lexical import Analyzer

__all__ = ["Run", "dense_run", "hybrid_run", "lexical_run"]

#: Query id to {document id: score}, higher is better, best first.
Run = dict[str, dict[str, float]]

_BLOCK = 1 << 25


def dense_run(
    query_vectors: np.ndarray,
    document_vectors: np.ndarray,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    *,
    k: int = 100,
) -> Run:
    """Exact nearest documents by inner product, which for unit vectors is the cosine.

    A document id may occur more than once, for a document of several chunks: it scores as its best chunk. A
    query finds a document of the same id like any other.

    Args:
        query_vectors: shape (Q, d).
        document_vectors: shape (N, d).
        query_ids: Q ids.
        document_ids: N ids, repeated for chunks of the same document.
        k: documents per query.

    Raises:
        ValueError: the shapes do not fit, or ``k`` is below 1.
    """
    queries = np.ascontiguousarray(query_vectors, dtype=np.float32)
    documents = np.ascontiguousarray(document_vectors, dtype=np.float32)
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ValueError(f"expected vectors of shapes (Q, d) and (N, d), got {queries.shape} and {documents.shape}")
    if len(queries) != len(query_ids) or len(documents) != len(document_ids):
        raise ValueError(
            f"{len(queries)} query vectors need as many ids, got {len(query_ids)}; {len(documents)} document "
            f"vectors need as many ids, got {len(document_ids)}"
        )
    _check_depth(k)
    if not len(queries) or not len(documents):
        return {query_id: {} for query_id in query_ids}
    ids, documents, starts = _grouped(documents, document_ids)
    transposed = documents.T
    depth = min(k, len(ids))
    run: Run = {}
    block = max(1, _BLOCK // len(documents))
    for first in range(0, len(queries), block):
        scores = queries[first : first + block] @ transposed
        if starts is not None:
            scores = np.maximum.reduceat(scores, starts, axis=1)
        best = np.argpartition(scores, -depth, axis=1)[:, -depth:]
        found = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
        for row, query_id in enumerate(query_ids[first : first + block]):
            run[query_id] = {
                ids[column]: score for column, score in zip(best[row].tolist(), found[row].tolist(), strict=True)
            }
    return run


def lexical_run(
    queries: Sequence[str],
    texts: Sequence[str],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    *,
    k: int = 100,
    analyzer: Analyzer = "code",
) -> Run:
    """The documents BM25 ranks first.

    Args:
        queries: Q texts.
        texts: N documents.
        query_ids: Q ids.
        document_ids: N different ids.
        k: documents per query.
        analyzer: of :class:`revela_rag.lexical.LexicalIndex`; ``"code"`` also splits identifiers.

    Raises:
        ValueError: the numbers of texts and ids differ, or ``k`` is below 1.
    """
    from revela_rag.lexical import LexicalIndex

    if len(queries) != len(query_ids) or len(texts) != len(document_ids):
        raise ValueError(
            f"every text needs one id, got {len(queries)} queries with {len(query_ids)} ids and {len(texts)} "
            f"documents with {len(document_ids)} ids"
        )
    _check_depth(k)
    index = LexicalIndex.build(document_ids, texts, analyzer=analyzer)
    return {query_id: dict(index.search(text, k)) for query_id, text in zip(query_ids, queries, strict=True)}


def hybrid_run(
    runs: Sequence[Mapping[str, Mapping[str, float]]],
    *,
    k: int = 100,
    weights: Sequence[float] | None = None,
    constant: int = 60,
) -> Run:
    """Fuse runs by reciprocal rank, see :func:`revela_rag.fusion.rrf`.

    Args:
        runs: two or more runs over the same queries; a query that one of them lacks is fused from the others.
        k: documents per query.
        weights: one per run; all 1 by default.
        constant: damping of the first ranks.
    """
    from revela_rag.fusion import rrf

    _check_depth(k)
    query_ids = dict.fromkeys(query_id for run in runs for query_id in run)
    fused: Run = {}
    for query_id in query_ids:
        rankings = [_ranking(run.get(query_id, {})) for run in runs]
        fused[query_id] = dict(rrf(rankings, weights=weights, constant=constant)[:k])
    return fused


def _ranking(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda document_id: scores[document_id], reverse=True)


def _grouped(vectors: np.ndarray, ids: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Unique ids, vectors with those of one id adjacent, and where each id starts (None if all differ)."""
    numbers: dict[str, int] = {}
    groups = np.fromiter((numbers.setdefault(id_, len(numbers)) for id_ in ids), dtype=np.int64, count=len(ids))
    if len(numbers) == len(ids):
        return list(ids), vectors, None
    if np.any(np.diff(groups) < 0):
        order = np.argsort(groups, kind="stable")
        groups, vectors = groups[order], vectors[order]
    return list(numbers), vectors, np.flatnonzero(np.r_[True, np.diff(groups) > 0])


def _check_depth(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
