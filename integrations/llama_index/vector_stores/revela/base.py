"""A LlamaIndex vector store over an index of revela-rag."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PlainSerializer, WithJsonSchema
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from llama_index.embeddings.revela import RevelaEmbedding
from llama_index.retrievers.revela.filters import to_filter
from llama_index.retrievers.revela.nodes import to_chunks, to_nodes, to_scored_nodes
from llama_index.vector_stores.revela.queries import matching, search
from llama_index.vector_stores.revela.vectors import node_vectors
from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.facade import Kind
from revela_rag.index.manifest import MANIFEST_FILE
from revela_rag.index.stored import add_whole, open_or_make, refuse_unknown
from revela_rag.model.encoder import Encoder

__all__ = ["RevelaVectorStore"]

#: What can embed: a LlamaIndex embedding, a model, or its directory or name.
Model = BaseEmbedding | Encoder | str | Path


class RevelaVectorStore(BasePydanticVectorStore):
    """Nodes in an index: searched by meaning, by words, or both, and written by many processes in turn.

    A node is stored whole under its id; adding one whose id is there replaces it. It comes back as it was, of its
    class, with its relationships and what it hides; metadata that JSON can hold is kept as it is, dates become ISO
    text, and what cannot be kept is left out with one warning that counts it. Chunks that ``revela index`` wrote are
    found, too, as :class:`~llama_index.retrievers.revela.RevelaRetriever` gives them.

    An index has the vectors of one model. Give ``embed_model=store.embed_model()`` to whatever embeds for it.
    Embeddings that nodes bring along are taken where this model made them: one in fifty, and one of each call, is
    compared with the model's own. The embedding of a query says which model made it; a plain one is compared with the
    model's own. Those of another model raise an error. Nodes and queries without one are embedded by the store.

    Query modes are ``default`` and ``mmr`` (cosine), ``text_search`` and ``sparse`` (BM25), ``hybrid`` and
    ``semantic_hybrid`` (both, fused by how sure each is). Scores are cosines in all but the second pair, in hybrid
    search in the order of the search. Every method has its asynchronous twin, which runs in a thread. All is on disk
    when ``add`` returns. In JSON a store is the path of its index. Nothing is ever unpickled.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one, which is made where there is none.
        model: what embeds: RevelaEmbedding, an Encoder, a model by its directory or name, or any embedding of
            LlamaIndex (:meth:`revela_rag.Encoder.over` has settings for these). Needed where there is no index yet, and
            for one that was built by embeddings which are no model.
        store: of a new index: where vectors live.
        kind: of a new index: how FAISS searches, see :meth:`revela_rag.Index.build`.
        lock_timeout: of an index given as a directory: seconds a write waits for another writer; None for the default.
        auto_refresh: of such an index: whether a search sees what other processes wrote.

    Raises:
        IndexingError: the index is damaged, or there is none and nothing that embeds.
        IndexMismatchError: the index was built with another model than ``model``.

    Example:
        >>> from llama_index.vector_stores.revela import RevelaVectorStore
        >>> store = RevelaVectorStore("my-store", model="my-adapted-model")  # doctest: +SKIP
        >>> index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model())  # doctest: +SKIP
        >>> index.as_retriever(vector_store_query_mode="hybrid").retrieve("what clears the cache?")  # doctest: +SKIP
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    stores_text: bool = True
    index: Annotated[
        Index,
        PlainSerializer(lambda index: str(index.path), return_type=str),
        WithJsonSchema({"type": "string", "format": "path"}),
    ] = Field(description="Where the nodes are.")

    def __init__(
        self,
        index: Index | str | Path,
        *,
        model: Model | None = None,
        store: Literal["faiss", "chroma"] = "faiss",
        kind: Kind = "flat",
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
        **kwargs: Any,
    ) -> None:
        made: dict[str, Any] = {"store": store, "kind": kind, "needed": "model"}
        settings: dict[str, Any] = {"lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
        encoder = None if model is None else _encoder(model)
        super().__init__(**{"index": open_or_make(index, encoder=encoder, **made, **settings), **kwargs})

    @classmethod
    def from_persist_path(cls, persist_path: str | Path, **kwargs: Any) -> Self:
        """The store in a directory, which must be there.

        Args:
            persist_path: directory of the index.
            kwargs: ``model``, ``lock_timeout`` and ``auto_refresh`` of the class.

        Raises:
            IndexingError: there is no index.
        """
        if not (Path(persist_path).expanduser() / MANIFEST_FILE).exists():
            raise IndexingError(
                f"There is no index in {str(persist_path)!r}; RevelaVectorStore(path, model=) makes one."
            )
        return cls(persist_path, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises this class under."""
        return "RevelaVectorStore"

    @property
    def client(self) -> Index:
        """The index."""
        return self.index

    def embed_model(self) -> RevelaEmbedding:
        """The embedding of the index's model, for indexes and pipelines over this store."""
        return RevelaEmbedding.from_encoder(self.index.encoder)

    # -- writing -----------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, or replace those whose id is there; of several with one id the last counts.

        Args:
            nodes: with embeddings by this store's model, or without.
            kwargs: none.

        Returns:
            The id of each node.

        Raises:
            IndexMismatchError: an embedding is by another model.
        """
        refuse_unknown(kwargs)
        listed = list(nodes)
        latest = {node.node_id: node for node in listed}
        if latest:
            chunks = to_chunks(latest.values())
            add_whole(self.index, chunks, node_vectors(self.index, list(latest.values())))
        return [node.node_id for node in listed]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document; where it has none the log says so."""
        refuse_unknown(delete_kwargs)
        self.index.delete(documents=[ref_doc_id])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by what their metadata must be, or by both together.

        Raises:
            IndexingError: nothing says which, or the filters cannot be used.
        """
        refuse_unknown(delete_kwargs)
        filter = to_filter(filters)
        if node_ids is None and not filter:
            raise IndexingError("Neither node_ids nor filters say what to delete; clear() deletes everything.")
        if node_ids is None or filter:
            named = [] if node_ids is None else [{"$id": list(node_ids)}]
            self.index.delete(filter={"$and": [*named, filter]})
        elif node_ids:
            self.index.delete(node_ids)

    def clear(self) -> None:
        """Delete all nodes."""
        self.index.sync([])

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Does nothing: everything is in the directory of the index as soon as it was added.

        ``StorageContext.from_defaults(persist_dir=..., vector_store=RevelaVectorStore(path))`` reads a context again.
        """

    # -- reading -----------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, in this order, or all, of those whose metadata matches; unknown ids are left out."""
        return to_nodes(self.index.get(node_ids, filter=to_filter(filters)), as_given=True)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes that answer a query best.

        A query without text and embedding gives the first nodes that match, with no scores. ``alpha`` counts only where
        it is 0 (words alone) or 1 (cosines alone), with a warning in between. ``node_ids`` that name images and index
        nodes alone count for nothing, because ``VectorStoreIndex`` lists these by itself.

        Args:
            query: see above for modes.
            kwargs: of mode ``mmr``: ``mmr_threshold`` (1 takes the nearest, 0 those farthest from one another, default
                .5) and ``mmr_prefetch_k`` (how many to choose from; default 20, and at least four times as many as are
                asked for).

        Raises:
            IndexingError: there is no such mode, or an argument is out of range or unknown.
            IndexMismatchError: the query's embedding is by another model.
        """
        if query.query_embedding is None and not query.query_str:
            nodes = to_nodes(matching(self.index, query), as_given=True)
            return VectorStoreQueryResult(nodes=nodes, ids=[node.node_id for node in nodes])
        scored = to_scored_nodes(search(self.index, query, kwargs), as_given=True)
        return VectorStoreQueryResult(
            nodes=[one.node for one in scored],
            similarities=[float(one.score or 0.0) for one in scored],
            ids=[one.node.node_id for one in scored],
        )

    # -- in a thread -------------------------------------------------------------------------------------------

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Like :meth:`add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Like :meth:`delete`, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Like :meth:`delete_nodes`, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """Like :meth:`clear`, in a thread."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Like :meth:`get_nodes`, in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Like :meth:`query`, in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _encoder(model: Model) -> Encoder:
    if isinstance(model, RevelaEmbedding):
        return model.encoder
    if isinstance(model, BaseEmbedding):
        return Encoder.over(model, cache=False)  # the index keeps the vectors
    return model if isinstance(model, Encoder) else Encoder(model)
