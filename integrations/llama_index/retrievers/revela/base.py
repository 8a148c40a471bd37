"""A LlamaIndex retriever over an index of revela-rag."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index.embeddings.revela.vector import check_maker
from llama_index.retrievers.revela.filters import to_filter
from llama_index.retrievers.revela.nodes import to_scored_nodes
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.filters import check_filter
from revela_rag.index.types import check_k, check_mode
from revela_rag.model.encoder import Encoder
from revela_rag.parts.pipeline import PartOptions, Parts
from revela_rag.parts.selection import Select
from revela_rag.retriever import open_index

__all__ = ["RevelaRetriever"]


class RevelaRetriever(BaseRetriever):
    """Finds the chunks of an index that answer a query; works over both stores, FAISS and Chroma.

    Nodes that were indexed come back under their ids, with their relationships and with what they hide from the LLM and
    the embedding; of one that was longer than a chunk the best piece has its id, further ones their chunk's. Of other
    sources a node's id is the chunk's, its source node the document. The metadata are the document's own and, under
    names that these leave free, ``source``, ``document_id``, ``kind`` and ``title``; what is computed the LLM does not
    see, but for the title and, of files, the source.

    Nodes are in the order of the search, and their scores are cosines in every mode but ``"lexical"``, so that a cutoff
    (``SimilarityPostprocessor``) means the same for every query; in hybrid search they do not fall from each node to
    the next. The embedding of a query bundle, or its ``custom_embedding_strs`` (as HyDE sets them), is used if given.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one.
        model: model the queries are encoded with, when ``index`` is a directory; default: the one it was
            built with.
        similarity_top_k: how many nodes to return.
        mode: ``"hybrid"`` (cosine and BM25, fused by how sure each is), ``"dense"`` (cosine), ``"lexical"`` (BM25) or
            ``"auto"``: hybrid, but dense in an index of more than 200,000 chunks.
        filters: any of LlamaIndex' operators and conditions, nested or not, see
            :func:`llama_index.retrievers.revela.filters.to_filter`; applied before the best nodes are taken.
        feedback: so many of the best move the query's vector towards themselves, and it searches again; 0 is none.
        select: ``"top"`` the best nodes, ``"mmr"`` such as say different things, ``"coverage"`` such as hold together
            all that is asked for; or a :class:`revela_rag.parts.Selector`.
        lock_timeout: of an index given as a directory: seconds a write waits for another writer; None for the default.
        auto_refresh: of such an index: whether a search sees what other processes wrote, see
            :meth:`revela_rag.Index.open`.
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
        feedback: int = 0,
        select: Select = "top",
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.similarity_top_k = similarity_top_k
        self.mode = mode
        self.filters = filters
        self.parts = {"feedback": feedback, "select": select}
        self.index = open_index(index, model=model, lock_timeout=lock_timeout, auto_refresh=auto_refresh)

    @property
    def similarity_top_k(self) -> int:
        """How many nodes to return; may be set at any time."""
        return self._similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, similarity_top_k: int) -> None:
        check_k(similarity_top_k, "similarity_top_k")
        self._similarity_top_k = similarity_top_k

    @property
    def mode(self) -> Mode:
        """How to search; may be set at any time."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        check_mode(mode)
        self._mode: Mode = mode

    @property
    def filters(self) -> MetadataFilters | None:
        """What every node found must match; another may be set at any time."""
        return self._filters

    @filters.setter
    def filters(self, filters: MetadataFilters | None) -> None:
        check_filter(to_filter(filters))  # one that an index cannot answer is refused now, not by the first query
        self._filters = filters

    @property
    def parts(self) -> PartOptions:
        """``feedback``, ``select``, ``rerank``, see :class:`revela_rag.parts.PartOptions`; may be set at any time."""
        return self._parts

    @parts.setter
    def parts(self, parts: PartOptions) -> None:
        Parts.of(**parts)
        self._parts: PartOptions = {**parts}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return to_scored_nodes(self._search(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _search(self, query: QueryBundle) -> list[Hit]:
        vector = None if self.mode == "lexical" else self._query_vector(query)
        filter = to_filter(self.filters)  # as it is now: its list may have grown
        options: dict[str, Any] = {"k": self.similarity_top_k, "filter": filter, "mode": self.mode}
        return self.index.search(query.query_str, vector=vector, **options, **self.parts)

    def _query_vector(self, query: QueryBundle) -> np.ndarray | None:
        """The vector the bundle brings or asks for, or None where the query string is to be embedded."""
        if query.embedding is not None:
            check_maker(query.embedding, self.index)
            return np.asarray(query.embedding, dtype=np.float32)
        if query.custom_embedding_strs:
            mean: np.ndarray = self.index.encoder.encode_queries(query.custom_embedding_strs).mean(axis=0)
            return mean
        return None
