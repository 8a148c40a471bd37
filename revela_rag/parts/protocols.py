"""What a part of a search has to be; anything of that shape is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from revela_rag.index.types import Hit

__all__ = ["Candidates", "Refiner", "Reranker", "Selector"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a query found, for a :class:`Selector` to choose from.

    Attributes:
        hits: n of them, best first.
        read_vectors: reads the (n, d) float32 unit vectors of their chunks from the index.
    """

    hits: Sequence[Hit]
    read_vectors: Callable[[], np.ndarray]

    @property
    def texts(self) -> list[str]:
        """The n texts, each behind its title, as they were embedded."""
        return [hit.chunk.embedding_text for hit in self.hits]

    @property
    def relevance(self) -> np.ndarray:
        """(n,) float64, falling: what each place is worth beside a cosine.

        The first counts as the highest cosine among them, the second as the next, so that the order is the search's,
        or the reranker's, and the scale is that of cosines. In lexical search: BM25 over the best.
        """
        cosines = [hit.cosine for hit in self.hits if hit.cosine is not None]
        values = np.array(cosines if len(cosines) == len(self.hits) else [hit.score for hit in self.hits])
        falling: np.ndarray = np.sort(values.astype(np.float64))[::-1]
        if len(cosines) < len(self.hits):
            falling = falling / max(float(np.abs(falling).max(initial=0.0)), np.finfo(float).tiny)
        return falling


@runtime_checkable
class Selector(Protocol):
    """Chooses which hits are shown, and in which order. It looks at ``candidates`` of them where it has that number."""

    def __call__(self, query: str, candidates: Candidates, /) -> Sequence[int]:
        """Places among the candidates, in the order in which they are shown; those left out are not shown."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Reads a query and texts together, as cross-encoders do."""

    def __call__(self, query: str, texts: Sequence[str], /) -> Sequence[float] | np.ndarray:
        """A score of each text, higher is better; ``-inf`` leaves a text out."""
        ...


@runtime_checkable
class Refiner(Protocol):
    """Moves a query's vector towards what it found.

    Attributes:
        count: of how many of the best hits it wants the vectors.
    """

    @property
    def count(self) -> int:
        """See above."""
        ...

    def __call__(self, query: np.ndarray, found: np.ndarray, /) -> np.ndarray:
        """The (d,) vector to search with instead of ``query``, (d,), given the (n, d) vectors of the best, n >= 1."""
        ...
