"""One generation of an index, as an agent looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from revela_rag.agent.layout import Placed, place, span_of
from revela_rag.agent.outline import Outline
from revela_rag.corpus.types import Chunk
from revela_rag.index.filters import Condition
from revela_rag.index.snapshot import Snapshot
from revela_rag.index.texts import TextStore

__all__ = ["View"]

_LAYOUTS = 64  # documents whose lines are kept in mind


class View:
    """Texts by document and line.

    Args:
        snapshot: what is looked at.
        outline: its documents.
    """

    def __init__(self, snapshot: Snapshot, outline: Outline) -> None:
        self.outline = outline
        self.texts: TextStore = snapshot.texts
        self.count = snapshot.manifest.count
        self.placed = lru_cache(_LAYOUTS)(self._placed)

    def chunks(self, document: str) -> list[Chunk]:
        """The chunks of a document, in their order.

        Raises:
            IndexingError: there is no such document.
        """
        rows = self.outline.entry(document).rows
        found = self.texts.chunks(rows)
        return [found[row] for row in rows]

    def _placed(self, document: str) -> tuple[Sequence[Placed], bool]:
        """The chunks of a document on their lines, and whether these are the source's."""
        return place(self.chunks(document), in_pieces=self.outline.entry(document).in_pieces)

    def place_of(self, chunk: Chunk) -> Placed:
        """A chunk on its lines."""
        return next(each for each in self.placed(chunk.document_id)[0] if each.chunk.id == chunk.id)

    def span(self, chunk: Chunk) -> tuple[int, int] | None:
        """First and last line of a chunk; None where it is not here any more."""
        entry = self.outline.entries.get(chunk.document_id)
        span = span_of(chunk)
        if span is not None and not (entry and entry.in_pieces):
            return span
        placed = self.placed(chunk.document_id)[0] if entry else []
        return next(((each.first, each.last) for each in placed if each.chunk.id == chunk.id), None)

    def rows(self, path: str, condition: Condition | None) -> Sequence[int] | None:
        """The rows of documents under a path that a filter lets pass, ascending; None means all.

        Raises:
            IndexingError: no document has the path.
        """
        if not path and condition is None:
            return None
        rows = None if condition is None else set(self.texts.select(condition).tolist())
        if path:
            entries = self.outline.entries
            under = {row for name in self.outline.under(path) for row in entries[name].rows}
            rows = under if rows is None else rows & under
        return sorted(rows or ())
