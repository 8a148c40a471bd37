"""``revela.json``: what an adapted model says of itself beside its weights."""

from __future__ import annotations

from pathlib import Path

from revela_rag.errors import ModelError
from revela_rag.model.safety.files import json_object

__all__ = ["RECORD_FILE", "recorded_trust"]

RECORD_FILE = "revela.json"


def recorded_trust(folder: str | Path) -> float | None:
    """How much cosines count beside BM25 over the corpus that a model was adapted to; None where it does not say.

    It is measured with the base (:func:`revela_rag.fusion.dense_share`): adapting makes a model look surer than it is.
    """
    try:
        said = json_object(Path(folder) / RECORD_FILE).get("trust")
    except ModelError:
        return None
    return float(said) if isinstance(said, int | float) and 0 < said < 1 else None
