"""What the reader of a format that is no text makes of a file."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["PAGE_BREAK", "Reading"]

#: Stands between pages, slides or cells, on a line of its own.
PAGE_BREAK = "\n\f\n"


class Reading(NamedTuple):
    r"""A file as text.

    Attributes:
        text: with ``\f`` between pages, slides or cells.
        title: may be empty.
        headings: level, words, offset of the line, offset behind it; of text that is no Markdown.
        metadata: what the file says of itself.
        notes: what was not read in full or in order: what it is, and where (``"p. 3"``).
    """

    text: str
    title: str = ""
    headings: list[tuple[int, str, int, int]] = []  # noqa: RUF012 - nobody changes it
    metadata: dict[str, Any] = {}  # noqa: RUF012
    notes: list[tuple[str, str]] = []  # noqa: RUF012
