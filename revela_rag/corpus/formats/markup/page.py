"""A document of some markup, as text with its headings and code where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field

from revela_rag.corpus.prose.sections import Outline, assemble
from revela_rag.corpus.types import Scalar

__all__ = ["Page"]


@dataclass(slots=True)
class Page:
    """What a reader of a format makes of a document.

    Attributes:
        text: blocks separated by blank lines, rows of tables as ``| a | b |``.
        title: may be empty.
        headings: level, words, offset of the line, offset behind it.
        verbatim: spans of code.
        metadata: what the document says of itself.
    """

    text: str = ""
    title: str = ""
    headings: list[tuple[int, str, int, int]] = field(default_factory=list)
    verbatim: list[tuple[int, int]] = field(default_factory=list)
    metadata: dict[str, Scalar | list[Scalar]] = field(default_factory=dict)

    def outline(self) -> Outline:
        """Sections and code of the text."""
        return Outline(assemble(self.text, self.headings), self.verbatim)
