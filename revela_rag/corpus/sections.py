"""Sections of a document: its headings and the text below each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from revela_rag.corpus.text import squeeze

__all__ = ["Section", "markdown_sections", "rst_sections"]

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]++(.+)")
_SETEXT = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_FRONT_TITLE = re.compile(r"^title:(.+)$", re.M)
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


def markdown_sections(text: str) -> list[Section]:
    """Sections by ATX (``# Title``) and Setext (underlined) headings outside of fenced code.

    The title of a YAML front matter is the outermost heading; the rest of the front matter is dropped.
    """
    body, root = 0, []
    front = _FRONT_MATTER.match(text)
    if front:
        body = front.end()
        title = _FRONT_TITLE.search(front.group(1))
        root = [(0, clean_heading(_unquoted(title.group(1))), body, body)] if title else []
    return _assemble(text, body, [*root, *_markdown_headings(text, body)])


def rst_sections(text: str) -> list[Section]:
    """Sections by underlined headings (reStructuredText, plain text); levels in order of first appearance."""
    return _assemble(text, 0, list(_rst_headings(text)))


def clean_heading(heading: str) -> str:
    """A heading as words: links, emphasis, code marks, anchors and trailing attributes removed."""
    heading = _LINK.sub(lambda m: m.group(1) or m.group(2) or "", _ATTRIBUTES.sub("", heading))
    heading = _ROLE.sub(lambda m: m.group(1).rstrip() if m.group(2) else m.group(1), heading)
    return squeeze(_MARKUP.sub("", heading).replace("\\", ""))


def _assemble(text: str, body: int, headings: list[tuple[int, str, int, int]]) -> list[Section]:
    """Turn (level, title, heading start, text start) into sections with their paths.

    A heading that stands above nothing is text: of the section that ends right before it, or of one of its own.
    """
    sections: list[Section] = []
    path: list[tuple[int, str, int]] = []  # level, title, and where a heading stands that no section has yet, or -1
    start = body
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


def _markdown_headings(text: str, at: int) -> Iterator[tuple[int, str, int, int]]:
    fence, candidate, candidate_at, after_blank = "", "", at, True
    for line in (text[at:] if at else text).splitlines(keepends=True):
        content = line.rstrip("\n")
        mark = _FENCE.match(content)
        atx = None if fence or mark else _atx(content)
        setext = _SETEXT.match(content) if candidate and not fence else None
        if atx:
            yield atx[0], clean_heading(atx[1]), at, at + len(line)
        elif setext:
            yield 1 if setext.group(1)[0] == "=" else 2, clean_heading(candidate), candidate_at, at + len(line)
        elif fence and mark and mark.group(1).startswith(fence) and not content.strip().strip("`~"):
            fence = ""
        elif mark and not fence:
            fence = mark.group(1)
        heading = bool(setext or atx)
        # a Setext heading is one line of text after a blank one; underlined paragraphs, lists and tables are not
        usable = after_blank and not fence and not mark and not heading and len(content) <= 200
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


def _unquoted(value: str) -> str:
    """A value of the front matter without quotes around it."""
    value = value.strip(" \t")
    value = value[1:] if len(value) > 1 and value[0] in "\"'" else value
    return value[:-1] if len(value) > 1 and value[-1] in "\"'" else value


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
