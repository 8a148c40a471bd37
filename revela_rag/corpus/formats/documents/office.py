r"""Office documents and books to Markdown with their pages or slides, and spreadsheets to rows."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from revela_rag.corpus.formats.documents.open_xml import first_rows, slide_notes, slide_places
from revela_rag.corpus.formats.documents.reading import PAGE_BREAK, Reading
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.prose.sections import fence_spans
from revela_rag.corpus.text import clean_text, squeeze

__all__ = ["Sheet", "needs_extra", "read_office", "read_sheets"]

_OPEN_XML = "application/vnd.openxmlformats-officedocument."
_MIME = {
    "docx": f"{_OPEN_XML}wordprocessingml.document",
    "pptx": f"{_OPEN_XML}presentationml.presentation",
    "xlsx": f"{_OPEN_XML}spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "rtf": "application/rtf",
    "epub": "application/epub+zip",
}
_MOST_CELLS = 5_000_000
_BOMB = re.compile(r"bomb|security (?:limit|violation)|exceeds", re.I)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # around what a password protects
_IMAGE = re.compile(r"\\?!\[([^\[\]\n]*)\]\([^()\n]*\)")
_ESCAPED = re.compile(r"(?<=[^\n\\])\\([!-/:-@\[-`{-~])")

#: Its name, the row of its first row (from 1), and its rows.
Sheet = tuple[str, int, list[list[str]]]


def needs_extra(kind: str) -> str:
    """Why a file of an office format cannot be read here; empty where it can."""
    if find_spec("xberg"):
        return ""
    return f".{kind} needs the extra documents: pip install 'revela-rag[documents]'"


def read_office(data: bytes, *, kind: str) -> Reading:
    r"""A document as Markdown, with ``\f`` between pages or slides where it says where they end.

    Args:
        data: content of the file.
        kind: ``"docx"``, ``"pptx"``, ``"odt"``, ``"rtf"`` or ``"epub"``.

    Raises:
        Unreadable: broken, encrypted, a bomb, or without text.
    """
    found = _extracted(data, kind)
    pages = {page.page_number: _cleaned(page.content) for page in found.pages or []}
    if kind == "pptx":
        pages = _in_order(data, pages)
    parts = [pages.get(number, "") for number in range(1, max(pages) + 1)] if pages else [_cleaned(found.content)]
    text = PAGE_BREAK.join(parts)
    if not text.strip():
        raise Unreadable(f"{kind} file without text")
    return Reading(text, squeeze(clean_text(str(found.metadata.title or ""))))


def read_sheets(data: bytes) -> list[Sheet]:
    """The sheets of a spreadsheet that are shown and hold something.

    Raises:
        Unreadable: broken, encrypted, or a bomb.
    """
    found = _extracted(data, "xlsx")
    shown = first_rows(data)
    sheets = []
    for page in found.pages or []:
        name = page.sheet_name or f"Sheet {page.page_number}"
        first = shown.get(name)
        for table in page.tables if first else ():
            rows = [[clean_text(cell) for cell in row] for row in table.cells]
            sheets.append((name, first or 1, rows))
    return sheets


def _extracted(data: bytes, kind: str) -> Any:
    import asyncio

    import xberg

    if data.startswith(_OLE):
        raise Unreadable(f"encrypted {kind} file")
    config = xberg.ExtractionConfig(
        mime_detection_policy="trust_extension",  # never another parser than the file's name stands for
        use_cache=False,
        enable_quality_processing=False,
        disable_ocr=True,
        output_format="markdown",
        pages=xberg.PageConfig(extract_pages=True),
        security_limits=xberg.SecurityLimits(max_table_cells=_MOST_CELLS),
    )
    given = xberg.ExtractInput(kind="bytes", bytes=data, filename=f"file.{kind}", mime_type=_MIME[kind])
    try:
        made = asyncio.run(xberg.extract(given, config))
    except Exception as error:  # the library's errors share no base class
        raise Unreadable(_reason(str(error), kind)) from error
    if not made.results:
        raise Unreadable(_reason(str(made.errors), kind))
    return made.results[0]


def _reason(message: str, kind: str) -> str:
    if _BOMB.search(message):
        return f"{kind} file that unpacks to more than it may"
    return f"broken {kind} file"


def _cleaned(markdown: str) -> str:
    """Markdown without what its writer adds: escapes, and addresses of pictures, of which the description stays."""
    text = clean_text(markdown).replace("\f", "\n").strip("\n").rstrip()
    pieces, at = [], 0
    for start, end in [*fence_spans(text), (len(text), len(text))]:
        pieces += [_ESCAPED.sub(r"\1", _IMAGE.sub(r"\1", text[at:start])), text[start:end]]
        at = end
    return "".join(pieces)


def _in_order(data: bytes, slides: dict[int, str]) -> dict[int, str]:
    """Slides by their places in the show, with the notes below them; the library numbers them as their files are."""
    notes, places = slide_notes(data), slide_places(data)
    behind = max((place for place, _ in places.values()), default=0)
    made = {}
    for count in sorted(slides):
        place, number = places.get(count, (behind + count, count))
        made[place] = f"{slides[count]}\n\n{notes.get(number, '')}".strip("\n")
    return made
