"""What LlamaIndex asks of a vector store, asked of an index."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import ImageDocument, ImageNode, IndexNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from llama_index.retrievers.revela.filters import to_filter
from llama_index.vector_stores.revela.vectors import query_vector
from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.stored import refuse_unknown
from revela_rag.index.types import check_k
from revela_rag.parts import MMR

__all__ = ["matching", "search"]

logger = logging.getLogger(__name__)

_MODES: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.MMR: "dense",
    VectorStoreQueryMode.SPARSE: "lexical",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
}
#: What ``VectorStoreIndex`` keeps in its own lists though a store has it, and passes as ``node_ids`` of every query.
_LISTED = tuple(kind.class_name() for kind in (ImageDocument, ImageNode, IndexNode))


def search(index: Index, query: VectorStoreQuery, options: Mapping[str, Any]) -> list[Hit]:
    """Hits for a query that has a text or an embedding.

    Args:
        index: what to search.
        query: what to ask.
        options: the keyword arguments of ``RevelaVectorStore.query``.
    """
    diverse = query.mode == VectorStoreQueryMode.MMR
    refuse_unknown(options, known=("mmr_threshold", "mmr_prefetch_k") if diverse else ())
    mode = _mode(query)
    k = _count(query, mode)
    what: dict[str, Any] = {"k": k, "filter": _filter(index, query)}
    text = query.query_str or ""
    if mode == "lexical":
        return index.search(text, mode=mode, **what)
    vector = query_vector(index, query)
    if not diverse:
        return index.search(text, mode=mode, vector=vector, **what)
    balance = options.get("mmr_threshold", query.mmr_threshold)
    candidates = options.get("mmr_prefetch_k") or max(20, 4 * k)
    select = MMR(balance=0.5 if balance is None else balance, candidates=max(k, candidates))
    return index.search(text, mode="dense", vector=vector, select=select, **what)


def matching(index: Index, query: VectorStoreQuery) -> list[Chunk]:
    """The first chunks that a query without text and embedding allows."""
    return index.get(filter=_filter(index, query))[: _count(query, _mode(query))]


def _mode(query: VectorStoreQuery) -> Mode:
    mode = _MODES.get(query.mode)
    if mode is None:
        raise IndexingError(
            f"mode={getattr(query.mode, 'value', query.mode)!r} is not one of "
            f"{', '.join(repr(known.value) for known in _MODES)}."
        )
    if mode != "hybrid" or query.alpha is None:
        return mode
    if query.alpha in (0, 1):
        return "dense" if query.alpha else "lexical"
    logger.warning(
        "alpha=%s is passed over: a hybrid search weighs cosines and words by how sure each is.", query.alpha
    )
    return mode


def _count(query: VectorStoreQuery, mode: Mode) -> int:
    k = {"hybrid": query.hybrid_top_k, "lexical": query.sparse_top_k}.get(mode) or query.similarity_top_k
    check_k(k, "similarity_top_k")
    return k


def _filter(index: Index, query: VectorStoreQuery) -> dict[str, Any] | None:
    parts = [to_filter(query.filters)]
    if query.doc_ids:
        parts.append({"$document": list(query.doc_ids)})
    if query.node_ids:
        kinds = {chunk.origin.get("node", {}).get("type") for chunk in index.get(query.node_ids)}
        if not kinds or kinds - set(_LISTED):
            parts.append({"$id": list(query.node_ids)})
    some = [part for part in parts if part]
    return {"$and": some} if some else None
