"""Files whose records are documents: JSON, YAML, JSON lines, BEIR, CSV and TSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from revela_rag.corpus.formats.readers import read_bytes
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.records import no_text, record_document, record_documents
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields, listed_records
from revela_rag.corpus.sources.structured import YAML_SUFFIXES, parse_file
from revela_rag.corpus.sources.tables import TABLE_SUFFIXES, table_records
from revela_rag.corpus.tools.definitions import definitions
from revela_rag.corpus.types import TEXT_FIELDS, Document
from revela_rag.errors import CorpusError

__all__ = ["JSONL_SUFFIXES", "file_records", "json_documents", "jsonl_documents", "row_documents"]

JSONL_SUFFIXES = (".jsonl", ".ndjson")
_RECORD = (
    f"JSON object with its text in one of {', '.join(TEXT_FIELDS)}, abstract, answer, description, ..., or in the one "
    "that text_field names, or a tool with a name and a description or parameters"
)
_JSON_FILE = 10  # times the largest record: a list of records cannot be streamed
_BLOCK = 1 << 20


def jsonl_documents(path: Path, report: CorpusReport, max_bytes: int, fields: Fields = ANYWHERE) -> Iterator[Document]:
    """Documents of a JSONL file; broken lines are counted with their number.

    Raises:
        CorpusError: if no line of the file is a usable record.
    """
    usable = bad = 0
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file, max_bytes), 1):
            if not line.strip() and len(line) <= max_bytes:
                continue
            documents = _record_line(line, f"{path.name}:{number}", report, max_bytes, fields)
            usable += bool(documents)
            bad += not documents
            yield from documents
    if bad and not usable:
        raise CorpusError(
            f"None of the {bad} lines of {path} is a usable record: {report.skipped_summary()}. Each line must be a "
            f"{_RECORD}."
        )


def row_documents(path: Path, report: CorpusReport, max_bytes: int, fields: Fields = ANYWHERE) -> Iterator[Document]:
    """Documents of a CSV, TSV or XLSX file, one for each row, and the cards of its tables.

    Raises:
        CorpusError: if the file is too large to be read at once, broken, or holds no usable row.
    """
    size, most = path.stat().st_size, _JSON_FILE * max_bytes
    if size > most:
        raise CorpusError(f"{path} has {size:,} bytes, more than {most:,}; split it into several files.")
    usable = 0
    try:
        for place, record in table_records(path.read_bytes(), path.name, fields):
            document = record_document(record, f"{path.name}:{place}", report, fields)
            if document is None:
                report.skip(no_text(record, fields), f"{path.name}:{place}")
            else:
                usable += 1
                yield document
    except Unreadable as reason:
        raise CorpusError(f"{path} cannot be read as a table: {reason}.") from reason
    if not usable:
        raise CorpusError(f"{path} holds no row with text{f': {report.skipped_summary()}' if report.skipped else ''}.")


def file_records(path: Path, name: str, report: CorpusReport, max_bytes: int, fields: Fields) -> Iterator[Document]:
    """Documents of a JSONL, CSV, TSV or XLSX file in a folder, named by the file and their id or their place in it.

    Raises:
        Unreadable: none of its records has a text; the message is the reason.
        OSError: it cannot be read this time.
    """
    inner = CorpusReport()
    usable = 0
    for inside, record in _records_of(path, max_bytes, fields):
        place = f"{name}#{inside}"
        if not isinstance(record, Mapping):
            inner.skip(record, place)
            continue
        documents = record_documents(record, inside, report, fields)
        if not documents:
            inner.skip(no_text(record, fields), place)
        for document in documents:
            usable += 1
            yield replace(document, id=f"{name}#{document.id}", metadata={"source": name, **document.metadata})
    if inner.skipped and not usable:
        raise Unreadable(max(inner.skipped, key=lambda reason: len(inner.skipped[reason])))
    for reason, places in inner.skipped.items():
        for place in places:
            report.skip(reason, place)


def json_documents(path: Path, report: CorpusReport, max_bytes: int, fields: Fields = ANYWHERE) -> Iterator[Document]:
    """Documents of a JSON or YAML file: a list of records, the tools of a catalogue, or YAML that configures something.

    Raises:
        CorpusError: if the file is too large to be read at once, broken, or holds no usable record.
    """
    size, most = path.stat().st_size, _JSON_FILE * max_bytes
    if size > most:
        raise CorpusError(f"{path} has {size:,} bytes, more than {most:,}; write it as JSONL, one record on a line.")
    usable, inner = 0, CorpusReport()
    value = parse_file(path)
    for number, record in enumerate(definitions(listed_records(value)), 1):
        where = f"{path.name}:{number}"
        document = record_document(record, where, report, fields) if isinstance(record, Mapping) else None
        if document is None:
            inner.skip(no_text(record, fields), where)
        elif len(document.text) > max_bytes:
            inner.skip(f"record larger than {max_bytes:,} bytes", where)
        else:
            usable += 1
            yield document
    if not usable and value and isinstance(value, Mapping) and path.suffix.lower() in YAML_SUFFIXES:
        yield read_bytes(path.read_bytes(), path.name)
        return
    for reason, places in inner.skipped.items():
        for place in places:
            report.skip(reason, place)
    if not usable:
        raise CorpusError(
            f"{path} holds no usable record{f': {report.skipped_summary()}' if report.skipped else ''}. It must be a "
            f'list of such, tools as agents know them, {{"tools": [...]}}, or an OpenAPI description; each a {_RECORD}.'
        )


def _records_of(path: Path, max_bytes: int, fields: Fields) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """The records of a file with their places, and why one cannot be read in its place."""
    if path.suffix.lower() in TABLE_SUFFIXES:
        yield from table_records(path.read_bytes(), path.name, fields)
        return
    count = 0
    with path.open("rb") as file:
        for line in _lines(file, max_bytes):
            if line.strip():
                count += 1
                yield str(count), _record(line, max_bytes, fields)


def _record(line: bytes, max_bytes: int, fields: Fields) -> Mapping[str, Any] | str:
    if len(line) > max_bytes:
        return f"record larger than {max_bytes:,} bytes"
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return "broken JSON line"
    return record if isinstance(record, Mapping) else no_text(record, fields)


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The lines of a file; of one that is too large only the beginning, a byte more than is allowed."""
    while line := file.readline(max_bytes + 1):
        yield line
        if len(line) > max_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(_BLOCK)


def _record_line(line: bytes, where: str, report: CorpusReport, max_bytes: int, fields: Fields) -> list[Document]:
    if len(line) > max_bytes:
        report.skip(f"record larger than {max_bytes:,} bytes", where)
        return []
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        report.skip("broken JSON line", where)
        return []
    documents = record_documents(record, where, report, fields) if isinstance(record, Mapping) else []
    if not documents:
        report.skip(no_text(record, fields), where)
    return documents
