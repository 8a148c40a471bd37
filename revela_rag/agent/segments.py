"""A document, or some of its lines, put together from its chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from revela_rag.agent.layout import Placed

__all__ = ["segments"]

_BLANK = 2  # lines from the end of one text to the start of the next: one line between them is taken to be blank


@dataclass(slots=True)
class _Segment:
    """Lines under one title: consecutive ones where it is ``whole``."""

    first: int
    last: int
    title: str
    lines: list[str]
    ids: list[str]
    whole: bool
    glue: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "start_line": self.first,
            "end_line": self.last,
            "title": self.title,
            "ids": self.ids,
            "whole": self.whole,
            "text": "\n".join(self.lines),
        }


def segments(placed: Sequence[Placed], first: int, last: int, *, room: int, notes: list[str]) -> list[dict[str, Any]]:
    """The text of some lines, in segments.

    Args:
        placed: all chunks of a document.
        first: first line, from 1.
        last: last line.
        room: characters of text that fit.
        notes: takes what was cut, and where to go on.
    """
    near = [each for each in placed if first <= each.last and each.first <= last]
    pieces = sorted((piece for each in near for piece in _pieces(each, first, last)), key=lambda piece: piece.first)
    found: list[_Segment] = []
    for piece in pieces:
        fitting = _fitting(piece.lines, room)
        if fitting == len(piece.lines):
            room -= sum(len(line) + 1 for line in piece.lines)
            _append(found, piece)
            continue
        go_on = piece.first + fitting
        if piece.whole and fitting:
            piece.lines, piece.last = piece.lines[:fitting], go_on - 1
            _append(found, piece)
        elif not found or piece.first <= first:  # it would not fit next time, either
            go_on = piece.last + 1
            if piece.whole:
                go_on = piece.first + 1
                piece.lines, piece.last = piece.lines[:1], piece.first
            piece.lines = ["\n".join(piece.lines)[: max(room, 1)]]
            found.append(piece)
            notes.append(f"Line {piece.first} is longer than fits." if piece.whole else "The last text is cut.")
        notes.append(f"No more fits; go on with start_line={go_on}.")
        break
    return [segment.as_dict() for segment in found]


def _pieces(placed: Placed, first: int, last: int) -> Iterator[_Segment]:
    """The runs of consecutive lines of one chunk that are wanted; of one whose lines are not known, all."""
    chunk, glue = placed.chunk, placed.glue
    lines = chunk.text[placed.repeated :].split("\n")
    if placed.numbers is None:
        yield _Segment(placed.first, placed.last, chunk.title, lines, [chunk.id], False, glue)
        return
    numbers = placed.numbers[len(placed.numbers) - len(lines) :]
    run: list[str] = []
    start = 0
    for number, line in [*zip(numbers, lines, strict=True), (0, "")]:
        if run and number != start + len(run):
            while run and not run[-1].strip():
                run.pop()
            if run:
                yield _Segment(start, start + len(run) - 1, chunk.title, run, [chunk.id], True, glue)
            run = []
        if first <= number <= last and (run or line.strip() or placed.repeated):
            start = start if run else number
            run.append(line)


def _fitting(lines: Sequence[str], room: int) -> int:
    """How many lines fit."""
    for count, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            return count
    return len(lines)


def _append(found: list[_Segment], piece: _Segment) -> None:
    """Put a piece after the others: into the last segment where it goes on there."""
    last = found[-1] if found else None
    step = piece.first - last.last if last else -1
    if last is None or last.title != piece.title or not (last.whole and piece.whole) or not 0 <= step <= _BLANK:
        found.append(piece)
        return
    if step == 0:
        last.lines[-1] += piece.glue + piece.lines[0]
        last.lines += piece.lines[1:]
    else:
        last.lines += [""] * (step - 1) + piece.lines
    last.last = piece.last
    last.ids += [id_ for id_ in piece.ids if id_ not in last.ids]
