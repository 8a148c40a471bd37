"""Org: headings, blocks and drawers."""

from __future__ import annotations

import re

from revela_rag.corpus.formats.markup.page import Page
from revela_rag.corpus.prose.sections import clean_heading

__all__ = ["read_org"]

_HEADING = re.compile(r"(\*+)[ \t]+(\S.*)")
_STATE = re.compile(r"(?:TODO|DONE|NEXT|WAITING|CANCELLED|COMMENT)[ \t]+|\[#\w\][ \t]+")
_TAGS = re.compile(r"(?<![ \t])[ \t]++:[\w@#%:]+:[ \t]*$")
_BEGIN = re.compile(r"[ \t]*#\+begin_(\w+)", re.I)
_CODE = ("src", "example", "export")
_KEYWORD = re.compile(r"[ \t]*#\+([\w-]+):[ \t]*(.*)", re.I)
_DROPPED = re.compile(r"[ \t]*#(?:[ \t].*|\+\w.*)?|[ \t]*:[\w-]+:(?:[ \t].*)?|[ \t]*(?:SCHEDULED|DEADLINE|CLOSED):.*")
_LINK = re.compile(r"\[\[[^\[\]]*\]\[([^\[\]]*)\]\]|\[\[([^\[\]]*)\]\]")


def read_org(text: str) -> Page:
    """An Org document on as many lines as it has, without drawers, keywords and comments."""
    lines = text.split("\n")
    title, metadata, at = "", {}, 0
    headings: list[tuple[int, str, int, int]] = []
    verbatim: list[tuple[int, int]] = []
    code_from, closing = -1, ""
    for row, line in enumerate(lines):
        written = ""
        if closing:
            written = line
            if line.strip().lower() == closing:
                verbatim.append((code_from, at + len(line)))
                closing = ""
        elif (begin := _BEGIN.match(line)) and begin.group(1).lower() in _CODE:
            written, code_from, closing = line, at, f"#+end_{begin.group(1).lower()}"
        elif heading := _HEADING.fullmatch(line.rstrip()):
            words = _STATE.sub("", _STATE.sub("", _TAGS.sub("", heading.group(2))))
            written = line.rstrip()
            headings.append((len(heading.group(1)), clean_heading(_linked(words)), at, at + len(written) + 1))
        elif keyword := _KEYWORD.fullmatch(line):
            name = keyword.group(1).lower()
            if name == "title":
                title = f"{title} {keyword.group(2).strip()}".strip()
            elif name in ("description", "keywords"):
                written = metadata[name] = keyword.group(2).strip()
        elif not _DROPPED.fullmatch(line):
            written = _linked(line)
        lines[row] = written
        at += len(written) + 1
    text = "\n".join(lines)
    if closing:
        verbatim.append((code_from, len(text)))
    headings = [(level, words, start, min(end, len(text))) for level, words, start, end in headings]
    return Page(text, title, headings, verbatim, dict(metadata))


def _linked(line: str) -> str:
    return _LINK.sub(lambda match: match.group(1) or match.group(2) or "", line) if "[[" in line else line
