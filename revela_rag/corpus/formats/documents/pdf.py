"""PDF to text, page by page."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from revela_rag.corpus.formats.documents.reading import PAGE_BREAK, Reading
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.text import clean_text, squeeze

if TYPE_CHECKING:
    import pypdf

__all__ = ["INTERLEAVED", "SCANNED", "read_pdf"]

SCANNED = "page that is a picture without text"
INTERLEAVED = "page whose columns are read across, line by line"

_BAD_TITLE = re.compile(r"untitled|microsoft word|\.(?:docx?|pdf|tex|indd|pptx?)\b|^\W*$", re.I)
_HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st", "\xad": "", "\u00a0": " "}
)
_MOST_HEADINGS = 5000
#: Two texts on one line are of two columns where so many lines of a page have them, of so many words each.
_FEWEST_LINES, _FEWEST_WORDS = 6, 3


def read_pdf(data: bytes, check: Callable[[], None] = lambda: None) -> Reading:
    r"""Text of a PDF, with ``\f`` between pages, its title, which may be empty, and its bookmarks as headings.

    Args:
        data: content of the file.
        check: called before every page; what it raises ends the reading.

    Raises:
        Unreadable: broken, encrypted or without text.
    """
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)
    notes: list[tuple[str, str]] = []
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted PDF")
        pages = []
        for number, page in enumerate(reader.pages, 1):
            check()
            text, interleaved = _page_text(page)
            pages.append(text)
            if interleaved:
                notes.append((INTERLEAVED, f"p. {number}"))
            elif not text and _has_picture(page):
                notes.append((SCANNED, f"p. {number}"))
        title = str((reader.metadata and reader.metadata.title) or "")
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # pypdf raises whatever the damage leads to
        raise Unreadable("broken PDF") from error
    if not any(pages):
        raise Unreadable("PDF without text")
    title = "" if _BAD_TITLE.search(title) else squeeze(title.translate(_LIGATURES))
    return Reading(PAGE_BREAK.join(pages), title, _headings(reader, pages), {}, notes)


def _page_text(page: pypdf.PageObject) -> tuple[str, bool]:
    """The text of a page, and whether it has columns that are read across."""
    pieces: list[tuple[float, float, str]] = []

    def see(text: str, _: Any, matrix: Any, *__: Any) -> None:
        if text.strip():
            pieces.append((matrix[5], matrix[4], text))

    text = page.extract_text(visitor_text=see) or ""
    text = clean_text(_HYPHENATED.sub("", text.translate(_LIGATURES))).replace("\f", "\n")
    return text.strip("\n").rstrip(), _reads_across(pieces)


def _reads_across(pieces: list[tuple[float, float, str]]) -> bool:
    """Whether texts of two columns stand side by side on most lines: most begin in the middle of a sentence.

    In a table the right column is no running text; columns that are written one after the other share no lines here.
    """
    pairs = [
        (left[2].strip(), right[2].strip(), right[1])
        for left, right in pairwise(pieces)
        if left[0] == right[0] and right[1] > left[1] and "\n" not in left[2]
    ]
    wide = [(left, right, at) for left, right, at in pairs if min(_words(left), _words(right)) >= _FEWEST_WORDS]
    if len(wide) < _FEWEST_LINES:
        return False
    places = [round(at) for _, _, at in wide]
    aligned = max(map(places.count, set(places)))
    running = sum(left[0].islower() or right[0].islower() for left, right, _ in wide)
    return 10 * aligned >= 8 * len(wide) and 2 * running > len(wide) and 2 * len(wide) > len({y for y, _, _ in pieces})


def _words(text: str) -> int:
    return len(text.split())


def _has_picture(page: pypdf.PageObject) -> bool:
    try:
        objects = page["/Resources"]["/XObject"].get_object()  # type: ignore[index]
        return any(entry.get_object().get("/Subtype") == "/Image" for entry in objects.values())
    except Exception:  # a page without resources, or a damaged one
        return False


def _headings(reader: pypdf.PdfReader, pages: list[str]) -> list[tuple[int, str, int, int]]:
    """The bookmarks, each where its words stand on its page, else where the page begins."""
    starts = [0]
    for text in pages:
        starts.append(starts[-1] + len(text) + len(PAGE_BREAK))
    found: list[tuple[int, str, int, int]] = []
    try:
        for level, name, number in _bookmarks(reader, reader.outline, 1):
            if len(found) == _MOST_HEADINGS:
                break
            words = squeeze(clean_text(name.translate(_LIGATURES)))
            if not words or not 0 <= number < len(pages):
                continue
            spelled = r"\s+".join(map(re.escape, words.split()))
            line = re.search(rf"^(?:[\d.]++[ \t]++)?{spelled}[ \t]*$", pages[number], re.M | re.I)
            at, end = line.span() if line else (0, 0)
            found.append((level, words, starts[number] + at, starts[number] + end))
    except Exception:  # of damaged bookmarks those before the damage
        pass
    return sorted(found, key=lambda heading: heading[2])


def _bookmarks(reader: pypdf.PdfReader, outline: Any, level: int) -> Iterator[tuple[int, str, int]]:
    """Level, name and page (from 0); lists hold what is below the bookmark before them."""
    for entry in outline:
        if isinstance(entry, list):
            yield from _bookmarks(reader, entry, level + 1)
            continue
        number = reader.get_destination_page_number(entry)
        if number is not None:
            yield level, str(entry.title or ""), number
