"""The parts of one search, checked, and what they do with its hits: rerank, then select."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.parts.feedback import as_refiner
from revela_rag.parts.protocols import Candidates, Refiner, Reranker, Selector
from revela_rag.parts.rerank import RERANKED, Rerank, as_reranker, reranked
from revela_rag.parts.selection import CANDIDATES, Select, as_selector

if TYPE_CHECKING:
    from revela_rag.index.types import Hit

__all__ = ["PartOptions", "Parts"]


class PartOptions(TypedDict, total=False):
    """What :meth:`revela_rag.Index.search` takes beside a query, ``k``, ``filter`` and ``mode``; nothing by default.

    Attributes:
        feedback: so many of the best move the query's vector towards themselves, and it searches again (3 is usual, 0
            is none); or a :class:`revela_rag.parts.Refiner`. Not in lexical search.
        rerank: reads the query and the best texts together: a function of both that gives scores, a ``CrossEncoder``,
            or what :func:`revela_rag.parts.as_reranker` takes.
        rerank_top: how many of the best it reads, 50 by default; the others follow, with the scores that they had.
        select: which are shown: ``"top"`` the best, ``"mmr"`` such as say different things, ``"coverage"`` such as hold
            together all that is asked for; or a :class:`revela_rag.parts.Selector`, as ``MMR(balance=0.5)``. It comes
            last, and scores stay what they were.
    """

    feedback: int | Refiner
    rerank: Rerank | None
    rerank_top: int
    select: Select


@dataclass(frozen=True)
class Parts:
    """What a search does beside finding. Made by :meth:`of`; without arguments nothing."""

    refiner: Refiner | None = None
    reranker: Reranker | None = None
    rerank_top: int = RERANKED
    selector: Selector | None = None

    @classmethod
    def of(
        cls,
        *,
        select: Select = "top",
        feedback: int | Refiner = 0,
        rerank: Rerank | None = None,
        rerank_top: int = RERANKED,
    ) -> Parts:
        """The parts that the arguments of :meth:`revela_rag.Index.search` name.

        Raises:
            IndexingError: one of them is not what it may be.
        """
        if isinstance(rerank_top, bool) or not isinstance(rerank_top, int | np.integer) or rerank_top < 1:
            raise IndexingError(f"rerank_top={rerank_top!r} must be a whole number of at least 1.")
        reranker = None if rerank is None else as_reranker(rerank)
        return cls(as_refiner(feedback), reranker, int(rerank_top), as_selector(select))

    def depth(self, k: int) -> int:
        """How many hits they have to see, for k to be shown."""
        reranked_ = self.rerank_top if self.reranker else 0
        return max(k, reranked_, self._candidates if self.selector else 0)

    def applied(
        self, query: str, hits: Sequence[Hit], k: int, read_vectors: Callable[[Sequence[Hit]], np.ndarray]
    ) -> list[Hit]:
        """The k hits that are shown, ranked anew, of those that were found, best first."""
        shown = list(hits)
        if self.reranker is not None:
            first = shown[: self.rerank_top]
            ranked = reranked(self.reranker, query, [hit.chunk.embedding_text for hit in first])
            shown[: self.rerank_top] = [replace(first[place], score=score) for place, score in ranked]
        if self.selector is not None and shown:
            first = shown[: self._candidates]
            order = self.selector(query, Candidates(first, lambda: read_vectors(first)))
            shown[: self._candidates] = [first[place] for place in _places(order, len(first), self.selector)]
        if self.reranker is None and self.selector is None:
            return shown[:k]
        return [replace(hit, rank=rank) for rank, hit in enumerate(shown[:k], start=1)]

    @property
    def _candidates(self) -> int:
        return int(getattr(self.selector, "candidates", CANDIDATES))


def _places(order: Any, count: int, selector: Selector) -> list[int]:
    try:
        places = [int(place) for place in order]
    except (TypeError, ValueError):
        places = [-1]
    if len(set(places)) < len(places) or any(not 0 <= place < count for place in places):
        raise IndexingError(
            f"{selector!r} chose {order!r}; it must give different places from 0 to {count - 1}, best first."
        )
    return places
