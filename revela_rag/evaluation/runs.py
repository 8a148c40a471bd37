"""Runs: for every query the documents a retriever ranks first, with their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from revela_rag.context import in_context
from revela_rag.fusion import DEPTH, candidates, fuse, fused_scores, rrf

if TYPE_CHECKING:
    from revela_rag.lexical import Analyzer, LexicalIndex

__all__ = ["Run", "dense_run", "fused_run", "hybrid_run", "lexical_run"]

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
    _check_depth(k)
    run: Run = {query_id: {} for query_id in query_ids}
    for some, ids, scores in _cosines(query_vectors, document_vectors, query_ids, document_ids):
        run.update(_best(some, ids, scores, k))
    return run


def fused_run(
    query_vectors: np.ndarray,
    document_vectors: np.ndarray,
    queries: Mapping[str, str],
    document_ids: Sequence[str],
    lexical: LexicalIndex,
    *,
    k: int = 100,
) -> Run:
    """Hybrid search as an index does it: the best by cosine and the best by BM25, fused by how sure each side is.

    See :func:`revela_rag.fusion.fused_scores`. The candidates are the ``max(k, 100)`` best documents of each side,
    with the true cosine and BM25 score of every one.

    Args:
        query_vectors: shape (Q, d), unit vectors.
        document_vectors: shape (N, d), unit vectors.
        queries: Q texts by id, in the order of their vectors.
        document_ids: N ids, repeated for chunks of the same document, whose cosine is that of its best chunk, each
            chunk in the context of its document (:func:`revela_rag.context.in_context`).
        lexical: BM25 over the same documents.
        k: documents per query.

    Raises:
        ValueError: the shapes do not fit, ``lexical`` lacks a document, or ``k`` is below 1.
    """
    _check_depth(k)
    run: Run = {query_id: {} for query_id in queries}
    places = {id_: place for place, id_ in enumerate(lexical.ids)}
    missing = next((id_ for id_ in document_ids if id_ not in places), None)
    if missing is not None:
        raise ValueError(f"the lexical index lacks the document {missing!r}; build it over the same documents")
    if len(document_vectors) == len(document_ids):  # or it is an error below
        document_vectors = in_context(document_vectors, document_ids)
    for some, ids, cosines in _cosines(query_vectors, document_vectors, list(queries), document_ids):
        columns = np.array([places[id_] for id_ in ids])
        for row, query_id in enumerate(some):
            bm25 = lexical.scores(queries[query_id])[columns]
            found = candidates(cosines[row], bm25, max(k, DEPTH))
            scores = fused_scores(cosines[row][found], bm25[found])
            best = np.lexsort((-cosines[row][found], -scores))[:k]
            run[query_id] = {ids[found[i]]: float(scores[i]) for i in best}
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
    runs: Sequence[Mapping[str, Mapping[str, float]]], *, k: int = 100, method: Literal["score", "rrf"] = "score"
) -> Run:
    """Fuse runs. Where vectors are at hand, :func:`fused_run` knows every score.

    Args:
        runs: over the same queries. For ``"score"`` a lexical run and then a dense one, deep enough (1,000 documents):
            the ``max(k, 100)`` best of each are candidates, what the lexical run lacks has no BM25 score, and what the
            dense run lacks is given the least cosine there.
            For ``"rrf"`` any runs; a query that one of them lacks is fused from the others.
        k: documents per query.
        method: ``"score"`` fuses by how sure each side is (:func:`revela_rag.fusion.fuse`); ``"rrf"`` counts ranks
            alone (:func:`revela_rag.fusion.rrf`).

    Raises:
        ValueError: not two runs, or the second one's scores are not cosines, in ``"score"``; ``k`` is below 1.
    """
    _check_depth(k)
    if method not in ("score", "rrf"):
        raise ValueError(f"method={method!r} is not one of 'score', 'rrf'")
    if method == "score":
        _check_pair(runs)
    fused: Run = {}
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run):
        found = [run.get(query_id, {}) for run in runs]
        if method == "rrf":
            fused[query_id] = dict(rrf([_ranking(scores) for scores in found])[:k])
        else:
            lexical, dense = ({id_: scores[id_] for id_ in _ranking(scores)} for scores in found)
            depth, least = max(k, DEPTH), min(dense.values(), default=0.0)
            both = dict.fromkeys([*islice(dense, depth), *islice((i for i in lexical if lexical[i] > 0), depth)])
            words = {id_: max(lexical.get(id_, 0.0), 0.0) for id_ in both}
            fused[query_id] = dict(fuse({id_: dense.get(id_, least) for id_ in both}, words)[:k])
    return fused


def _check_pair(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    if len(runs) != 2:
        raise ValueError(f"a lexical and a dense run are fused by score, got {len(runs)} runs; use method='rrf'")
    for query_id, scores in runs[1].items():
        wrong = next((score for score in scores.values() if not abs(score) < 1.001), None)
        if wrong is not None:
            raise ValueError(f"query {query_id!r} has {wrong} in the second run, no cosine; give [lexical, dense]")


def _ranking(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda document_id: scores[document_id], reverse=True)


def _cosines(
    query_vectors: np.ndarray, document_vectors: np.ndarray, query_ids: Sequence[str], document_ids: Sequence[str]
) -> Iterator[tuple[Sequence[str], list[str], np.ndarray]]:
    """Some query ids at a time, all document ids, each once, and their inner products (queries, documents)."""
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
    ids, documents, starts = _grouped(documents, document_ids)
    transposed = documents.T
    block = max(1, _BLOCK // len(documents))
    for first in range(0, len(queries), block):
        scores = queries[first : first + block] @ transposed
        if starts is not None:
            scores = np.maximum.reduceat(scores, starts, axis=1)
        yield query_ids[first : first + block], ids, scores


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
