"""Sections of a document: its headings and the text below each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from revela_rag.corpus.text import squeeze

__all__ = ["Outline", "Section", "assemble", "clean_heading", "fence_spans", "markdown_outline", "rst_outline"]

_FENCE = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)([^\n]*)", re.M)
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]++(.+)")
_SETEXT = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_ADORNMENT = re.compile(r"^([=\-`:.'\"~^_*+#<>])\1{2,}[ \t]*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)|!?\[([^\[\]]*)\]\[[^\[\]]*\]")
_ATTRIBUTES = re.compile(r"(?<![ \t])[ \t]*+\{[#.:][^{}]*\}[ \t]*$")
_MARKUP = re.compile(r"[*`]+|<[^<>]{1,200}>|(?<!\w)_+|(?<!_)_++(?!\w)|¶")
_ROLE = re.compile(r":[a-zA-Z][\w:-]{0,100}:`([^`<]*+)(<[^<>]*>)?`")


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text under one heading.

    Attributes:
        path: headings from the outermost to its own; empty before the first heading.
        start: offset of its text (after the heading) in the document.
        end: offset after its text, and after headings that follow it and stand above nothing.
    """

    path: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Outline:
    """What a document is made of.

    Attributes:
        sections: in their order.
        verbatim: spans of code, with the fences around it: blank lines do not end a paragraph there.
    """

    sections: list[Section]
    verbatim: list[tuple[int, int]]


def markdown_outline(text: str, title: str = "") -> Outline:
    """Sections by ATX (``# Title``) and Setext (underlined) headings outside of fenced code.

    Args:
        text: without front matter.
        title: stands above all headings, if it is not empty.
    """
    root = [(0, clean_heading(title), 0, 0)] if title else []
    fences = fence_spans(text)
    return Outline(assemble(text, [*root, *_markdown_headings(text, fences)]), fences)


def rst_outline(text: str) -> Outline:
    """Sections by underlined headings (reStructuredText, plain text); levels in order of first appearance."""
    return Outline(assemble(text, list(_rst_headings(text))), fence_spans(text))


def fence_spans(text: str) -> list[tuple[int, int]]:
    """Spans of fenced code with its fences, however far they are indented; one that nothing closes reaches to the end.

    Backticks that are closed on their line are code inside a sentence.
    """
    spans: list[tuple[int, int]] = []
    start, mark = 0, ""
    for line in _FENCE.finditer(text):
        found, closing = line.group(1), not line.group(2).strip()
        if not mark:
            if found[0] == "~" or "`" not in line.group(2):
                start, mark = line.start(), found
        elif found.startswith(mark) and closing:
            spans.append((start, line.end()))
            mark = ""
    return [*spans, (start, len(text))] if mark else spans


def clean_heading(heading: str) -> str:
    """A heading as words: links, emphasis, code marks, anchors and trailing attributes removed."""
    heading = _LINK.sub(lambda m: m.group(1) or m.group(2) or "", _ATTRIBUTES.sub("", heading))
    heading = _ROLE.sub(lambda m: m.group(1).rstrip() if m.group(2) else m.group(1), heading)
    return squeeze(_MARKUP.sub("", heading).replace("\\", ""))


def assemble(text: str, headings: list[tuple[int, str, int, int]]) -> list[Section]:
    """Turn (level, title, heading start, text start) into sections with their paths.

    A heading that stands above nothing is text: of the section that ends right before it, or of one of its own.
    """
    sections: list[Section] = []
    path: list[tuple[int, str, int]] = []  # level, title, and where a heading stands that no section has yet, or -1
    start = 0
    for level, title, at, after in [*headings, (0, "", len(text), len(text))]:
        if text[start:at].strip():
            sections.append(Section(tuple(name for _, name, _ in path if name), start, at))
            path = [(depth, name, -1) for depth, name, _ in path]
        alone = at
        while path and path[-1][0] >= level:
            _, _, unused = path.pop()
            alone = unused if unused >= 0 else alone
        if text[alone:at].strip():
            follows = bool(sections) and not text[sections[-1].end : alone].strip()
            names = tuple(name for _, name, _ in path if name)
            sections.append(replace(sections.pop(), end=at) if follows else Section(names, alone, at))
        path.append((level, title, at))
        start = after
    return sections


def _markdown_headings(text: str, fences: list[tuple[int, int]]) -> Iterator[tuple[int, str, int, int]]:
    candidate, candidate_at, after_blank, at = "", 0, True, 0
    left = iter([*fences, (len(text) + 1, len(text) + 1)])
    start, end = next(left)
    for line in text.splitlines(keepends=True):
        content = line.rstrip("\n")
        while at >= end:
            start, end = next(left)
        fenced = at >= start
        atx = None if fenced else _atx(content)
        setext = _SETEXT.match(content) if candidate and not fenced else None
        if atx:
            yield atx[0], clean_heading(atx[1]), at, at + len(line)
        elif setext:
            yield 1 if setext.group(1)[0] == "=" else 2, clean_heading(candidate), candidate_at, at + len(line)
        heading = bool(setext or atx)
        # a Setext heading is one line of text after a blank one; underlined paragraphs, lists and tables are not
        usable = after_blank and not fenced and not heading and len(content) <= 200
        candidate = content if usable and content.strip() and content.lstrip()[0] not in "|->*+" else ""
        candidate_at = at
        after_blank = heading or not content.strip()
        at += len(line)


def _atx(line: str) -> tuple[int, str] | None:
    """Level and text of a line that is an ATX heading, without the hashes that may close it."""
    match = _ATX.match(line)
    if match is None:
        return None
    title = match.group(2).rstrip(" \t")
    bare = title.rstrip("#")
    return len(match.group(1)), bare.rstrip(" \t") if bare.endswith((" ", "\t")) else title


def _rst_headings(text: str) -> Iterator[tuple[int, str, int, int]]:
    lines = text.split("\n")
    levels: dict[tuple[str, bool], int] = {}
    at = 0
    offsets = []
    for line in lines:
        offsets.append(at)
        at += len(line) + 1
    for row in range(1, len(lines)):
        title = lines[row - 1].rstrip()
        mark = _ADORNMENT.match(lines[row])
        if not mark or not title or _ADORNMENT.match(title) or title.startswith(".. "):
            continue
        above = _ADORNMENT.match(lines[row - 2]) if row >= 2 else None
        over = above is not None and above.group(1) == mark.group(1)
        if title[0] in " \t" and not over:  # between two lines a title may be centred
            continue
        alone = over or row < 2 or not lines[row - 2].strip()
        if not alone or len(lines[row].rstrip()) < min(len(title), 4) or len(title) > 200:
            continue
        level = levels.setdefault((mark.group(1), over), len(levels) + 1)
        start = offsets[row - 2] if over else offsets[row - 1]
        end = offsets[row] + len(lines[row]) + 1
        yield level, clean_heading(title), start, min(end, len(text))
