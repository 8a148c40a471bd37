"""Prose to chunks of whole sentences, section by section."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from revela_rag.corpus.code.lines import split_words
from revela_rag.corpus.draft import Draft
from revela_rag.corpus.formats.line_texts import is_lines, line_spans, table_head
from revela_rag.corpus.prose.parts import prose_parts
from revela_rag.corpus.prose.sections import Outline, Section, markdown_outline, rst_outline
from revela_rag.corpus.prose.sentences import sentence_spans
from revela_rag.corpus.text import count_words
from revela_rag.corpus.types import Document
from revela_rag.corpus.window import Window

__all__ = ["chunk_prose"]

_BLANK = re.compile(r"\n(?:[ \t]*+\n)+|\f")
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


#: How long a text is, in words or what takes their place.
_Measure = Callable[[str], int]
_Span = tuple[int, int]


@dataclass(slots=True)
class _Unit:
    """A piece that is not cut further; ``head`` are the rows that name the columns of the table it is a row of.

    Of the first of a chunk, ``truncated`` says that the chunk is longer than what the model reads.
    """

    start: int
    end: int
    words: int
    head: str = ""
    truncated: bool = False


def chunk_prose(
    document: Document,
    *,
    max_words: int = 120,
    outline: Outline | None = None,
    heading: str = "",
    window: Window | None = None,
) -> list[Draft]:
    """Cut prose into chunks of at most ``max_words`` words.

    A chunk never crosses a heading. Whole paragraphs are preferred, then whole sentences (whole lines in tables, lists
    of lines and code blocks); a sentence beyond the limit is cut between lines, then between words. The path of
    headings becomes the title. The rows that name the columns of a table open every chunk of it.

    Args:
        document: its text, title and format count.
        max_words: at least 8.
        outline: sections and code of the text, where its format does not say them.
        heading: stands above all headings of Markdown.
        window: what the model reads of a chunk and its title; chunks of more tokens are cut in the same places.
    """
    text = document.text
    if outline is None:
        outline = markdown_outline(text, heading) if document.format == "markdown" else rst_outline(text)
    sections = outline.sections
    if not sections and text.strip():
        sections = [Section((), 0, len(text))]
    newlines = [match.start() for match in re.finditer("\n", text)]
    pages = [match.start() for match in re.finditer("\f", text)]
    drafts = []
    for section in sections:
        title = _title(document, section)
        units = list(_units(text, section, outline.verbatim, max_words))
        groups = _pack(units, max_words)
        if window is not None and not window.surely_holds(title, text[section.start : section.end]):
            groups = _fitted(groups, text, title, outline.verbatim, max_words, window)
        for number, group in enumerate(groups):
            start, end = group[0].start, group[-1].end
            chunk = _join(text, group)
            where: dict[str, str | int | float | bool] = {
                "start_line": bisect_right(newlines, start) + 1,
                "end_line": bisect_right(newlines, end - 1) + 1,
            }
            if pages:
                where["page"] = bisect_right(pages, start) + 1
            parts = prose_parts(
                chunk.strip(),
                path=section.path,
                title=document.title,
                first=number == 0,
                is_tool="tool" in document.metadata,
            )
            drafts.append(Draft("prose", chunk, title, parts, where, truncated=group[0].truncated))
    return drafts


def _fitted(
    groups: Iterable[list[_Unit]], text: str, title: str, verbatim: list[_Span], max_words: int, window: Window
) -> Iterator[list[_Unit]]:
    """The groups, those that have more tokens than fit cut further into parts of about equal size."""
    above = window.count(title) if title else 0
    measure = window.words(title, max_words)
    for group in groups:
        whole = _join(text, group)
        if window.surely_holds(title, whole) or above + window.count(whole) <= window.room:
            yield group
            continue
        units = [smaller for unit in group for smaller in _smaller(unit, text, verbatim, max_words, measure)]
        total = sum(unit.words for unit in units)
        limit = min(max_words, int(1.2 * total / -(-total // max_words)) + 1)
        for part in _pack(units, limit, measure):
            part[0].truncated = above + window.count(_join(text, part)) > window.room
            yield part


def _smaller(unit: _Unit, text: str, verbatim: list[_Span], max_words: int, measure: _Measure) -> Iterator[_Unit]:
    """A unit as ``measure`` sees it, cut where it is too long by that."""
    words = measure(text[unit.start : unit.end])
    if words <= max_words:
        yield replace(unit, words=words)
        return
    for a, b, is_code in _parts(unit.start, unit.end, verbatim):
        for smaller in _cut(text, a, b, is_code, max_words, measure):
            yield replace(smaller, head=smaller.head or unit.head)


def _title(document: Document, section: Section) -> str:
    names = list(section.path)
    if document.title and (not names or names[0].casefold() != document.title.casefold()):
        names.insert(0, document.title)
    if len(names) > 4:
        names = [names[0], *names[-3:]]
    return " > ".join(names)[:300]


def _units(text: str, section: Section, verbatim: list[_Span], max_words: int) -> Iterator[_Unit]:
    for start, end in _paragraphs(text, section, verbatim):
        paragraph = text[start:end]
        if _NOISE.fullmatch(paragraph.strip()):
            continue
        words = count_words(paragraph)
        if words <= max_words:
            yield _Unit(start, end, words)
            continue
        for a, b, is_code in _parts(start, end, verbatim):
            yield from _cut(text, a, b, is_code, max_words, count_words)


def _parts(start: int, end: int, verbatim: list[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """A paragraph as runs of prose and of code."""
    for a, b in verbatim[max(bisect_right(verbatim, (start, start)) - 1, 0) :]:
        if a >= end:
            break
        if b <= start:
            continue
        if a > start:
            yield start, a, False
        yield max(a, start), min(b, end), True
        start = min(b, end)
    if start < end:
        yield start, end, False


def _cut(text: str, start: int, end: int, is_code: bool, max_words: int, measure: _Measure) -> Iterator[_Unit]:
    """Units of a paragraph beyond the limit."""
    paragraph = text[start:end]
    head = "" if is_code else table_head(paragraph)
    if head and 2 * measure(head) > max_words:
        head = ""
    in_lines = is_code or is_lines(paragraph)
    for a, b in line_spans(paragraph) if in_lines else _sentences(paragraph, max_words, measure):
        words = measure(paragraph[a:b])
        if words <= max_words:
            yield _Unit(start + a, start + b, words, head if a >= len(head) else "")
            continue
        for x, y in split_words(paragraph[a:b], max_words, measure):
            words = measure(paragraph[a + x : a + y])
            yield _Unit(start + a + x, start + a + y, words, head if a + x >= len(head) else "")


def _sentences(paragraph: str, max_words: int, measure: _Measure) -> Iterator[tuple[int, int]]:
    """Sentences, the first with its indentation; of one beyond the limit its lines."""
    first = True
    for a, b in sentence_spans(paragraph):
        a, first = 0 if first else a, False
        if measure(paragraph[a:b]) <= max_words:
            yield a, b
        else:
            yield from ((a + x, a + y) for x, y in line_spans(paragraph[a:b]))


def _paragraphs(text: str, section: Section, verbatim: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans between blank lines, with the indentation of their first line; blank lines inside code do not count."""
    start = section.start
    for match in [*_BLANK.finditer(text, section.start, section.end), None]:
        end = match.start() if match else section.end
        if match and _is_inside(end, verbatim):
            continue
        piece = text[start:end]
        if piece.strip():
            yield start + _indent(piece), start + len(piece.rstrip())
        start = match.end() if match else end


def _is_inside(at: int, spans: list[tuple[int, int]]) -> bool:
    before = bisect_left(spans, (at, at)) - 1
    return before >= 0 and at < spans[before][1]


def _indent(text: str) -> int:
    """Where the first line that is not blank begins."""
    return text.rfind("\n", 0, len(text) - len(text.lstrip())) + 1 or len(text) - len(text.lstrip("\f"))


def _pack(units: list[_Unit], max_words: int, measure: _Measure = count_words) -> Iterator[list[_Unit]]:
    group: list[_Unit] = []
    words = 0
    for unit in units:
        if group and words + unit.words > max_words:
            yield group
            group, words = [], 0
        if not group and unit.head:
            words = measure(unit.head)
        group.append(unit)
        words += unit.words
    if group:
        yield group


def _join(text: str, group: list[_Unit]) -> str:
    """The text of a group; gaps are kept where they are whitespace, and become a blank line where noise was dropped."""
    pieces = [group[0].head]
    for before, unit in zip([None, *group], group, strict=False):
        if before is not None:
            gap = text[before.end : unit.start]
            pieces.append(gap if not gap.strip() and gap.count("\n") < 2 else "\n\n")
        pieces.append(text[unit.start : unit.end])
    return "".join(pieces).strip("\n").rstrip()
