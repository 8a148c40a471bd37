"""An embedding that says which model it is of."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ModelVector"]


class ModelVector(list[float]):
    """A list of numbers like any other embedding, and the fingerprint of the model that made it.

    A store of one model can so take the queries of this model and refuse those of another, which may be as long.

    Args:
        values: the embedding, (d,).
        fingerprint: see :attr:`revela_rag.Encoder.fingerprint`.
    """

    def __init__(self, values: Iterable[float], fingerprint: str) -> None:
        super().__init__(values)
        self.fingerprint = fingerprint
