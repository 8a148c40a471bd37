"""Where in its file a chunk stands, as people say it."""

from __future__ import annotations

from revela_rag.corpus.types import Chunk

__all__ = ["place_in_file"]

_PLACES = {"page": "p.", "slide": "slide", "cell": "cell"}


def place_in_file(chunk: Chunk) -> str:
    """``"p. 2"``, ``"slide 3"``, ``"cell 4"``, or ``"row 5"`` of a table; empty where lines say it, or nothing does."""
    if {"table", "row"} <= chunk.metadata.keys():
        return f"row {chunk.metadata['row']}"
    if "start_line" in chunk.metadata:
        return ""
    return next((f"{said} {chunk.metadata[key]}" for key, said in _PLACES.items() if key in chunk.metadata), "")
