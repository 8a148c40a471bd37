"""A chunk before it has an id."""

from __future__ import annotations

from dataclasses import dataclass, field

from revela_rag.corpus.types import Kind, Metadata, Part

__all__ = ["Draft"]


@dataclass(slots=True)
class Draft:
    """What a chunker yields: everything of a chunk but its id, document and position.

    Attributes:
        first_row: row of its first line, to put drafts of one file in order.
        rows: of code, the row of each of its lines.
        signature: of code, what its definition begins with, on one line.
        truncated: whether it is longer than the model's window, which was given, and could not be cut.
    """

    kind: Kind
    text: str
    title: str = ""
    parts: tuple[Part, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    first_row: int = 0
    rows: tuple[int, ...] = ()
    signature: str = ""
    truncated: bool = False
