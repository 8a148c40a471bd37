"""Tables of files: every row is a record under the names of the columns, and a card says what the table holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any

from revela_rag.corpus.formats.documents.office import needs_extra
from revela_rag.corpus.formats.guard import guarded
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.metadata import MOST_VALUES
from revela_rag.corpus.sources.delimited import DELIMITED_SUFFIXES, delimited_rows
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields, find_fields
from revela_rag.corpus.types import TEXT_FIELDS

__all__ = ["TABLE_SUFFIXES", "table_records"]

TABLE_SUFFIXES = (*DELIMITED_SUFFIXES, ".xlsx")
_LETTERS = re.compile(r"[^\W\d_]{2}")
_NUMBER = re.compile(r"[-+]?(?:[.,' ]*+\d++)++[.,]*+(?:[eE][-+]?\d++)?\s?%?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?:[T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}")
_TRUTH = frozenset({"true", "false", "yes", "no"})
_SURE = frozenset(form for name in TEXT_FIELDS for form in (name, name.title(), name.upper()))
_FEWEST_WORDS = 3  # of a column whose name may stand for a text
_SAMPLE = 1000  # rows from which the types of columns are told
_EXAMPLES, _EXAMPLE = 5, 40  # values of a column on the card, and their characters


@dataclass(slots=True)
class _Table:
    """Rows with their numbers as a spreadsheet counts them; those of a sheet have its name in their ids."""

    name: str
    rows: Iterable[tuple[int, list[str]]]
    is_sheet: bool = False


def table_records(data: bytes, file: str, fields: Fields) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file's tables as records with their places in the file, behind the card of each table.

    A row without a text of a known name has all its columns as its text, and table, row and columns beside it. Only
    tables of such rows have a card.

    Args:
        data: content of the file.
        file: its name, whose end is one of :data:`TABLE_SUFFIXES`.
        fields: see :class:`~revela_rag.corpus.sources.shapes.Fields`.

    Raises:
        Unreadable: no text, or no table.
    """
    for table in _tables(data, PurePosixPath(file)):
        rows = ((number, [cell.strip() for cell in row]) for number, row in table.rows)
        named = next(((number, row) for number, row in rows if any(row)), None)
        if named is None:
            continue
        names = [name or f"column {place}" for place, name in enumerate(named[1], 1)]
        filled = ((number, dict(_cells(names, row))) for number, row in rows if any(row[: len(names)]))
        sample = list(islice(filled, _SAMPLE))
        is_plain = fields == ANYWHERE and any(_says_all(record) for _, record in sample)
        if is_plain:
            yield table.name if table.is_sheet else "table", _card(table.name, names, [record for _, record in sample])
        for count, (number, record) in enumerate(chain(sample, filled), 1):
            place = f"{table.name}!{number}" if table.is_sheet else str(count)
            if is_plain and _says_all(record):
                said = "\n".join(f"{name}: {value}" for name, value in record.items())
                where: dict[str, Any] = {"table": table.name, "row": number, "columns": list(record)[:MOST_VALUES]}
                record = {**where, **record, "text": said}
            yield place, record


def _tables(data: bytes, file: PurePosixPath) -> Iterator[_Table]:
    if file.suffix.lower() in DELIMITED_SUFFIXES:
        yield _Table(file.stem, enumerate(delimited_rows(data, file.suffix.lower()), 1))
        return
    if reason := needs_extra("xlsx"):
        raise Unreadable(reason)
    sheets = guarded("sheets", data)
    if not sheets:
        raise Unreadable("spreadsheet without text")
    for name, first, rows in sheets:
        yield _Table(name, enumerate(rows, first), is_sheet=True)


def _cells(names: list[str], row: list[str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in zip(names, row, strict=False) if value)


def _says_all(record: dict[str, Any]) -> bool:
    """Whether no column is the text, so that all are: an article with a price is no text."""
    found = find_fields(record, ANYWHERE)
    is_text = bool(found.text) and (
        bool(found.title) or not found.used.isdisjoint(_SURE) or len(found.text.split()) >= _FEWEST_WORDS
    )
    return not is_text and any(map(_LETTERS.search, record.values()))


def _card(name: str, names: list[str], sample: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [f"Table {name} with the columns:"]
    for column in names:
        values = list(dict.fromkeys(record[column] for record in sample if column in record))
        shown = [value if len(value) <= _EXAMPLE else f"{value[:_EXAMPLE]}..." for value in values[:_EXAMPLES]]
        more = ", ..." if len(values) > _EXAMPLES else ""
        lines.append(f"- {column} ({_type(values)}): {', '.join(shown)}{more}" if values else f"- {column} (empty)")
    return {"title": name, "text": "\n".join(lines), "table": name, "columns": names[:MOST_VALUES]}


def _type(values: list[str]) -> str:
    if all(map(_NUMBER.fullmatch, values)):
        return "number"
    if all(map(_DATE.fullmatch, values)):
        return "date"
    return "yes or no" if all(value.lower() in _TRUTH for value in values) else "text"
