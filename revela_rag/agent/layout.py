"""On which lines of its document the text of a chunk stands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from revela_rag.corpus.text import WIDE
from revela_rag.corpus.types import Chunk

__all__ = ["Placed", "place", "span_of"]

_WIDE = re.compile(WIDE)
_SEED, _LONGEST = 20, 4000  # characters of an overlap between pieces
_BLANKS = 2  # lines between two pieces of code


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk with its place in its document.

    Attributes:
        chunk: the chunk.
        first: its first line in the document, from 1.
        last: its last line.
        numbers: the line of each line of its text; 0 for one that repeats what stands in an earlier chunk. None where
            the lines in between are not known: the text was shortened when it was cut out.
        glue: what stands between this text and the one before where both share a line.
        repeated: how many characters its text repeats of the one before.
    """

    chunk: Chunk
    first: int
    last: int
    numbers: list[int] | None
    glue: str = " "
    repeated: int = 0

    def line(self, at: int) -> int | None:
        """The document's line of a line of the text, from 0; 0 where it is a repetition, None where it is not known."""
        return None if self.numbers is None else self.numbers[at]


def span_of(chunk: Chunk) -> tuple[int, int] | None:
    """First and last line by the metadata of a chunk, None where it does not say."""
    first, last = chunk.metadata.get("start_line"), chunk.metadata.get("end_line")
    if type(first) is not int or type(last) is not int or not 0 < first <= last:
        return None
    return first, last


def place(chunks: Sequence[Chunk], *, in_pieces: bool) -> tuple[list[Placed], bool]:
    """Find the lines of a document's chunks.

    Args:
        chunks: all of one document, in their order.
        in_pieces: see :class:`~revela_rag.agent.outline.Entry`.

    Returns:
        The chunks by their first line, and whether lines are those of the source. Where the chunks do not say theirs,
        lines are counted in the texts put together: without what one repeats of the one before, with a blank line
        between others.
    """
    spans = [span_of(chunk) for chunk in chunks]
    known = [span for span in spans if span is not None]
    # lines of a document's own metadata are the same in every chunk
    same = len(chunks) > 1 and len(set(known)) == 1 and any("\n" in chunk.text for chunk in chunks)
    if in_pieces or same or len(known) < len(chunks):
        return _counted(chunks), False
    return _numbered(chunks, known), True


def _numbered(chunks: Sequence[Chunk], spans: Sequence[tuple[int, int]]) -> list[Placed]:
    pairs = sorted(zip(chunks, spans, strict=True), key=lambda pair: pair[1][0])
    inside = _definitions(pairs)
    placed: list[Placed] = []
    seen: set[str] = set()
    for chunk, (first, last) in pairs:
        lines = chunk.text.split("\n")
        numbers = _numbers(chunk, lines, first, last, seen, inside)
        seen.update(lines)
        before = placed[-1].chunk.text[-1:] if placed else ""
        glue = "" if _WIDE.match(before) and _WIDE.match(chunk.text[:1]) else " "
        placed.append(Placed(chunk, first, last, numbers, glue))
    return placed


def _numbers(
    chunk: Chunk, lines: Sequence[str], first: int, last: int, seen: set[str], inside: Mapping[int, tuple[str, int]]
) -> list[int] | None:
    extra = len(lines) - (last - first + 1)
    symbol = str(chunk.metadata.get("symbol", ""))
    if extra < 0 or (extra == 0 and symbol):
        return _walk(lines, first, last, inside, symbol)
    # the rows that name a table's columns open every chunk of it
    head = extra or (2 if len(lines) > 2 and "|" in lines[0] and seen.issuperset(lines[:2]) else 0)
    if head != extra or (extra and not seen.issuperset(lines[:extra])):
        return None
    return [0] * extra + list(range(first, last + 1))


def _definitions(pairs: Sequence[tuple[Chunk, tuple[int, int]]]) -> dict[int, tuple[str, int]]:
    """Under its first line every definition that has chunks of its own: its symbol and its last line.

    Args:
        pairs: chunks and their lines, by the first.
    """
    found: dict[int, tuple[str, int]] = {}
    own: dict[int, int] = {}  # the last line of its latest piece, without what is inside it
    around: list[int] = []  # the first lines of the definitions that the one at hand may be in
    for chunk, (first, last) in pairs:
        symbol = str(chunk.metadata.get("symbol", ""))
        while around and not _is_inside(symbol, found[around[-1]][0]):
            around.pop()
        goes_on = bool(around) and found[around[-1]][0] == symbol
        if goes_on and not own[around[-1]] < first <= found[around[-1]][1] + 1:
            goes_on = False
            if first > found[around[-1]][1]:  # another one of the same name, as a setter after its getter
                around.pop()
        if goes_on:
            own[around[-1]] = last
        elif symbol and first not in found:
            found[first], own[first] = (symbol, last), last
            around.append(first)
        for outer in around:
            found[outer] = (found[outer][0], max(found[outer][1], last))
    return found


def _is_inside(symbol: str, outer: str) -> bool:
    """Whether the name of a definition is that of another one, or of one inside it."""
    rest = symbol.removeprefix(outer)
    return symbol.startswith(outer) and not (rest[:1].isalnum() or rest[:1] == "_")


def _walk(
    lines: Sequence[str], first: int, last: int, inside: Mapping[int, tuple[str, int]], symbol: str
) -> list[int] | None:
    """The numbers of lines between which definitions were taken out; None where they do not end at ``last``.

    In a definition (one with a ``symbol``) a signature stands in the place of each; it is a repetition.
    """
    numbers = []
    at, end = first, first
    for _ in lines:
        jumped = False
        while (found := inside.get(at)) is not None and (at, symbol) != (first, found[0]) and not (symbol and jumped):
            end, at, jumped = at, found[1] + 1, True
        if symbol and jumped:
            numbers.append(0)
            continue
        numbers.append(at)
        end, at = at, at + 1
    # blank lines at the end of a piece are cut off; outside of definitions imports may be what is missing
    return numbers if 0 <= last - end <= (_BLANKS if symbol else 0) else None


def _counted(chunks: Sequence[Chunk]) -> list[Placed]:
    placed: list[Placed] = []
    before, last = "", -1
    for chunk in chunks:
        repeated = _overlap(before, chunk.text)
        skipped = chunk.text.count("\n", 0, repeated)
        first = last if repeated else last + 2
        rest = chunk.text.count("\n", repeated)
        numbers = [0] * skipped + list(range(first, first + rest + 1))
        last = first + rest
        placed.append(Placed(chunk, first, last, numbers, "", repeated))
        before = chunk.text
    return placed


def _overlap(before: str, after: str) -> int:
    """How many characters at the end of a text the next one begins with; 0 for fewer than a splitter would repeat."""
    seed, tail = after[:_SEED], before[-_LONGEST:]
    if len(seed) < _SEED:
        return 0
    at = tail.find(seed)
    while at >= 0:
        if after.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(seed, at + 1)
    return 0
