"""The documents of one generation of an index, and which chunks each of them has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from revela_rag.corpus.text import fold
from revela_rag.errors import IndexingError

__all__ = ["Entry", "Outline"]

_COMPARED = 20_000  # names that are compared letter by letter to find a similar one
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Entry:
    """A document in an index.

    Attributes:
        rows: its chunks, in their order.
        in_pieces: whether it came in pieces, so that positions and lines of its chunks are those of a piece.
    """

    rows: list[int]
    in_pieces: bool


class Outline:
    """Which documents there are.

    Args:
        places: row, document and position of every chunk, by row.
    """

    def __init__(self, places: Iterable[tuple[int, str, int]]) -> None:
        found: dict[str, list[tuple[int, int]]] = {}
        for row, document, position in places:
            found.setdefault(document, []).append((position, row))
        self.entries: Mapping[str, Entry] = {document: _entry(found[document]) for document in sorted(found)}

    def entry(self, document: str) -> Entry:
        """A document.

        Raises:
            IndexingError: there is none of this name; the message names similar ones.
        """
        entry = self.entries.get(document)
        if entry is None:
            raise IndexingError(f"There is no document {document!r}. {self._remedy(document)}")
        return entry

    def under(self, path: str) -> list[str]:
        """The documents whose name begins with ``path``, or matches it where it has wildcards (``*``, ``?``, ``[``).

        Raises:
            IndexingError: none does.
        """
        if not path:
            return list(self.entries)
        if _GLOB & set(path):
            found = [document for document in self.entries if document == path or fnmatchcase(document, path)]
        else:
            found = [document for document in self.entries if document.startswith(path)]
        if not found:
            raise IndexingError(
                f"No document matches {path!r}; a path is the beginning of a document's name, or a pattern such as "
                f"'*.md'. {self._remedy(path.strip('*'))}"
            )
        return found

    def _remedy(self, name: str) -> str:
        close = self._similar(name)
        if close:
            return f"Similar names: {', '.join(map(repr, close))}."
        some = list(self.entries)[:3]
        return f"Names look like {', '.join(map(repr, some))}." if some else "The index is empty."

    def _similar(self, name: str, most: int = 5) -> list[str]:
        wanted = fold(name).strip("/")
        if not wanted:
            return []
        names = list(self.entries)
        last = wanted.rpartition("/")[2]
        ends = [each for each in names if fold(each).endswith(last)]
        close = ends or [each for each in names if wanted in fold(each)]
        if not close:
            close = difflib.get_close_matches(name, names[:_COMPARED], n=most, cutoff=0.5)
        return close[:most]


def _entry(places: Sequence[tuple[int, int]]) -> Entry:
    in_pieces = len({position for position, _ in places}) < len(places)
    # pieces are in the order in which they were given: positions start anew in each
    return Entry([row for _, row in sorted(places, key=lambda place: place[1] if in_pieces else place[0])], in_pieces)
