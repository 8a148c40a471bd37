"""LaTeX: headings and code; the preamble and comments are left out."""

from __future__ import annotations

import re

from revela_rag.corpus.formats.markup.page import Page
from revela_rag.corpus.text import squeeze

__all__ = ["read_tex"]

_LEVELS = {"part": 1, "chapter": 2, "section": 3, "subsection": 4, "subsubsection": 5, "paragraph": 6}
_ARGUMENT = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_HEADING = re.compile(rf"[ \t]*\\({'|'.join(_LEVELS)})\*?[ \t]*(?:\[[^\[\]]*\])?[ \t]*{_ARGUMENT}")
_TITLE = re.compile(rf"\\title[ \t]*(?:\[[^\[\]]*\])?[ \t]*{_ARGUMENT}", re.S)
_BEGIN = re.compile(r"\\begin\{document\}")
_CODE = re.compile(r"[ \t]*\\begin\{(verbatim\*?|Verbatim|lstlisting|minted|alltt)\}")
_COMMENT = re.compile(r"(?<!\\)%.*")
_MARK = re.compile(r"(?<![ \t])[ \t]*+\\label\{[^{}]*\}")
_COMMAND = re.compile(r"\\[a-zA-Z]+\*?[ \t]*|[{}]|(?<!\\)\$|~|\\(?=[%&#_$])")
_LONGEST = 10_000  # characters of a preamble's title


def read_tex(text: str) -> Page:
    """A LaTeX document on as many lines as it has, without its preamble, comments and labels."""
    begin = _BEGIN.search(text)
    title = _TITLE.search(text[: min(begin.end(), _LONGEST) if begin else _LONGEST])
    preamble = text.count("\n", 0, begin.end()) + 1 if begin else 0
    lines = text.split("\n")
    headings: list[tuple[int, str, int, int]] = []
    verbatim: list[tuple[int, int]] = []
    at, code_from, closing = 0, -1, ""
    for row, line in enumerate(lines):
        written = line
        if row < preamble:
            written = ""
        elif closing:
            if closing in line:
                verbatim.append((code_from, at + len(line)))
                closing = ""
        elif code := _CODE.match(line):
            code_from, closing = at, f"\\end{{{code.group(1)}}}"
        else:
            written = _MARK.sub("", _COMMENT.sub("", line))
            heading = _HEADING.match(written)
            if heading and (words := _words(heading.group(2))):
                rest = written[heading.end() :].lstrip()
                end = at + len(written) + (-len(rest) if rest else 1)
                headings.append((_LEVELS[heading.group(1)], words, at, end))
        lines[row] = written
        at += len(written) + 1
    made = "\n".join(lines)
    if closing:
        verbatim.append((code_from, len(made)))
    headings = [(level, words, start, min(end, len(made))) for level, words, start, end in headings]
    return Page(made, _words(title.group(1)) if title else "", headings, verbatim)


def _words(text: str) -> str:
    """An argument without commands and braces."""
    return squeeze(_COMMAND.sub(" ", _COMMENT.sub("", text).replace("\\\\", " ")).replace(" ,", ","))
