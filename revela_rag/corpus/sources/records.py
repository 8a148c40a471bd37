"""Records as documents: mappings with a text where common systems have it, and definitions of tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from revela_rag.corpus.code.detect import detect_format
from revela_rag.corpus.metadata import plain_metadata
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields, find_fields, named
from revela_rag.corpus.tools.definitions import definitions, is_tool, tool_document
from revela_rag.corpus.types import TEXT_FIELDS, Document

__all__ = ["PATH_FIELDS", "no_text", "path_in", "record_document", "record_documents", "text_document"]

PATH_FIELDS = ("source", "path", "file_path", "file_name", "filename")


def record_documents(record: Mapping[str, Any], fallback: str, report: CorpusReport, fields: Fields) -> list[Document]:
    """The document that a record is, or else the tools that it lists, as an answer of an MCP server does."""
    document = record_document(record, fallback, report, fields)
    if document is not None:
        return [document]
    return [tool for entry in definitions(record) if isinstance(entry, Mapping) and (tool := tool_document(entry))]


def record_document(
    record: Mapping[str, Any], fallback: str, report: CorpusReport, fields: Fields = ANYWHERE, *, pieces: bool = False
) -> Document | None:
    """A record as a document; with ``pieces`` those that only their path names are pieces of what is there."""
    direct = any(isinstance(record.get(key), str) and record[key].strip() for key in TEXT_FIELDS)
    if not direct and fields.text is None and is_tool(record) and (tool := tool_document(record)):
        return tool
    found = find_fields(record, fields)
    if not found.text and (fields.text or not found.title):
        return None
    nested = record.get("metadata")
    given = dict(nested) if isinstance(nested, Mapping) else {"metadata": nested}
    used = {*found.used, *(() if fields.text else TEXT_FIELDS), "metadata"}
    given.update((key, value) for key, value in record.items() if key not in used)
    metadata = plain_metadata(given, report)
    name = found.id if found.id not in (None, "") else None
    path = "" if name is not None else path_in(metadata, *PATH_FIELDS)
    title = found.title
    if not title and not isinstance(metadata.get("title"), list | dict):
        title = str(metadata.get("title", ""))
    document = text_document(
        str(path or found.later_id or fallback if name is None else name), found.text, title, metadata
    )
    return replace(document, is_piece=pieces and bool(path))


def no_text(record: Any, fields: Fields) -> str:
    """Why a record is no document, with what it has."""
    if not isinstance(record, Mapping):
        return f"record that is a {type(record).__name__}, not an object"
    wanted = "text" if fields.text is None else repr(fields.text)
    remedy = "; text_field names the one with the text" if fields.text is None else ""
    return f"record without {wanted} (its fields: {named(record)}{remedy})"


def path_in(metadata: Mapping[str, Any], *keys: str) -> str:
    """The first of the values under ``keys`` that can name a file, or an empty string."""
    named = (metadata[key] for key in keys if isinstance(metadata.get(key), str | int | float | PurePath))
    return next((str(value) for value in named if value), "")


def text_document(name: str, text: str, title: str, metadata: dict[str, Any]) -> Document:
    """A text as a document, in the format that it looks like or that its names say."""
    paths = tuple(str(metadata[key]) for key in PATH_FIELDS if isinstance(metadata.get(key), str))
    return Document(name, text, title, detect_format(text, (title, *paths, name)), metadata)
