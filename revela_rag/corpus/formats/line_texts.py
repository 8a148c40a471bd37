"""Paragraphs whose lines are units of their own: tables, lists of options, logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

__all__ = ["is_lines", "line_spans", "table_head"]

_TABULAR = re.compile(r"[ \t]*(?:\||\+[-=+]+\+|(?:={2,}[ \t]+)+={2,})")
#: The line below the names of columns in Markdown, with or without bars at its ends.
_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_GRID_RULE = re.compile(r"[ \t]*\+=[=+]*\+[ \t]*")
_SIMPLE_RULE = re.compile(r"[ \t]*=+(?:[ \t]+=+)+[ \t]*")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)]|[a-z][.)])[ \t]")
_HEAD_LINES = 12  # of a table with lines between the rows: the names of its columns may take several
_FEWEST = 4
_COLUMNS = re.compile(r"[^\s.!?:](?:\t+| {2,})\S")
_ENDS = (".", "!", "?", ";", ",", ":", "…", "。", "।", "۔", "。")


def line_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the lines that are not blank, with their indentation."""
    at = 0
    for line in text.split("\n"):
        if line.strip():
            yield at, at + len(line)
        at += len(line) + 1


def is_lines(text: str) -> bool:
    """Whether a paragraph is cut between its lines: they are rows, entries or messages, not one text that was wrapped.

    Wrapped lines end where the next word had no room, and most go on with a small letter. Lists with marks are cut
    between their entries anyway.
    """
    if _TABULAR.match(text) or table_head(text):
        return True
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if 5 * sum(_ITEM.match(line) is not None for line in lines) > len(lines):
        return False
    if len(lines) < _FEWEST or 10 * sum(line[0].islower() for line in lines) > 3 * len(lines):
        return False
    if 2 * sum(_COLUMNS.search(line) is not None for line in lines) > len(lines):
        return True
    if 5 * sum(line[0].isdigit() or line[0] == "[" for line in lines) > 4 * len(lines):
        return True
    width = max(map(len, lines))
    had_room = sum(len(line) + 1 + len(following.split(None, 1)[0]) <= width for line, following in pairwise(lines))
    ended = sum(line.endswith(_ENDS) for line in lines)
    return 2 * had_room > len(lines) - 1 and 2 * ended < len(lines)


def table_head(text: str) -> str:
    """The first lines of a table up to the rule below the names of its columns, with a line end; else empty."""
    lines = text.split("\n", _HEAD_LINES)[:_HEAD_LINES]
    if len(lines) > 2 and "|" in lines[0] and "|" in lines[1] and _RULE.fullmatch(lines[1]):
        return "\n".join(lines[:2]) + "\n"
    rule = _GRID_RULE if lines[0].lstrip().startswith("+-") else _SIMPLE_RULE if _SIMPLE_RULE.match(lines[0]) else None
    for row in range(2, len(lines)) if rule else ():
        if rule and rule.fullmatch(lines[row]):
            return "\n".join(lines[: row + 1]) + "\n"
    return ""
