"""Documents of an iterable: our own, those of other libraries, tools, mappings, strings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from revela_rag.corpus.metadata import plain_metadata
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.nodes import RANDOM_ID, node_origin
from revela_rag.corpus.sources.records import (
    PATH_FIELDS,
    no_text,
    path_in,
    record_document,
    record_documents,
    text_document,
)
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields
from revela_rag.corpus.tools.definitions import tool_definition, tool_document
from revela_rag.corpus.types import Document
from revela_rag.errors import CorpusError

__all__ = ["item_documents"]


def item_documents(
    items: Iterable[Any], report: CorpusReport, max_bytes: int, fields: Fields = ANYWHERE
) -> Iterator[Document]:
    """Documents of an iterable: our own, LangChain's, LlamaIndex' documents and nodes, tools, mappings, strings."""
    for number, item in enumerate(items):
        name = f"item-{number}"
        if isinstance(item, Mapping):
            documents = record_documents(item, name, report, fields)
        else:
            documents = [] if (document := _from_item(item, name, report)) is None else [document]
        if not documents:
            report.skip(no_text(item, fields) if isinstance(item, Mapping) else "item without text", name)
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
        return text_document(fallback, item, "", {}) if item.strip() else None
    if hasattr(item, "page_content"):  # LangChain
        name = str(getattr(item, "id", None) or "")
        record = {"text": item.page_content, "id": name, "metadata": item.metadata}
        document = record_document(record, fallback, report, pieces=True)
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
        path = path_in(metadata, "file_path", *PATH_FIELDS)
        page = metadata.get("page_label")
        cut_from = str(getattr(node, "ref_doc_id", None) or "")
        if cut_from and not RANDOM_ID.fullmatch(cut_from):
            name = cut_from
        elif path:
            name = f"{path}#page={page}" if page else path
        if not RANDOM_ID.fullmatch(name):
            metadata = {"source": path or name, **metadata}
    document = record_document({"text": node.get_content(), "id": name, "metadata": metadata}, fallback, report)
    is_piece = random and not RANDOM_ID.fullmatch(name)
    return replace(document, is_piece=is_piece, origin=node_origin(node)) if document else None
