"""Runs: for every query the documents a retriever ranks first, with their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from revela_rag.terms import Analyzer

__all__ = ["Run", "check_depth", "dense_run", "inner_products", "lexical_run"]

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
    check_depth(k)
    run: Run = {query_id: {} for query_id in query_ids}
    ids, order, starts = _grouped(document_ids)
    for some, _, scores in inner_products(query_vectors, document_vectors, query_ids, document_ids):
        if order is not None:
            scores = np.maximum.reduceat(scores[:, order], starts, axis=1)
        run.update(_best(some, ids, scores, k))
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
    check_depth(k)
    index = LexicalIndex.build(document_ids, texts, analyzer=analyzer)
    return {query_id: dict(index.search(text, k)) for query_id, text in zip(query_ids, queries, strict=True)}


def inner_products(
    query_vectors: np.ndarray, document_vectors: np.ndarray, query_ids: Sequence[str], document_ids: Sequence[str]
) -> Iterator[tuple[Sequence[str], np.ndarray, np.ndarray]]:
    """Some query ids at a time, their vectors, and the inner products with all documents, (queries, N).

    Raises:
        ValueError: the shapes do not fit.
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
    if not len(queries) or not len(documents):
        return
    transposed = documents.T
    block = max(1, _BLOCK // len(documents))
    for first in range(0, len(queries), block):
        some = queries[first : first + block]
        yield query_ids[first : first + block], some, some @ transposed


def _best(query_ids: Sequence[str], ids: list[str], scores: np.ndarray, k: int) -> Run:
    """The k best columns of each row."""
    depth = min(k, len(ids))
    best = np.argpartition(scores, -depth, axis=1)[:, -depth:]
    found = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    found = np.take_along_axis(found, order, axis=1)
    return {
        query_id: {ids[column]: score for column, score in zip(best[row].tolist(), found[row].tolist(), strict=True)}
        for row, query_id in enumerate(query_ids)
    }


def _grouped(ids: Sequence[str]) -> tuple[list[str], np.ndarray | None, np.ndarray]:
    """Unique ids, the order that puts those of one id beside each other, and where each id then starts.

    The order is None where all ids differ.
    """
    numbers: dict[str, int] = {}
    groups = np.fromiter((numbers.setdefault(id_, len(numbers)) for id_ in ids), dtype=np.int64, count=len(ids))
    if len(numbers) == len(ids):
        return list(ids), None, groups
    order = np.argsort(groups, kind="stable")
    return list(numbers), order, np.flatnonzero(np.r_[True, np.diff(groups[order]) > 0])


def check_depth(k: int) -> None:
    """Refuse a depth below 1 with a ValueError."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
