"""CSV and TSV to rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from revela_rag.corpus.formats.encodings import decode, why_not_text
from revela_rag.corpus.formats.unreadable import Unreadable

__all__ = ["DELIMITED_SUFFIXES", "delimited_rows"]

DELIMITED_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = ",;\t|"


def delimited_rows(data: bytes, suffix: str) -> Iterator[list[str]]:
    """The rows of a file.

    Args:
        data: content of the file.
        suffix: ``".csv"``, whose delimiter is found in its first line, or ``".tsv"``.

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
    try:
        yield from csv.reader((line + "\n" for line in text.split("\n")), delimiter=delimiter)
    except csv.Error as error:
        raise Unreadable(f"broken table ({error})") from error
