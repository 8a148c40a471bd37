r"""Office documents and books to Markdown with their pages or slides, and spreadsheets to rows."""

from __future__ import annotations

import io
import re
import zipfile
from importlib.util import find_spec
from typing import Any

from revela_rag.corpus.formats.reading import PAGE_BREAK, Reading
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
_SPREADSHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_NOTES = re.compile(rb"slides/slide(\d+)\.xml")
_SMALL_PART = 1_000_000  # bytes of an entry that is read beside the library

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
    for page in found.pages or []:
        if page.speaker_notes:
            number = _slide_of_notes(data, page.page_number)
            pages[number] = f"{pages.get(number, '')}\n\n{_cleaned(page.speaker_notes)}".strip("\n")
    text = (
        PAGE_BREAK.join(pages.get(number, "") for number in range(1, max(pages) + 1))
        if pages
        else _cleaned(found.content)
    )
    if not text.strip():
        raise Unreadable(f"{kind} file without text")
    return Reading(text, squeeze(clean_text(str(found.metadata.title or ""))))


def read_sheets(data: bytes) -> list[Sheet]:
    """The sheets of a spreadsheet that are shown and hold something.

    Raises:
        Unreadable: broken, encrypted, or a bomb.
    """
    found = _extracted(data, "xlsx")
    shown = _shown_sheets(data)
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


def _slide_of_notes(data: bytes, number: int) -> int:
    """The slide that the notes of some number belong to: the library takes them for those of the slide so numbered."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = _NOTES.search(_entry(archive, f"ppt/notesSlides/_rels/notesSlide{number}.xml.rels"))
    return int(found.group(1)) if found else number


def _shown_sheets(data: bytes) -> dict[str, int]:
    """Sheets that are not hidden, and the first row of each that holds something: the library counts from there."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    shown = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        book = _entry(archive, "xl/workbook.xml")
        relations = _entry(archive, "xl/_rels/workbook.xml.rels")
        try:
            targets = {entry.get("Id"): entry.get("Target", "") for entry in etree.fromstring(relations, parser)}
            for sheet in etree.fromstring(book, parser).iter(f"{_SPREADSHEET}sheet"):
                if sheet.get("state") in ("hidden", "veryHidden"):
                    continue
                target = targets.get(sheet.get(_RELATION), "")
                part = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
                shown[sheet.get("name", "")] = _first_row(archive, part)
        except etree.XMLSyntaxError as error:
            raise Unreadable("broken xlsx file") from error
    return shown


def _first_row(archive: zipfile.ZipFile, part: str) -> int:
    from lxml import etree

    number = 0
    try:
        with archive.open(part) as file:
            for _, row in etree.iterparse(file, tag=f"{_SPREADSHEET}row", resolve_entities=False, no_network=True):
                number = int(row.get("r") or number + 1)
                if any(len(cell) for cell in row):
                    return number
                row.clear()
    except (KeyError, ValueError, etree.XMLSyntaxError):
        return 1
    return 1


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as file:
            return file.read(_SMALL_PART)
    except (KeyError, zipfile.BadZipFile):
        return b""
