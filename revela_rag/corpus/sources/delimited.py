"""CSV and TSV: every row is a record under the names in the first row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from revela_rag.corpus.formats.encodings import decode, why_not_text
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields, find_fields

__all__ = ["DELIMITED_SUFFIXES", "row_records"]

DELIMITED_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = ",;\t|"
_LETTERS = re.compile(r"[^\W\d_]{2}")


def row_records(data: bytes, suffix: str, fields: Fields) -> Iterator[dict[str, Any]]:
    """The rows of a file as records; one without a text of a known name has all its columns as its text.

    Args:
        data: content of the file.
        suffix: ``".csv"``, whose delimiter is found in its first line, or ``".tsv"``.
        fields: see :class:`~revela_rag.corpus.sources.shapes.Fields`.

    Raises:
        Unreadable: no text, or no table.
    """
    text = decode(data)
    if text is None:
        raise Unreadable(why_not_text(data))
    if not text.strip():
        raise Unreadable("empty file")
    head = text.lstrip("\n").split("\n", 1)[0]
    delimiter = "\t" if suffix == ".tsv" else max(_DELIMITERS, key=head.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = csv.reader((line + "\n" for line in text.split("\n")), delimiter=delimiter)
    try:
        names = [name.strip() or f"column {place}" for place, name in enumerate(next(filter(any, rows), []), 1)]
        for row in rows:
            record: dict[str, Any] = {
                name: value.strip()
                for name, value in zip(names, islice(row, len(names)), strict=False)
                if value.strip()
            }
            if not record:
                continue
            if fields == ANYWHERE and not find_fields(record, fields).text:
                said = "\n".join(f"{name}: {value}" for name, value in record.items())
                record = {**record, "text": said} if any(map(_LETTERS.search, record.values())) else record
            yield record
    except csv.Error as error:
        raise Unreadable(f"broken table ({error})") from error
