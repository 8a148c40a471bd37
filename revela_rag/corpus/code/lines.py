"""Cutting lines into pieces of bounded size at the places where code breaks naturally."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from revela_rag.corpus.text import SIGNS, count_words

__all__ = ["Line", "join_lines", "numbered_lines", "split_lines", "split_words"]

_TOKEN = re.compile(rf"\S{{1,100}}{SIGNS}")
_CLOSING = re.compile(r"[)\]}]|else\b|elif\b|except\b|finally\b|catch\b|end\b|\*")


class Line(NamedTuple):
    """One line of a file with its 0-based row."""

    row: int
    text: str


def numbered_lines(text: str) -> list[Line]:
    """The lines of a text with their rows."""
    return [Line(row, line) for row, line in enumerate(text.split("\n"))]


def join_lines(lines: Iterable[Line]) -> str:
    """The text of some lines without the indentation they share and without blank ends."""
    text = textwrap.dedent("\n".join(line.text for line in lines)).strip("\n").rstrip()
    margin = text[: len(text) - len(text.lstrip())]
    if margin and re.match(r"\s*/\*", text):  # comments whose stars are indented otherwise than the code below
        shifted = (line.removeprefix(margin) for line in text.split("\n"))
        text = "\n".join(re.sub(r"^\s+\*", " *", line) for line in shifted)
    return text


def split_words(text: str, max_words: int, measure: Callable[[str], int] = count_words) -> Iterator[tuple[int, int]]:
    """Spans of at most ``max_words`` words each, as ``measure`` counts; words beyond 100 characters are cut."""
    start, end, words = -1, 0, 0
    for match in _TOKEN.finditer(text):
        weight = measure(match.group())
        if start >= 0 and words + weight > max_words:
            yield start, end
            start, words = -1, 0
        if start < 0:
            start = match.start()
        end, words = match.end(), words + weight
    if start >= 0:
        yield start, end


def split_lines(
    lines: Sequence[Line], *, max_words: int, max_lines: int, measure: Callable[[str], int] = count_words
) -> list[list[Line]]:
    """Cut lines into consecutive pieces of about equal size within both limits; blank pieces are dropped.

    Each cut goes before the least indented line of the second half of its window, blank lines before it counting in
    its favour and closing brackets against it. A line over the limit is cut between words. Words are what ``measure``
    counts.
    """
    rest: list[Line] = []
    for line in lines:
        if measure(line.text) <= max_words:
            rest.append(line)
        else:
            spans = split_words(line.text, max_words, measure)
            rest.extend(Line(line.row, line.text[start:end]) for start, end in spans)
    weights = [measure(line.text) for line in rest]
    left_words, left_lines = sum(weights), len(rest)
    pieces: list[list[Line]] = []
    start = 0
    while start < len(rest):
        parts = max(-(-left_words // max_words), -(-left_lines // max_lines), 1)
        if parts == 1:
            stop = len(rest)
        else:
            room_words = min(max_words, int(1.2 * left_words / parts) + 1)
            room_lines = min(max_lines, int(1.2 * left_lines / parts) + 1)
            room_words = max_words if left_words / parts < 0.5 * max_words else room_words
            room_lines = max_lines if left_lines / parts < 0.5 * max_lines else room_lines
            stop = _cut(rest, weights, start, room_words, room_lines)
        piece = rest[start:stop]
        left_words -= sum(weights[start:stop])
        left_lines -= stop - start
        start = stop
        if any(line.text.strip() for line in piece):
            pieces.append(piece)
    return pieces


def _cut(lines: Sequence[Line], weights: Sequence[int], start: int, room_words: int, room_lines: int) -> int:
    stop, words = start, 0
    while stop < len(lines) and stop - start < room_lines and (stop == start or words + weights[stop] <= room_words):
        words += weights[stop]
        stop += 1
    if stop == len(lines):
        return stop
    earliest = start + max(1, (stop - start) // 2)
    return min(range(stop, earliest - 1, -1), key=lambda at: _cost(lines, at))


def _cost(lines: Sequence[Line], at: int) -> float:
    text = lines[at].text.expandtabs(4)
    stripped = text.lstrip()
    if not stripped:
        return 1e6
    indent = len(text) - len(stripped)
    blank_before = at > 0 and not lines[at - 1].text.strip()
    return indent - (3 if blank_before else 0) + (1000 if _CLOSING.match(stripped) else 0)
