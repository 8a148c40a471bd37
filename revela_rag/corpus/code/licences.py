"""Licences in the comments that open a source file: such a comment goes whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from revela_rag.corpus.code.lines import Line

__all__ = ["comment_rows", "licence_rows"]

_LICENCE = re.compile(r"copyright|\blicen[sc]e|\bspdx\b|\bl?gpl\b|\(c\) ?\d{4}|all rights reserved", re.I)
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
_BANNERS = ("#=", "#|", "%{")  # open blocks, and rows of line comments too
_LINE = re.compile(r"//|#(?![\w\[])|--|[;%!]|(?:dnl|rem)(?!\w)", re.I)
_BEGINS = re.compile(r"/\*[*!](?![*/])|/\*|//[/!](?!/)|//|\S")
_DOCUMENTS = ("/**", "/*!")


def comment_rows(lines: Iterable[Line]) -> set[int]:
    """Rows of the comments that open a file in a language without a grammar, told by how comments begin anywhere."""
    rows: set[int] = set()
    block: list[int] = []
    closer = ""
    for line in lines:
        text = line.text.strip()
        if not closer:
            opener = _opener(text)
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


def licence_rows(lines: Iterable[Line], comments: set[int]) -> set[int]:
    """Rows of the comments before everything else that speak of a copyright or a licence.

    Args:
        lines: of the file.
        comments: rows that are nothing but comments, at least those before everything else.
    """
    opening = _comments(lines, comments)
    return {line.row for comment in opening if _says_licence(comment) for line in comment}


def _says_licence(comment: list[Line]) -> bool:
    return any(_LICENCE.search(line.text) for line in comment)


def _comments(lines: Iterable[Line], rows: set[int]) -> Iterator[list[Line]]:
    """The comments before everything else: blocks, and neighbouring lines that begin alike and document nothing."""
    comment: list[Line] = []
    begins = closer = ""
    for line in lines:
        text = line.text.strip()
        if line.row not in rows or text.startswith("<?"):
            yield comment
            comment, begins, closer = [], "", ""
            if text and line.row not in rows:
                return
            continue
        if not closer:
            mark = _BEGINS.match(text)
            before, begins = begins, mark.group() if mark else ""
            opener = _opener(text)
            if opener and opener not in _BANNERS and _BLOCKS[opener] not in text[len(opener) :]:
                before, closer = "", _BLOCKS[opener]
            if begins != before or begins in _DOCUMENTS:
                yield comment
                comment = []
        elif closer in text:
            begins = closer = ""
        comment.append(line)
    yield comment


def _opener(text: str) -> str:
    """The longest mark of a block comment that a line begins with, empty without."""
    return max((mark for mark in _BLOCKS if text.startswith(mark)), key=len, default="")
