"""What the library for office documents does not say: the order of slides, whose notes are whose, rows of sheets."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from typing import Any

from revela_rag.corpus.text import clean_text

__all__ = ["first_rows", "slide_notes", "slide_places"]

_SPREADSHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_PRESENTATION = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml")
_NOTES = re.compile(r"ppt/notesSlides/notesSlide\d+\.xml")
_SMALL_PART = 2_000_000  # bytes of a part; of one that has more nothing is said


def slide_places(data: bytes) -> dict[int, tuple[int, int]]:
    """Of the slides as the library numbers them, in the order of their files: place in the show, number of the file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        targets = _targets(archive, "ppt/presentation.xml")
        book = _parsed(archive, "ppt/presentation.xml")
    shown = [] if book is None else [targets.get(slide.get(_ID), "") for slide in book.iter(f"{_PRESENTATION}sldId")]
    numbers = {part: int(found.group(1)) for part in targets.values() if (found := _SLIDE.fullmatch(part))}
    files = sorted(numbers, key=lambda part: numbers[part])
    return {count: (shown.index(part) + 1, numbers[part]) for count, part in enumerate(files, 1) if part in shown}


def slide_notes(data: bytes) -> dict[int, str]:
    """What the speaker notes below slides, by the numbers of the slides' files."""
    notes = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for part in filter(_NOTES.fullmatch, archive.namelist()):
            slide = next(filter(None, map(_SLIDE.fullmatch, _targets(archive, part).values())), None)
            tree = _parsed(archive, part)
            if slide is None or tree is None:
                continue
            said = [
                "".join(text.text or "" for text in paragraph.iter(f"{_DRAWING}t"))
                for shape in tree.iter(f"{_PRESENTATION}sp")
                if any(kind.get("type") == "body" for kind in shape.iter(f"{_PRESENTATION}ph"))
                for paragraph in shape.iter(f"{_DRAWING}p")
            ]
            notes[int(slide.group(1))] = clean_text("\n".join(filter(str.strip, said))).replace("\f", "\n")
    return notes


def first_rows(data: bytes) -> dict[str, int]:
    """Sheets that are not hidden, and the first row of each that holds something: the library counts from there."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        targets = _targets(archive, "xl/workbook.xml")
        book = _parsed(archive, "xl/workbook.xml")
        return {
            sheet.get("name", ""): _first_row(archive, targets.get(sheet.get(_ID), ""))
            for sheet in (() if book is None else book.iter(f"{_SPREADSHEET}sheet"))
            if sheet.get("state") not in ("hidden", "veryHidden")
        }


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


def _targets(archive: zipfile.ZipFile, part: str) -> dict[str, str]:
    """The parts that a part names, by the ids it names them with."""
    folder, name = posixpath.split(part)
    tree = _parsed(archive, f"{folder}/_rels/{name}.rels")
    entries = [] if tree is None else [(entry.get("Id", ""), entry.get("Target", "")) for entry in tree]
    return {key: posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/") for key, target in entries}


def _parsed(archive: zipfile.ZipFile, part: str) -> Any:
    """The tree of a part, None where there is none to be had."""
    from lxml import etree

    try:
        with archive.open(part) as file:
            content = file.read(_SMALL_PART + 1)
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        return etree.fromstring(content, parser) if len(content) <= _SMALL_PART else None
    except (KeyError, zipfile.BadZipFile, etree.XMLSyntaxError):
        return None
