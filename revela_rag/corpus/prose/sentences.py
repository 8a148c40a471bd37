"""Sentence boundaries by rule: fast, linear, without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["sentence_spans"]

#: What ends a sentence whether or not a space follows: Chinese and Japanese, danda, Urdu, Arabic, Armenian, Ethiopic,
#: Burmese and Khmer signs.
_STOPS = "。！？｡।॥۔؟։።፧။។៕"
_END = re.compile(rf"(?<![.!?…])[.!?…]++[\"'”’»)\]*_`]*+(?=\s)|[{_STOPS}]+[」』”’\"»)]*")
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)]|[a-z][.)])[ \t])")
_BOUNDARY = re.compile(f"({_END.pattern})|({_ITEM.pattern})")
_NEXT = re.compile(r"\s*(\S)")
_ABBREVIATION = re.compile(
    r"e\.g|i\.e|etc|vs|cf|al|dr|mrs?|ms|prof|st|nos?|figs?|eqs?|sec|ch|vol|pp?|eds?|inc|ltd|co|corp|dept|est|approx|"
    r"resp|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|[ap]\.m|u\.[sk]|u\.n|ph\.d|viz|ca|refs?|esp|incl"
)


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of ``text``, without surrounding whitespace.

    A sentence ends at ``. ! ? …`` before whitespace and something that is not a lower-case letter, at the full stops
    of scripts that have their own, and before a list item; not after an abbreviation or an initial.
    """
    start = _skip(text, 0)
    for match in _BOUNDARY.finditer(text):
        if match.start() < start:
            continue
        if match.group(1) and not _is_end(text, match.start(), match.end()):
            continue
        if match.start() > start or match.group(1):
            end = match.end() if match.group(1) else match.start()
            stripped = start + len(text[start:end].rstrip())
            if stripped > start:
                yield start, stripped
            start = _skip(text, match.end())
    end = len(text.rstrip())
    if end > start:
        yield start, end


def _is_end(text: str, start: int, end: int) -> bool:
    if text[start] != ".":
        following = _NEXT.match(text, end)
        return text[start] in _STOPS or following is None or not following.group(1).islower()
    following = _NEXT.match(text, end)
    if following and following.group(1).islower():
        return False
    if text[end - 1] in "\"'”’»":
        return True
    before = text[max(0, start - 12) : start].split()
    word = before[-1].lstrip("([\"'“‘") if before and not text[start - 1].isspace() else ""
    if len(word) == 1 and word.isalpha() and word.isupper() and word != "I":
        return False
    return _ABBREVIATION.fullmatch(word.lower()) is None


def _skip(text: str, at: int) -> int:
    match = _NEXT.match(text, at)
    return match.start(1) if match else len(text)
