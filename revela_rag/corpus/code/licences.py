"""Licences in the comments that open a source file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from revela_rag.corpus.code.lines import Line
from revela_rag.corpus.text import count_words

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
# of those that no line comment begins with
_OPENERS = _BLOCKS.keys() - {"#=", "#|", "%{"}
_BLOCK = "block"
_BEGINS = re.compile(r"/\*[*!](?![*/])|/\*|//[/!](?!/)|//|\S")
_DOCUMENTS = ("/**", "/*!")
_LINE = re.compile(r"//|#(?![\w\[])|--|[;%!]|(?:dnl|rem)(?!\w)", re.I)
_MARKS = re.compile(
    r"(?:\(\*|=(?:begin|pod|end|cut)\b|#[ \t]*(?:end)?region\b|(?:dnl|rem)\b|[\s/*#;%!{=|\"'<>\[-])+", re.I
)
# a line that is a notice, and a line from which on its paragraph is the terms of a licence
_NOTICE = re.compile(
    r"(?:portions |:)?copyright\b.{0,80}(?:\(c\)|©|\d{4}|\bby\b|reserved)|(?:\(c\)|©) ?(?:copyright )?\d{4}|"
    r"(?:copyright|licen[sc]e|spdx[\w-]*)\s*:|@(?:copyright|licen[sc]e)\b|.{0,200}\ball rights reserved\b|"
    r"(?:(?:begin|end|file) )?(?:copyright|licen[sc]e)(?: (?:header|notice|information|block))?:?$|"
    r"this (?:file|module|program|library|header) is (?:a )?part of\b",
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
    r"\bgoverned by an?\b.{0,40}\b(?:licen[sc]e|bsd)|\bfor information on usage and\b|\babove copyright notice\b|"
    r"\breleased under (?:the|an?)\b.{0,40}\blicen[sc]e|\b(?:neither the|the) names? of .{0,60}\bcontributors\b|"
    r"^contributors?:|\bunder section \d|\bmerchantability\b|^in no event\b|"
    r"\b(?:no|all|any) (?:\w+ )?warrant(?:y|ies)\b|\bexcept as contained in this notice\b|"
    r"\bprior written\b|\blicensed deliverables\b|^notice to licensee|"
    r"\bavailable to you under\b|\breleased under$|\bterms of use\b|\bmay only be used\b|\bused in advertising\b|"
    r"\bto endorse or promote\b|\b(?:the original code|the initial developer of|portions created by)\b",
    re.I,
)
# a line about who wrote a file and when, its name, what editors are to do with it
_WHO = re.compile(
    r"@?(?:authors?|maintainers?|contributors|e-?mail|contact|date|created|modified|last modified|version|revision|"
    r"file(?:name)?|url|home ?page|website)\s*:|@(?:authors?|date|version|since|file|package|subpackage|category)\b|"
    r"(?:originally )?(?:written|created|coded|maintained|modified|ported|contributed|developed) (?:by|on)\b|"
    r"\$(?:id|revision|header|date|source)\b|(?:\S+\s+)?-\*-|vim?:|clang-format|(?:en)?coding\s*[:=]|"
    r"\S+\.\w{1,5}:?$|https?://\S+$|"
    r".{0,60}(?:<[\w.+-]*@[^<>]+>|[\w.+-]+@[\w-]+\.[\w.]+[.,]?$)",
    re.I,
)
_WHO_WORDS = 12
# from here on a paragraph says where a file was made
_MADE = re.compile(
    r"^(?:(?:warning:?|this file (?:is|was)) )?(?:auto-?|automatically )?generated (?:by|from|with)\b|"
    r"\bdo not (?:edit|modify)\b(?: this| by hand| manually|!|\.|$)",
    re.I,
)
_WORD = re.compile(r"[^\W_]")
_Row = tuple[int, str]
_Run = tuple[bool, list[_Row]]  # whether it is one block, and its rows without what marks a comment


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


def licence_rows(lines: Iterable[Line], comments: set[int], *, fewest: int = 0) -> set[int]:
    """Rows of licences in the comments that open a file.

    A notice is its line, terms go on to the end of their paragraph or of their comment. Rows without words are part of
    a licence where their comment says nothing else.

    Args:
        lines: of the file.
        comments: rows that are nothing but comments, at least those before everything else.
        fewest: words that a paragraph in a comment with a licence has to have, else it counts as part of it, as do the
            lines that only say who wrote the file and when.

    Returns:
        Rows, blank ones of the same comments among them.
    """
    rows: set[int] = set()
    runs: list[_Run] = []
    kind = closer = ""
    for line in lines:
        text = line.text.strip()
        if line.row not in comments or text.startswith("<?"):
            if text and line.row not in comments:
                break
            rows |= _licences(runs, fewest)
            runs, kind, closer = [], "", ""
            continue
        before, kind, closer = kind, *_kind(text, kind, closer)
        if kind != before or not runs or kind in _DOCUMENTS:
            runs.append((kind == _BLOCK, []))
        marks = _MARKS.match(line.text)
        runs[-1][1].append((line.row, line.text[marks.end() if marks else 0 :].rstrip(" \t*/|=#-")))
        if kind == _BLOCK and not closer:
            kind = ""
    return rows | _licences(runs, fewest)


def _kind(text: str, kind: str, closer: str) -> tuple[str, str]:
    """What kind of comment a line is of, and what the comment ends with if that is in a later line.

    Comments of one line each are one comment where they begin alike and are no documentation.
    """
    if not closer:
        opener = max((mark for mark in _OPENERS if text.startswith(mark)), key=len, default="")
        begins = _BEGINS.match(text)
        kind = begins.group() if begins else ""
        if not opener or _BLOCKS[opener] in text[len(opener) :]:
            return kind, ""
        closer = _BLOCKS[opener]
        return _BLOCK, closer
    return kind, "" if closer in text else closer


def _licences(runs: list[_Run], fewest: int) -> set[int]:
    """Rows of licences in comments without a blank line between them."""
    every: set[int] = set()
    for block, run in runs:
        every |= _licence(run, block, fewest)
    if every and all(row in every or not _WORD.search(text) for _, run in runs for row, text in run):
        return {row for _, run in runs for row, _ in run}
    return every


def _licence(run: list[_Row], block: bool, fewest: int) -> set[int]:
    found: set[int] = set()
    terms = False
    for row, text in run:
        terms = bool(_WORD.search(text)) and (terms or _TERMS.search(text) is not None)
        if terms or _NOTICE.match(text) or _HOLDER.match(text):
            found.add(row)
    if not found:
        return found
    if fewest:
        found |= _says_little(run, found, fewest)
    kept = [row for row, text in run if row not in found and _WORD.search(text)]
    if not kept:
        return {row for row, _ in run}
    ends = {run[0][0], run[-1][0]} if block else set()
    gone = True  # rows without words go with what stands before them
    for row, text in run:
        gone = row in found if _WORD.search(text) else gone or row > kept[-1]
        if gone and row not in ends:
            found.add(row)
    return found


def _says_little(run: list[_Row], found: set[int], fewest: int) -> set[int]:
    """Rows of paragraphs that hold fewer words than asked for besides who wrote the file, when, and from what."""
    little: set[int] = set()
    paragraph: list[int] = []
    words, made = 0, False
    for row, text in [*run, (-1, "")]:
        if row not in found and _WORD.search(text):
            made = made or _MADE.search(text) is not None
            size = count_words(text)
            words += 0 if made or (size <= _WHO_WORDS and _WHO.match(text)) else size
            paragraph.append(row)
            continue
        if words < fewest:
            little.update(paragraph)
        paragraph, words, made = [], 0, False
    return little
