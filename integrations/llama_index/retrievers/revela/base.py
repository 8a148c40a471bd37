"""A LlamaIndex retriever over an index of revela-rag."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from revela_rag.encoder import Encoder
from revela_rag.index import Hit, Index

__all__ = ["RevelaRetriever"]


class RevelaRetriever(BaseRetriever):
    """Finds the chunks of an index that answer a query; works over both stores, FAISS and Chroma.

    A node's id is the chunk's, its source node the document, its score the cosine (for dense search). The
    embedding of a query bundle, or its ``custom_embedding_strs`` (as HyDE sets them), are used where given.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one.
        model: model the queries are encoded with, when ``index`` is a directory; default: the one it was
            built with.
        similarity_top_k: how many nodes to return.
        mode: ``"dense"`` (cosine), ``"lexical"`` (BM25) or ``"hybrid"`` (both, fused by rank).
        filters: equalities joined by ``and``; applied before the best nodes are taken.
        kwargs: what every LlamaIndex retriever takes, such as ``callback_manager``.

    Raises:
        IndexingError: there is no index there, or it is damaged.
        IndexMismatchError: the index was built with another model than ``model``.
        ValueError: ``similarity_top_k``, ``mode`` or ``filters`` is something else than the above.

    Example:
        >>> from llama_index.retrievers.revela import RevelaRetriever
        >>> retriever = RevelaRetriever("my-index", similarity_top_k=3)  # doctest: +SKIP
        >>> RetrieverQueryEngine.from_args(retriever, llm=llm).query("what does it?")  # doctest: +SKIP
    """

    def __init__(
        self,
        index: Index | str | Path,
        *,
        model: str | Path | Encoder | None = None,
        similarity_top_k: int = 5,
        mode: Literal["dense", "lexical", "hybrid"] = "dense",
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> None:
        if similarity_top_k < 1:
            raise ValueError(f"similarity_top_k is {similarity_top_k}; it must be at least 1")
        if mode not in ("dense", "lexical", "hybrid"):
            raise ValueError(f"mode is {mode!r}; it is one of 'dense', 'lexical' and 'hybrid'")
        super().__init__(**kwargs)
        self.similarity_top_k = similarity_top_k
        self.mode = mode
        self.filters = filters
        self._filter = None if filters is None else _equalities(filters)
        self.index = _open(index, model)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [to_node(hit) for hit in self._search(query_bundle)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _search(self, query: QueryBundle) -> list[Hit]:
        if self.mode == "dense":
            vector = self._query_vector(query)
            if vector is not None:
                return self.index.search_vector(vector, k=self.similarity_top_k, filter=self._filter)
        return self.index.search(query.query_str, k=self.similarity_top_k, filter=self._filter, mode=self.mode)

    def _query_vector(self, query: QueryBundle) -> np.ndarray | None:
        """The unit vector the bundle brings or asks for, or None where the query string is to be embedded."""
        if query.embedding is not None:
            vector = np.asarray(query.embedding, dtype=np.float32)
        elif query.custom_embedding_strs:
            vector = self.index.encoder.encode_queries(query.custom_embedding_strs).mean(axis=0)
        else:
            return None
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _open(index: Index | str | Path, model: str | Path | Encoder | None) -> Index:
    if isinstance(index, Index):
        if model is not None:
            raise ValueError("model is for an index given as a directory; this one is open and has its encoder")
        return index
    encoder = model if model is None or isinstance(model, Encoder) else Encoder(model)
    return Index.open(index, encoder=encoder)


def _equalities(filters: MetadataFilters) -> dict[str, Any]:
    """Filters as the mapping an index takes: equality alone, so anything else is refused, not dropped."""
    alone = len(filters.filters) < 2
    if filters.condition is FilterCondition.NOT or (filters.condition is FilterCondition.OR and not alone):
        raise ValueError(
            f"filters are joined by {filters.condition.value!r}; an index takes equalities joined by 'and'"
        )
    equalities: dict[str, Any] = {}
    for item in filters.filters:
        if isinstance(item, MetadataFilter):
            if item.operator is not FilterOperator.EQ:
                raise ValueError(f"the filter on {item.key!r} uses {item.operator.value!r}; an index takes '==' alone")
            found = {item.key: item.value}
        else:
            found = _equalities(item)
        for key, value in found.items():
            if equalities.setdefault(key, value) != value:
                raise ValueError(f"filters ask that {key!r} be {equalities[key]!r} and {value!r} at once")
    return equalities


def to_node(hit: Hit) -> NodeWithScore:
    """A search hit as a LlamaIndex node."""
    chunk = hit.chunk
    metadata = {"source": chunk.document_id, **chunk.metadata}
    metadata |= {"document_id": chunk.document_id, "kind": chunk.kind}
    if chunk.title:
        metadata["title"] = chunk.title
    hidden = [key for key in metadata if key not in ("source", "title")]
    node = TextNode(
        id_=chunk.id,
        text=chunk.text,
        metadata=metadata,
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=hidden,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id)},
    )
    return NodeWithScore(node=node, score=hit.score)
