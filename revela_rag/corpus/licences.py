"""Licences in the comments that open a source file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from revela_rag.corpus.lines import Line

__all__ = ["comment_rows", "licence_rows"]

_BLOCKS = {
    "/*": "*/",
    "(*": "*)",
    "{-": "-}",
    "<!--": "-->",
    "--[[": "]]",
    "--[=[": "]=]",
    "#=": "=#",
    "#|": "|#",
    "<#": "#>",
    "%{": "%}",
    "=begin": "=end",
    "=pod": "=cut",
    '"""': '"""',
    "'''": "'''",
}
_LINE = re.compile(r"//|#(?![\w\[])|--|[;%!]|(?:dnl|rem)(?!\w)", re.I)
_MARKS = re.compile(r"(?:\(\*|=(?:begin|pod|end|cut)\b|(?:dnl|rem)\b|[\s/*#;%!{=|\"'<>\[-])+", re.I)
# a line that is a notice, and a line from which on its paragraph is the terms of a licence
_NOTICE = re.compile(
    r"(?:portions )?copyright\b.{0,80}(?:\(c\)|©|\d{4}|\bby\b|reserved)|(?:\(c\)|©) ?(?:copyright )?\d{4}|"
    r"(?:copyright|licen[sc]e|spdx[\w-]*)\s*:|@(?:copyright|licen[sc]e)\b|.{0,200}\ball rights reserved\b",
    re.I,
)
_HOLDER = re.compile(r"[Cc]opyright(?: the)?(?: [A-Z][\w.,&'-]*)+$")
_TERMS = re.compile(
    r"\blicen[sc]ed (?:under|to|by)\b|https?://\S*licen[sc]e|\b(?:public|mit|bsd|isc|apache|mozilla) licen[sc]e\b|"
    r"\bunder the terms\b|\bpermission (?:is hereby|to use)\b|\bredistributions? (?:and use|of source|in binary)\b|"
    r"\bredistribute it\b|\bfree software\b|\bwithout (?:any )?warrant|\brequired by applicable law\b|"
    r"\bdistributed in the hope\b|\bsoftware is provided\b|\bcopyright laws?\b|\bmay not use this file\b|"
    r"\bcopy of the (?:gnu|licen[sc]e)\b|\bsee (?:the )?(?:accompanying )?(?:file )?(?:licen[sc]e|copying)\b|"
    r"\blicen[sc]e (?:file|information|agreement)\b|\blicen[sc]e that can be found\b|"
    r"\bgoverned by an?\b.{0,40}\blicen[sc]e|\babove copyright notice\b|"
    r"\breleased under (?:the|an?)\b.{0,40}\blicen[sc]e|\b(?:neither the|the) names? of .{0,60}\bcontributors\b|"
    r"^contributors?:",
    re.I,
)
_WORD = re.compile(r"[^\W_]")


def comment_rows(lines: Iterable[Line]) -> set[int]:
    """Rows of the comments that open a file in a language without a grammar, told by how comments begin anywhere."""
    rows: set[int] = set()
    block: list[int] = []
    closer = ""
    for line in lines:
        text = line.text.strip()
        if not closer:
            opener = max((mark for mark in _BLOCKS if text.startswith(mark)), key=len, default="")
            if opener:
                closer, block, text = _BLOCKS[opener], [], text[len(opener) :]
            elif _LINE.match(text):
                rows.add(line.row)
                continue
            elif text and not text.startswith("<?"):
                break
            else:
                continue
        end = text.find(closer)
        if end < 0:
            block.append(line.row)
            continue
        code = text[end + len(closer) :].strip()
        rows.update(block if code else [*block, line.row])
        if code:
            break
        closer = ""
    return rows


def licence_rows(lines: Iterable[Line], comments: set[int], *, whole: bool) -> set[int]:
    """Rows of licences in the comments that open a file.

    A notice is its line, terms go on to the end of their paragraph, and rows without words are part of it where their
    comment says nothing else.

    Args:
        lines: of the file.
        comments: rows that are nothing but comments, at least those before everything else.
        whole: whether all of a comment up to the next blank row counts that has a licence in it: who wrote the file,
            when, for what.

    Returns:
        Rows, blank ones of the same comments among them.
    """
    rows: set[int] = set()
    run: list[tuple[int, str]] = []
    for line in lines:
        text = line.text.strip()
        if line.row in comments:
            marks = _MARKS.match(line.text)
            run.append((line.row, line.text[marks.end() if marks else 0 :].rstrip(" \t*/|=#-")))
        elif text:
            break
        else:
            rows |= _licence(run, whole)
            run = []
    return rows | _licence(run, whole)


def _licence(run: list[tuple[int, str]], whole: bool) -> set[int]:
    found: set[int] = set()
    terms = False
    for row, text in run:
        terms = bool(_WORD.search(text)) and (terms or _TERMS.search(text) is not None)
        if terms or _NOTICE.match(text) or _HOLDER.match(text):
            found.add(row)
    if found and (whole or all(row in found or not _WORD.search(text) for row, text in run)):
        return {row for row, _ in run}
    return found
