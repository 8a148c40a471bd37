"""A query's vector, moved towards what its first search found: pseudo-relevance feedback.

Source: Rocchio, "Relevance feedback in information retrieval", 1971. What is fed back here are the best of the hybrid
search, which words have vouched for, too; cosines alone feed back their own mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.parts.protocols import Refiner

__all__ = ["Feedback", "as_refiner", "refined"]


@dataclass(frozen=True)
class Feedback:
    """Adds the mean vector of the best hits to the query's.

    Args:
        count: how many hits.
        weight: of their mean, of unit length, beside the query's vector, which counts 1.

    Raises:
        IndexingError: a number is out of range.
    """

    count: int = 3
    weight: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int | np.integer) or self.count < 1:
            raise IndexingError(f"feedback={self.count!r} must be a number of hits, 0 for none.")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not 0 < self.weight < np.inf:
            raise IndexingError(f"weight={self.weight!r} of the feedback must be a number above 0.")

    def __call__(self, query: np.ndarray, found: np.ndarray, /) -> np.ndarray:
        """See :class:`revela_rag.parts.Refiner`."""
        mean = found.mean(axis=0)
        moved: np.ndarray = query + self.weight * mean / max(float(np.linalg.norm(mean)), np.finfo(np.float32).tiny)
        return moved


def as_refiner(feedback: int | Refiner) -> Refiner | None:
    """What :meth:`revela_rag.Index.search` takes as ``feedback``: a number of hits, 0 for none, or a refiner.

    Raises:
        IndexingError: it is neither.
    """
    if callable(feedback):
        return feedback
    return None if feedback == 0 and not isinstance(feedback, bool) else Feedback(feedback)


def refined(refiner: Refiner, query: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The (d,) float32 unit vector that a refiner makes of a query's.

    Raises:
        IndexingError: it is none.
    """
    given: Any = np.asarray(refiner(query, found), dtype=np.float32)
    length = float(np.linalg.norm(given)) if given.shape == query.shape else 0.0
    if not 0 < length < np.inf:
        raise IndexingError(
            f"{refiner!r} made a query vector of shape {given.shape} that is empty, zero or not finite; "
            f"it must return {query.shape[0]} numbers."
        )
    vector: np.ndarray = given / np.float32(length)
    return vector
