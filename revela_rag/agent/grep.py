"""The lines of stored texts that a regular expression matches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from revela_rag.agent.layout import Placed
from revela_rag.agent.patterns import Pattern
from revela_rag.agent.view import View

__all__ = ["MOST_LINES", "grep"]

MOST_LINES = 500
_WIDTH = 300  # characters of a line that is shown


def grep(
    view: View, pattern: Pattern, rows: Sequence[int] | None, *, limit: int, seconds: float, notes: list[str]
) -> Iterator[dict[str, Any]]:
    """The first lines that match, each once.

    Args:
        view: where to look.
        pattern: what to look for.
        rows: of the chunks to look at, ascending; None means all.
        limit: how many lines at most.
        seconds: how long to look.
        notes: takes why it stopped before the end.
    """
    started, count, done = time.monotonic(), 0, 0
    total = view.count if rows is None else len(rows)
    seen: set[tuple[str, int | str, str]] = set()
    for page in view.texts.bodies(rows):
        for match, goes_on in _in_page(view, pattern, page):
            line = (match["document"], match["line"] or match["id"], "")
            key = line if goes_on else (*line[:2], match["text"].strip())
            if key in seen:
                continue
            seen |= {key, line}
            if count == limit:
                notes.append(
                    f"Stopped after {limit} lines; narrow the pattern, path or filter, or raise limit "
                    f"(at most {MOST_LINES})."
                )
                return
            count += 1
            yield match
        done += len(page)
        if done < total and time.monotonic() - started > seconds:
            notes.append(f"Stopped after {seconds:g} s and {done} of {total} passages; narrow path or filter.")
            return


def _in_page(view: View, pattern: Pattern, page: Sequence[tuple[int, bytes]]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Matches, and whether the line of each goes on from the passage before."""
    data = b"\n".join(text for _, text in page)  # one long text: a call for each would take longer than the search
    starts = [0, *accumulate(len(text) + 1 for _, text in page)]
    here, placed = -1, None
    for line, start, stop in pattern.lines(data):
        if placed is None or starts[here + 1] <= line:
            while starts[here + 1] <= line:
                here += 1
            placed = view.place_of(view.texts.chunks([page[here][0]])[page[here][0]])
        number = placed.line(data.count(b"\n", starts[here], line))
        if number == 0:  # an earlier passage has this line, too
            continue
        end = data.find(b"\n", start)
        text = data[line : end if end >= 0 else None]
        goes_on = placed.repeated > 0 and number == placed.first
        yield _match(placed, number, _around(text, start - line, stop - line)), goes_on


def _match(placed: Placed, number: int | None, text: str) -> dict[str, Any]:
    chunk = placed.chunk
    lines = [placed.first, placed.last]
    return {"document": chunk.document_id, "line": number, "lines": lines, "id": chunk.id, "text": text}


def _around(line: bytes, start: int, stop: int) -> str:
    """A line as it is shown; a long one around what matched."""
    text = line.decode()
    if len(text) <= _WIDTH:
        return text
    at, end = len(line[:start].decode()), len(line[:stop].decode())
    low = max(min(at - (_WIDTH - min(end - at, _WIDTH)) // 2, len(text) - _WIDTH), 0)
    return ("..." if low else "") + text[low : low + _WIDTH] + ("..." if low + _WIDTH < len(text) else "")
