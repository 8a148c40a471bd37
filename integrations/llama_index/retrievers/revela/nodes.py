"""LlamaIndex nodes of chunks, and chunks of nodes that are stored whole."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    Node,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.nodes import node_origin
from revela_rag.corpus.types import Chunk
from revela_rag.index import Hit
from revela_rag.index.stored import kept_metadata

__all__ = ["to_chunks", "to_nodes", "to_scored_nodes"]

logger = logging.getLogger(__name__)

_COMPUTED = ("start_line", "end_line", "language", "symbol")  # of what `load_corpus` reads from files
_SHOWN = ("source", "title")
_CLASSES: tuple[type[BaseNode], ...] = (ImageDocument, Document, ImageNode, IndexNode, Node, TextNode)
_KINDS = {kind.class_name(): kind for kind in _CLASSES}
_ELSEWHERE = {  # of a node, what a chunk or its origin holds already
    *("id_", "embedding", "metadata", "text", "text_resource", "relationships"),
    *("excluded_llm_metadata_keys", "excluded_embed_metadata_keys"),
}


def to_chunks(nodes: Iterable[BaseNode]) -> list[Chunk]:
    """A chunk for each node, whole, under its id. Metadata that JSON cannot hold is left out with a warning."""
    report, places = CorpusReport(), Counter[str]()
    chunks = []
    for node in nodes:
        document = node.ref_doc_id or node.node_id
        kind = next((name for name, known in _KINDS.items() if isinstance(node, known)), "TextNode")
        fields = node.model_dump(mode="json", exclude=_ELSEWHERE, exclude_defaults=True)
        kept = {name: value for name, value in fields.items() if name not in (*_ELSEWHERE, "class_name")}
        chunk = Chunk(
            id=node.node_id,
            text=node.get_content(),
            document_id=document,
            position=places[document],
            metadata=kept_metadata(node.metadata, report),
            origin={"id": node.node_id, "node": {**node_origin(node)["node"], "type": kind, "fields": kept}},
        )
        places[document] += 1
        chunks.append(chunk)
    if report.left_out:
        logger.warning("Metadata that JSON cannot hold was left out: %s.", report.left_out_summary("nodes"))
    return chunks


def to_scored_nodes(hits: Sequence[Hit], *, as_given: bool = False) -> list[NodeWithScore]:
    """Search hits as nodes, see :func:`to_nodes`; scores are cosines, of lexical searches BM25."""
    nodes = to_nodes([hit.chunk for hit in hits], as_given=as_given)
    scores = [hit.score if hit.cosine is None else hit.cosine for hit in hits]
    return [NodeWithScore(node=node, score=score) for node, score in zip(nodes, scores, strict=True)]


def to_nodes(chunks: Iterable[Chunk], *, as_given: bool = False) -> list[BaseNode]:
    """Chunks as nodes. Of several under one id it is only the first that has it.

    Args:
        chunks: found.
        as_given: whether nodes that were stored whole come without what is computed (``source`` and the like).
    """
    named: dict[str, Chunk] = {}
    for chunk in chunks:
        given = chunk.origin.get("id", chunk.id)
        named[chunk.id if given in named else given] = chunk
    return [_node(id_, chunk, as_given=as_given) for id_, chunk in named.items()]


def _node(id_: str, chunk: Chunk, *, as_given: bool) -> BaseNode:
    given = chunk.origin.get("node")
    exact = as_given and given is not None and "type" in given
    computed: dict[str, Any] = {}
    if not exact:
        computed = {"source": chunk.document_id, "document_id": chunk.document_id, "kind": chunk.kind}
        if chunk.title:
            computed["title"] = chunk.title
    metadata = computed | dict(chunk.metadata)
    if given is None:
        hidden = [key for key in metadata if key in _COMPUTED or key not in (*chunk.metadata, *_SHOWN)]
        given = {}
    else:
        keys = given.get("keys", ())
        hidden = [key for key in metadata if key not in (*keys, "title")]
        # in the order in which the LLM and the embedding would have read them
        metadata = {key: metadata[key] for key in (*hidden, "title", *keys) if key in metadata}
    source = {} if exact else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id)}
    own = {NodeRelationship(kind): _related(info) for kind, info in given.get("relationships", {}).items()}
    fields: dict[str, Any] = {
        "id_": id_,
        "metadata": metadata,
        "excluded_llm_metadata_keys": [*given.get("excluded_llm_metadata_keys", ()), *hidden],
        "excluded_embed_metadata_keys": [*given.get("excluded_embed_metadata_keys", ()), *hidden],
        "relationships": source | own,
    }
    node = _KINDS.get(given.get("type", ""), TextNode).from_dict({**given.get("fields", {}), **fields})
    if chunk.text:
        node.set_content(chunk.text)
    return node


def _related(info: Any) -> Any:
    return [RelatedNodeInfo(**one) for one in info] if isinstance(info, list) else RelatedNodeInfo(**info)
