"""The run of a hybrid search over vectors at hand: what an index of them would find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from revela_rag.context import DocumentContext
from revela_rag.evaluation.runs import Run, check_depth, inner_products
from revela_rag.fusion import DEPTH, candidates

if TYPE_CHECKING:
    from revela_rag.index.words import WordIndex

__all__ = ["fused_run"]


def fused_run(
    query_vectors: np.ndarray,
    chunk_vectors: np.ndarray,
    queries: Mapping[str, str],
    document_ids: Sequence[str],
    words: WordIndex,
    *,
    chunk_ids: Sequence[str] | None = None,
    k: int = 100,
    trust: float | None = None,
) -> Run:
    """Hybrid search as an index does it: the best by cosine and the best by BM25, fused by how sure each side is.

    Cosines and BM25 are of chunks in the context of their documents, see :class:`revela_rag.context.DocumentContext`
    and :class:`revela_rag.index.words.WordIndex`. Candidates are the best ``2 * k`` chunks of each side, at least 100,
    and more where these are of fewer than ``k`` documents.

    Args:
        query_vectors: shape (Q, d), unit vectors.
        chunk_vectors: shape (N, d), unit vectors.
        queries: Q texts by id, in the order of their vectors.
        document_ids: N ids, the document of each chunk; it scores as its best chunk.
        words: BM25 over the same chunks and documents, its rows 0 to N - 1.
        chunk_ids: N different ids, to find chunks and not documents.
        k: documents (chunks) per query.
        trust: how much cosines count beside BM25, as an adapted model has it from its base; None measures it, see
            :func:`revela_rag.fusion.dense_share`.

    Raises:
        ValueError: the shapes do not fit, ``words`` has other chunks, or ``k`` is below 1.
    """
    check_depth(k)
    rows, names = np.arange(len(document_ids)), document_ids if chunk_ids is None else chunk_ids
    if not np.array_equal(words.rows, rows) or len(names) != len(rows):
        raise ValueError(f"{len(rows)} document ids, {len(names)} names and BM25 of {len(words.rows)} chunks differ")
    run: Run = {query_id: {} for query_id in queries}
    context: DocumentContext | None = None
    for some, vectors, cosines in inner_products(query_vectors, chunk_vectors, list(queries), document_ids):
        context = context or DocumentContext.build(
            rows, document_ids, np.asarray(chunk_vectors).__getitem__, trust=trust
        )
        for query_id, vector, own in zip(some, vectors, np.clip(cosines, -1.0, 1.0), strict=True):
            bm25, depth = words.scores_in_context(queries[query_id]), 2 * k
            while len(run[query_id]) < k:
                found = candidates(own, bm25, max(depth, DEPTH))
                order, scores = context.rank_hybrid(vector, found, own[found], bm25[found], depth)
                best: dict[str, float] = {}
                for place, score in zip(found[order].tolist(), scores.tolist(), strict=True):
                    best.setdefault(names[place], score)
                run[query_id] = dict(list(best.items())[:k])
                if depth >= len(rows):
                    break
                depth *= 4
    return run
