"""Hits that say different things: maximal marginal relevance.

Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", 1998.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.index.filters import Filter, parse_filter
from revela_rag.index.queries import unit_queries
from revela_rag.index.types import Hit, check_k

if TYPE_CHECKING:
    from revela_rag.index.facade import Index

__all__ = ["most_diverse", "search_diverse"]


def search_diverse(
    index: Index,
    query: str,
    *,
    k: int = 10,
    candidates: int = 20,
    balance: float = 0.5,
    filter: Filter | None = None,
    vector: np.ndarray | None = None,
) -> list[Hit]:
    """Chunks that answer a query and say different things.

    Args:
        index: what to search.
        query: plain text.
        k: at most this many.
        candidates: how many of the nearest to choose from; at least ``k`` are.
        balance: 1 takes the nearest, 0 those farthest from one another.
        filter: as in :meth:`revela_rag.Index.search`.
        vector: the query's embedding, (d,) of any length but zero, where it is not to be made of ``query``.

    Returns:
        Hits in the order in which they were chosen, the nearest first; scores are cosines.

    Raises:
        IndexingError: a number is out of range, the filter cannot be used, the index is closed.
    """
    check_k(k)
    check_k(candidates, "candidates")
    if isinstance(balance, bool) or not isinstance(balance, int | float) or not 0 <= balance <= 1:
        raise IndexingError(f"balance={balance!r} must be a number from 0 to 1.")
    condition = parse_filter(filter)
    if not len(index):
        return []
    given = index.encoder.encode_queries([query]) if vector is None else np.asarray(vector, dtype=np.float32)
    unit = unit_queries(given.reshape(1, -1), index.manifest.query_dimension, index.path)[0]
    return index._read(lambda snapshot: snapshot.diverse(unit, k, max(k, candidates), balance, condition))


def most_diverse(query: np.ndarray, vectors: np.ndarray, k: int, balance: float) -> list[int]:
    """Places of up to ``k`` of (n, d) unit vectors, the nearest to the (d,) unit query first.

    Each next one has the highest ``balance`` times its cosine to the query less ``1 - balance`` times its highest
    cosine to one that was taken.
    """
    near = vectors @ query
    taken = [int(np.argmax(near))]
    closest = vectors @ vectors[taken[0]]
    while len(taken) < min(k, len(vectors)):
        gain = balance * near - (1 - balance) * closest
        gain[taken] = -np.inf
        taken.append(int(np.argmax(gain)))
        closest = np.maximum(closest, vectors @ vectors[taken[-1]])
    return taken
