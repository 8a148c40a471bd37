"""A LlamaIndex retriever over an index of revela-rag."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.types import check_mode
from revela_rag.model.encoder import Encoder

__all__ = ["RevelaRetriever"]

# a list in an index equals each of its values
_EQUALS = (FilterOperator.EQ, FilterOperator.CONTAINS)
_ANY_OF = (FilterOperator.IN, FilterOperator.ANY)


class RevelaRetriever(BaseRetriever):
    """Finds the chunks of an index that answer a query; works over both stores, FAISS and Chroma.

    A node's id is the chunk's, its source node the document. Its metadata are the document's own and, under names that
    these leave free, ``source``, ``document_id``, ``kind`` and ``title``. What its score is in each mode says
    :class:`revela_rag.index.Hit`; for a cutoff (``SimilarityPostprocessor``) take ``mode="dense"``, whose scores are
    cosines. The embedding of a query bundle, or its ``custom_embedding_strs`` (as HyDE sets them), is used where given.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one.
        model: model the queries are encoded with, when ``index`` is a directory; default: the one it was
            built with.
        similarity_top_k: how many nodes to return.
        mode: ``"hybrid"`` (cosine and BM25, fused by how sure each is), ``"dense"`` (cosine), ``"lexical"`` (BM25) or
            ``"auto"``: hybrid, but dense in an index of more than 200,000 chunks.
        filters: ``==`` and ``in``, of lists also ``contains`` and ``any``, joined by ``and``; applied before the best
            nodes are taken.
        kwargs: what every LlamaIndex retriever takes, such as ``callback_manager``.

    Raises:
        IndexingError: there is no index there, or it is damaged; an argument is not one of the above.
        IndexMismatchError: the index was built with another model than ``model``.

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
        mode: Mode = "auto",
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> None:
        if similarity_top_k < 1:
            raise IndexingError(f"similarity_top_k={similarity_top_k} must be at least 1.")
        check_mode(mode)
        super().__init__(**kwargs)
        self.similarity_top_k = similarity_top_k
        self.mode = mode
        self.filters = filters
        self.index = _open(index, model)

    @property
    def filters(self) -> MetadataFilters | None:
        """What every node found must match; another may be set at any time."""
        return self._filters

    @filters.setter
    def filters(self, filters: MetadataFilters | None) -> None:
        if filters is not None:
            _mapping(filters)  # one that an index cannot answer is refused now, not by the first query
        self._filters = filters

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [to_node(hit) for hit in self._search(query_bundle)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _search(self, query: QueryBundle) -> list[Hit]:
        vector = None if self.mode == "lexical" else self._query_vector(query)
        filter = None if self.filters is None else _mapping(self.filters)  # as it is now: its list may have grown
        options: dict[str, Any] = {"k": self.similarity_top_k, "filter": filter, "mode": self.mode}
        return self.index.search(query.query_str, vector=vector, **options)

    def _query_vector(self, query: QueryBundle) -> np.ndarray | None:
        """The vector the bundle brings or asks for, or None where the query string is to be embedded."""
        if query.embedding is not None:
            return np.asarray(query.embedding, dtype=np.float32)
        if query.custom_embedding_strs:
            mean: np.ndarray = self.index.encoder.encode_queries(query.custom_embedding_strs).mean(axis=0)
            return mean
        return None


def _open(index: Index | str | Path, model: str | Path | Encoder | None) -> Index:
    if isinstance(index, Index):
        if model is not None:
            raise IndexingError("model is for an index given as a directory; this one is open and has its encoder.")
        return index
    encoder = model if model is None or isinstance(model, Encoder) else Encoder(model)
    return Index.open(index, encoder=encoder)


def _mapping(filters: MetadataFilters) -> dict[str, Any]:
    """Filters as the mapping an index takes; what it cannot say is refused, never dropped."""
    condition = filters.condition
    if condition is FilterCondition.NOT or (condition is FilterCondition.OR and len(filters.filters) > 1):
        raise IndexingError(f"The filters are joined by {condition.value!r}; an index takes 'and' alone.")
    mapping: dict[str, Any] = {}
    for item in filters.filters:
        for key, value in (_mapping(item) if isinstance(item, MetadataFilters) else _condition(item)).items():
            if mapping.setdefault(key, value) != value:
                raise IndexingError(f"The filters ask that {key!r} be {mapping[key]!r} and {value!r} at once.")
    return mapping


def _condition(filter: MetadataFilter) -> dict[str, Any]:
    several = isinstance(filter.value, list)
    if filter.operator not in (_ANY_OF if several else _EQUALS):
        raise IndexingError(
            f"The filter on {filter.key!r} is {filter.operator.value!r} {filter.value!r}; an index takes '==' and "
            "'contains' a value, 'in' and 'any' a list."
        )
    return {filter.key: filter.value}


def to_node(hit: Hit) -> NodeWithScore:
    """A search hit as a LlamaIndex node."""
    chunk = hit.chunk
    computed = {"source": chunk.document_id, "document_id": chunk.document_id, "kind": chunk.kind}
    if chunk.title:
        computed["title"] = chunk.title
    metadata = computed | dict(chunk.metadata)
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
