"""The model that embeds an index's queries, and the vectors that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from revela_rag.errors import IndexingError, IndexMismatchError, ModelError
from revela_rag.index.identity import mismatch
from revela_rag.index.manifest import Manifest
from revela_rag.model.find import API
from revela_rag.unit import unit_rows

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["find_encoder", "unit_queries"]


def find_encoder(path: Path, manifest: Manifest) -> Encoder:
    """The model that an index was built by, found by its recorded name.

    Raises:
        ModelError: it is not where it was.
        IndexMismatchError: what is there now is another model.
    """
    from revela_rag.model.encoder import Encoder

    recorded = manifest.model
    if not recorded.name:
        raise ModelError(
            f"The index {str(path)!r} was built by a model that was only in memory; pass it: "
            "Index.open(path, encoder=Encoder(model))."
        )
    if recorded.name.startswith(API):
        raise ModelError(
            f"The index {str(path)!r} was built by embeddings behind an API, {recorded.name.removeprefix(API)!r}; pass "
            "them: Index.open(path, encoder=Encoder.over(EMBEDDINGS, FOLDER)), without FOLDER where they are not "
            "adapted."
        )
    try:
        encoder = Encoder(recorded.name, max_length=recorded.max_length)
    except ModelError as error:
        raise ModelError(
            f"The model that built the index {str(path)!r} is not there any more: {error} Pass it: "
            "Index.open(path, encoder=Encoder(directory)), or --model DIRECTORY on the command line."
        ) from error
    if encoder.fingerprint != recorded.fingerprint:
        raise mismatch(path, manifest, encoder)
    return encoder


def unit_queries(vectors: np.ndarray, dimension: int, path: Path) -> np.ndarray:
    """(q, d) float32 query vectors at unit length.

    Raises:
        IndexMismatchError: they do not have the length of those in the index.
        IndexingError: a value is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise IndexMismatchError(
            f"The query vector has length {vectors.shape[-1]}, the index {str(path)!r} has {dimension}; "
            "use the model the index was built by."
        )
    if not np.isfinite(vectors).all():
        raise IndexingError("The query vector holds values that are not finite.")
    return unit_rows(vectors)
