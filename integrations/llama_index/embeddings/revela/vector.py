"""An embedding that says which model it is of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from revela_rag.errors import IndexMismatchError
from revela_rag.index import Index

__all__ = ["ModelVector", "check_maker"]


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


def check_maker(vector: Any, index: Index) -> bool:
    """Whether a query's vector says that the index's model made it; False where it says nothing.

    Raises:
        IndexMismatchError: it says that another model did.
    """
    if not isinstance(vector, ModelVector):
        return False
    model = index.manifest.model
    if vector.fingerprint != model.fingerprint:
        raise IndexMismatchError(
            f"The query was embedded by a model with fingerprint {vector.fingerprint[:12]}, the index "
            f"{str(index.path)!r} was built by {model.name!r} (fingerprint {model.fingerprint[:12]}); embed them with "
            "RevelaEmbedding.from_encoder(index.encoder), which a vector store gives as embed_model()."
        )
    return True
