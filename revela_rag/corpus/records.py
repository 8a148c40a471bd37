"""Records that are documents already: in JSON, YAML, JSON lines, Parquet or BEIR, and objects of other libraries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from revela_rag.corpus.detect import detect_format
from revela_rag.corpus.metadata import plain_metadata
from revela_rag.corpus.nodes import RANDOM_ID, node_origin
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.structured import parse_file
from revela_rag.corpus.tools import definitions, tool_definition, tool_document
from revela_rag.corpus.types import TEXT_FIELDS, Document
from revela_rag.errors import CorpusError, MissingExtraError

__all__ = ["item_documents", "json_documents", "jsonl_documents", "parquet_documents"]

ID_FIELDS = ("id", "_id")
_RECORD = (
    f"JSON object with its text in one of {', '.join(TEXT_FIELDS)}, or a tool with a name and a description or "
    "parameters"
)
_NO_TEXT = f"record without text ({'/'.join(TEXT_FIELDS)})"
_JSON_FILE = 10  # times the largest record: a list of records cannot be streamed
_BLOCK = 1 << 20
_PATH_FIELDS = ("source", "path", "file_path", "file_name", "filename")


def jsonl_documents(path: Path, report: CorpusReport, max_bytes: int) -> Iterator[Document]:
    """Documents of a JSONL file; broken lines are counted with their number.

    Raises:
        CorpusError: if no line of the file is a usable record.
    """
    usable = bad = 0
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file, max_bytes), 1):
            if not line.strip() and len(line) <= max_bytes:
                continue
            documents = _record_line(line, f"{path.name}:{number}", report, max_bytes)
            usable += bool(documents)
            bad += not documents
            yield from documents
    if bad and not usable:
        raise CorpusError(
            f"None of the {bad} lines of {path} is a usable record: {report.skipped_summary()}. Each line must be a "
            f"{_RECORD}."
        )


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The lines of a file; of one that is too large only the beginning, a byte more than is allowed."""
    while line := file.readline(max_bytes + 1):
        yield line
        if len(line) > max_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(_BLOCK)


def json_documents(path: Path, report: CorpusReport, max_bytes: int) -> Iterator[Document]:
    """Documents of a JSON or YAML file: a list of records, or the tools of a catalogue.

    Raises:
        CorpusError: if the file is too large to be read at once, broken, or holds no usable record.
    """
    size, most = path.stat().st_size, _JSON_FILE * max_bytes
    if size > most:
        raise CorpusError(f"{path} has {size:,} bytes, more than {most:,}; write it as JSONL, one record on a line.")
    usable = 0
    for number, record in enumerate(definitions(parse_file(path)), 1):
        where = f"{path.name}:{number}"
        document = _from_mapping(record, where, report) if isinstance(record, Mapping) else None
        if document is None:
            report.skip(_NO_TEXT, where)
        elif len(document.text) > max_bytes:
            report.skip(f"record larger than {max_bytes:,} bytes", where)
        else:
            usable += 1
            yield document
    if not usable:
        raise CorpusError(
            f"{path} holds no usable record{f': {report.skipped_summary()}' if report.skipped else ''}. It must be a "
            f'list of such, tools as agents know them, {{"tools": [...]}}, or an OpenAPI description; each a {_RECORD}.'
        )


def _record_line(line: bytes, where: str, report: CorpusReport, max_bytes: int) -> list[Document]:
    if len(line) > max_bytes:
        report.skip(f"record larger than {max_bytes:,} bytes", where)
        return []
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        report.skip("broken JSON line", where)
        return []
    documents = _from_record(record, where, report) if isinstance(record, Mapping) else []
    if not documents:
        report.skip(_NO_TEXT, where)
    return documents


def _from_record(record: Mapping[str, Any], fallback: str, report: CorpusReport) -> list[Document]:
    """The document that a record is, or else the tools that it lists, as an answer of an MCP server does."""
    document = _from_mapping(record, fallback, report)
    if document is not None:
        return [document]
    return [tool for entry in definitions(record) if isinstance(entry, Mapping) and (tool := tool_document(entry))]


def parquet_documents(path: Path, report: CorpusReport, max_bytes: int) -> Iterator[Document]:
    """Documents of a Parquet file, one per row, columns named as JSONL fields.

    Raises:
        MissingExtraError: without pyarrow.
        CorpusError: if the file is broken, at its beginning or further on, or has no text column.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "reading Parquet files") from error
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
    except Exception as error:  # pyarrow's errors share no base class
        raise CorpusError(f"{path} is not a readable Parquet file: {error}") from error
    if not set(names) & set(TEXT_FIELDS):
        raise CorpusError(
            f"{path} has no text column; it needs one of {', '.join(TEXT_FIELDS)}, found {', '.join(names)}."
        )
    number = 0
    for batch in _batches(file, path):
        for row in _rows(batch):
            number += 1
            where = f"{path.name}:{number}"
            if isinstance(row, Exception):
                report.skip(f"row with a value that cannot be read ({type(row).__name__})", where)
                continue
            document = _from_mapping(row, where, report)
            if document is None:
                report.skip(_NO_TEXT, where)
            elif len(document.text) > max_bytes:
                report.skip(f"record larger than {max_bytes:,} bytes", document.id)
            else:
                yield document


def _batches(file: Any, path: Path) -> Iterator[Any]:
    done, batches = 0, file.iter_batches(batch_size=1024)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            raise CorpusError(
                f"{path} is damaged or cannot be read beyond row {done}: {error}. Write the file again."
            ) from error
        if batch is None:
            return
        yield batch
        done += batch.num_rows


def _rows(batch: Any) -> list[Any]:
    """The rows of a batch, with an error in place of every row that has a value Python cannot hold."""
    try:
        return _in_microseconds(batch).to_pylist()
    except Exception as error:
        if batch.num_rows == 1:
            return [error]
    return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]


def _in_microseconds(batch: Any) -> Any:
    """The same with times to the microsecond: Python's have no nanoseconds."""
    import pyarrow

    fields = []
    for field in batch.schema:
        nanoseconds = pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns"
        fields.append(field.with_type(pyarrow.timestamp("us", field.type.tz)) if nanoseconds else field)
    return pyarrow.Table.from_batches([batch]).cast(pyarrow.schema(fields), safe=False)


def item_documents(items: Iterable[Any], report: CorpusReport, max_bytes: int) -> Iterator[Document]:
    """Documents of an iterable: our own, LangChain's, LlamaIndex' documents and nodes, tools, mappings, strings."""
    for number, item in enumerate(items):
        name = f"item-{number}"
        if isinstance(item, Mapping):
            documents = _from_record(item, name, report)
        else:
            documents = [] if (document := _from_item(item, name, report)) is None else [document]
        if not documents:
            report.skip("item without text", name)
        for document in documents:
            if len(document.text) > max_bytes:
                report.skip(f"record larger than {max_bytes:,} bytes", document.id)
            else:
                yield document


def _from_item(item: Any, fallback: str, report: CorpusReport) -> Document | None:
    if isinstance(item, Document):
        if not item.text.strip() and not item.title.strip():
            return None
        return replace(item, metadata=plain_metadata(item.metadata, report))
    if isinstance(item, str):
        return _document(fallback, item, "", {}) if item.strip() else None
    if hasattr(item, "page_content"):  # LangChain
        name = str(getattr(item, "id", None) or "")
        record = {"text": item.page_content, "id": name, "metadata": item.metadata}
        document = _from_mapping(record, fallback, report, pieces=True)
        return replace(document, origin={"id": name}) if document and name else document
    node = getattr(item, "node", item)  # LlamaIndex, NodeWithScore
    if callable(getattr(node, "get_content", None)):
        return _from_node(node, fallback, report)
    tool = tool_definition(item)
    if tool is not None:
        return tool_document(tool)
    raise CorpusError(
        f"Item {fallback.removeprefix('item-')} is a {type(item).__name__}; expected Document, LangChain Document, "
        "LlamaIndex node, a tool, a mapping with a text field, or str."
    )


def _from_node(node: Any, fallback: str, report: CorpusReport) -> Document | None:
    """A document or node of LlamaIndex, which gives those without an id a random one each time they are read.

    Such a node is named by the document it was cut from, if that has an id of its own, or else by its file and page.
    """
    name = str(getattr(node, "node_id", None) or getattr(node, "id_", None) or "")
    metadata = dict(node.metadata or {})
    random = RANDOM_ID.fullmatch(name) is not None
    if random:
        path = _path(metadata, "file_path", *_PATH_FIELDS)
        page = metadata.get("page_label")
        cut_from = str(getattr(node, "ref_doc_id", None) or "")
        if cut_from and not RANDOM_ID.fullmatch(cut_from):
            name = cut_from
        elif path:
            name = f"{path}#page={page}" if page else path
        if not RANDOM_ID.fullmatch(name):
            metadata = {"source": path or name, **metadata}
    document = _from_mapping({"text": node.get_content(), "id": name, "metadata": metadata}, fallback, report)
    is_piece = random and not RANDOM_ID.fullmatch(name)
    return replace(document, is_piece=is_piece, origin=node_origin(node)) if document else None


def _from_mapping(
    record: Mapping[str, Any], fallback: str, report: CorpusReport, *, pieces: bool = False
) -> Document | None:
    """A record as a document; with ``pieces`` those that only their path names are pieces of what is there."""
    text = next((record[key] for key in TEXT_FIELDS if isinstance(record.get(key), str) and record[key].strip()), "")
    title = record.get("title")
    title = title if isinstance(title, str) else ""
    if not text and (tool := tool_document(record)):
        return tool
    if not text and not title.strip():
        return None
    nested = record.get("metadata")
    given = dict(nested) if isinstance(nested, Mapping) else {"metadata": nested}
    used = {*TEXT_FIELDS, *ID_FIELDS, "title", "metadata"}
    given.update((key, value) for key, value in record.items() if key not in used)
    metadata = plain_metadata(given, report)
    name = next((record[key] for key in ID_FIELDS if record.get(key) not in (None, "")), None)
    path = "" if name is not None else _path(metadata, *_PATH_FIELDS)
    if not title and not isinstance(metadata.get("title"), list):
        title = str(metadata.get("title", ""))
    document = _document(str(name or path or fallback), text, title, metadata)
    return replace(document, is_piece=pieces and bool(path))


def _path(metadata: Mapping[str, Any], *keys: str) -> str:
    """The first of the values under ``keys`` that can name a file, or an empty string."""
    named = (metadata[key] for key in keys if isinstance(metadata.get(key), str | int | float | PurePath))
    return next((str(value) for value in named if value), "")


def _document(name: str, text: str, title: str, metadata: dict[str, Any]) -> Document:
    paths = tuple(str(metadata[key]) for key in _PATH_FIELDS if isinstance(metadata.get(key), str))
    return Document(name, text, title, detect_format(text, (title, *paths, name)), metadata)
