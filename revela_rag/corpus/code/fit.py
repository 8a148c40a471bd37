"""Pieces of code that a model reads whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from revela_rag.corpus.code.chunk import MAX_CODE_LINES
from revela_rag.corpus.code.lines import Line, join_lines, split_lines
from revela_rag.corpus.draft import Draft
from revela_rag.corpus.window import Window

__all__ = ["fitted"]

_LONGEST_HEAD = 160  # characters of a signature that is said again


def fitted(drafts: Iterable[Draft], window: Window) -> Iterator[Draft]:
    """Cut those that are longer than the window at inner statements, as :func:`split_lines` cuts.

    Every part but the first has the symbol (``Class.method``) and the signature of its definition in its title. The
    documentation and the body, by which training tells what asks and what answers, stay with the first.

    Args:
        drafts: pieces of one document, in order.
        window: what the model reads.
    """
    count = functools.cache(window.count)  # titles, and lines, which are measured again when they are cut
    for draft in drafts:
        held = not draft.rows or window.surely_holds(draft.title, draft.text)
        if held or window.count(draft.text) + count(draft.title) <= window.room:
            yield draft
        else:
            yield from _parts(draft, window, count)


def _parts(draft: Draft, window: Window, count: Callable[[str], int]) -> Iterator[Draft]:
    lines = [Line(row, text) for row, text in zip(draft.rows, draft.text.split("\n"), strict=True)]
    rest = _title_of_rest(draft)
    above = max(count(draft.title), count(rest))
    room = max(window.room - above, window.room // 2)
    for number, piece in enumerate(split_lines(lines, max_words=room, max_lines=MAX_CODE_LINES, measure=count)):
        rows = [line.row for line in piece]
        where = {**draft.metadata, "start_line": min(rows) + 1, "end_line": max(rows) + 1}
        part = replace(draft, text=join_lines(piece), metadata=where, first_row=rows[0], rows=tuple(rows))
        if number:
            part = replace(part, title=rest, parts=())
        longer = sum(count(line.text) for line in piece) + count(part.title) > window.room
        yield replace(part, truncated=longer and window.count(part.text) + count(part.title) > window.room)


def _title_of_rest(draft: Draft) -> str:
    symbol = str(draft.metadata.get("symbol", ""))
    names = [draft.title, *([symbol] if symbol and symbol not in draft.title else []), draft.signature[:_LONGEST_HEAD]]
    return " ".join(filter(None, names))
