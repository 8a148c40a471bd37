"""Prose to chunks of whole sentences, section by section."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from revela_rag.corpus.draft import Draft
from revela_rag.corpus.lines import split_words
from revela_rag.corpus.prose_parts import prose_parts
from revela_rag.corpus.sections import Section, markdown_sections, rst_sections
from revela_rag.corpus.sentences import sentence_spans
from revela_rag.corpus.text import count_words
from revela_rag.corpus.types import Document

__all__ = ["chunk_prose"]

_BLANK = re.compile(r"\n[ \t]*(?:\n[ \t]*)+|\f")
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.M)
_TABULAR = re.compile(r"^[ \t]*(?:```|~~~|\||\+[-=+]+\+|(?:={3,}[ \t]+)+={3,})")
_DIRECTIVES = (
    "index|module|currentmodule|highlight|sectionauthor|moduleauthor|contents|toctree|testsetup|only|rst-class|role|"
    "default-role|include"
)
#: Paragraphs that hold no text of their own.
_NOISE = re.compile(
    "|".join(
        (
            r"<!--(?:(?!-->).)*-->",
            r"[-*_=~#\s]{3,}",
            rf"\.\. (?:_(?>[^\n]*:)|(?:{_DIRECTIVES})::)[^\n]*+(?:\n[ \t]++[^\n]*+)*+",
            r"(?:\[?!\[[^\[\]]*\]\([^()]*\)(?:\]\([^()]*\))?\s*)+",
            r"\[[^\[\]]++\]:[ \t]*+\S[^\n]*+(?:\n\[[^\[\]]++\]:[^\n]*+)*+",
        )
    ),
    re.S,
)


@dataclass(slots=True)
class _Unit:
    """A piece that is not cut further; ``fresh`` where it opens a paragraph."""

    start: int
    end: int
    words: int
    fresh: bool


def chunk_prose(document: Document, *, max_words: int = 120) -> list[Draft]:
    """Cut prose into chunks of at most ``max_words`` words.

    A chunk never crosses a heading. Whole paragraphs are preferred, then whole sentences (whole lines in tables and
    code blocks); a sentence beyond the limit is cut between words. The path of headings becomes the title.
    """
    text = document.text
    sections = markdown_sections(text) if document.format == "markdown" else rst_sections(text)
    if not sections and text.strip():
        sections = [Section((), 0, len(text))]
    newlines = [match.start() for match in re.finditer("\n", text)]
    pages = [match.start() for match in re.finditer("\f", text)]
    drafts = []
    for section in sections:
        for number, group in enumerate(_pack(list(_units(text, section, max_words)), max_words)):
            start, end = group[0].start, group[-1].end
            chunk = _join(text, group)
            where: dict[str, str | int | float | bool] = {
                "start_line": bisect_right(newlines, start) + 1,
                "end_line": bisect_right(newlines, end - 1) + 1,
            }
            if pages:
                where["page"] = bisect_right(pages, start) + 1
            title = _title(document, section)
            parts = prose_parts(
                chunk,
                path=section.path,
                title=document.title,
                first=number == 0,
                is_tool="tool" in document.metadata,
            )
            drafts.append(Draft("prose", chunk, title, parts, where))
    return drafts


def _title(document: Document, section: Section) -> str:
    names = list(section.path)
    if document.title and (not names or names[0].casefold() != document.title.casefold()):
        names.insert(0, document.title)
    if len(names) > 4:
        names = [names[0], *names[-3:]]
    return " > ".join(names)[:300]


def _units(text: str, section: Section, max_words: int) -> Iterator[_Unit]:
    for start, end in _paragraphs(text, section):
        paragraph = text[start:end]
        if _NOISE.fullmatch(paragraph.strip()):
            continue
        words = count_words(paragraph)
        if words <= max_words:
            yield _Unit(start, end, words, True)
            continue
        fresh = True
        for a, b in _lines(paragraph) if _TABULAR.match(paragraph) else sentence_spans(paragraph):
            words = count_words(paragraph[a:b])
            spans = (
                [(a, b)] if words <= max_words else [(a + x, a + y) for x, y in split_words(paragraph[a:b], max_words)]
            )
            for x, y in spans:
                yield _Unit(start + x, start + y, count_words(paragraph[x:y]), fresh)
                fresh = False


def _paragraphs(text: str, section: Section) -> Iterator[tuple[int, int]]:
    """Spans between blank lines; blank lines inside a code fence do not count."""
    start = scanned = section.start
    fenced = False
    for match in [*_BLANK.finditer(text, section.start, section.end), None]:
        end = match.start() if match else section.end
        fenced ^= len(_FENCE.findall(text, scanned, end)) % 2 == 1
        scanned = match.end() if match else end
        if fenced and match:
            continue
        piece = text[start:end]
        if piece.strip():
            left = len(piece) - len(piece.lstrip("\n\f"))
            yield start + left, start + len(piece.rstrip())
        start = scanned


def _lines(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for line in text.split("\n"):
        if line.strip():
            yield at, at + len(line)
        at += len(line) + 1


def _pack(units: list[_Unit], max_words: int) -> Iterator[list[_Unit]]:
    group: list[_Unit] = []
    words = 0
    for unit in units:
        if group and words + unit.words > max_words:
            yield group
            group, words = [], 0
        group.append(unit)
        words += unit.words
    if group:
        yield group


def _join(text: str, group: list[_Unit]) -> str:
    """The text of a group; gaps are kept where they are whitespace, and become a blank line where noise was dropped."""
    pieces = []
    for before, unit in zip([None, *group], group, strict=False):
        if before is not None:
            gap = text[before.end : unit.start]
            pieces.append(gap if not gap.strip() and gap.count("\n") < 2 else "\n\n")
        pieces.append(text[unit.start : unit.end])
    return "".join(pieces).strip("\n").rstrip()
