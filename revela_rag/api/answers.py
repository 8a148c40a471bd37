"""What embeddings behind an API answered, looked at before anything relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from revela_rag.errors import EmbeddingError

__all__ = ["checked"]


def checked(answer: Any, texts: Sequence[str], name: str, dimension: int | None) -> np.ndarray:
    """(n, d) float32 unit rows of an answer.

    Args:
        answer: n vectors as lists or an array.
        texts: the n texts, to name the one that is at fault.
        name: of the model.
        dimension: d; None takes any.

    Raises:
        EmbeddingError: there are more or fewer vectors, of other or of several lengths, or values that are no numbers.
    """
    try:
        rows = answer if isinstance(answer, np.ndarray) else list(answer)
        if len(rows) != len(texts):
            raise EmbeddingError(
                f"{name!r} gave {len(rows)} vectors for {len(texts)} texts; it must give one for each, in their order. "
                "Lower batch_size if it takes fewer texts at a time."
            )
        vectors = np.asarray(rows, dtype=np.float32)
    except EmbeddingError:
        raise
    except (TypeError, ValueError) as error:
        lengths = sorted({len(row) for row in rows if hasattr(row, "__len__")}) if isinstance(answer, list) else []
        what = f"vectors of lengths {', '.join(map(str, lengths))}" if len(lengths) > 1 else type(answer).__name__
        raise EmbeddingError(
            f"{name!r} gave {what} for {len(texts)} texts ({error}); it must give a list of as many vectors, all of "
            "one length."
        ) from error
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise EmbeddingError(
            f"{name!r} gave an array of shape {vectors.shape} for {len(texts)} texts; it must be "
            f"({len(texts)}, dimension)."
        )
    if dimension is not None and vectors.shape[1] != dimension:
        raise EmbeddingError(
            f"{name!r} gave vectors of length {vectors.shape[1]} instead of {dimension}: another model answers under "
            "that name. Put the old one back, or give the new one a name of its own, ApiEmbeddings.of(..., name=...)."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if len(bad):
        text = texts[int(bad[0])]
        what = "zero" if np.isfinite(norms[bad[0], 0]) else "not finite"
        raise EmbeddingError(
            f"{name!r} gave a vector that is {what} for {len(bad)} of {len(texts)} texts, the first of {len(text):,} "
            f"characters, {text[:60]!r}. Leave that text out, or run the model in float32 if it is yours."
        )
    unit: np.ndarray = (vectors / norms).astype(np.float32)
    return unit
