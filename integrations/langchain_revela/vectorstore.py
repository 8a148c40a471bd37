"""A LangChain vector store over an index of revela-rag."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import UpsertResponse
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore

from langchain_revela.cache import CachedEmbeddings
from langchain_revela.embeddings import RevelaEmbeddings
from langchain_revela.vectorstore_retriever import RevelaVectorStoreRetriever
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.records import PATH_FIELDS, path_in
from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index import Index, Mode
from revela_rag.index.facade import Kind
from revela_rag.index.filters import Filter
from revela_rag.index.stored import add_whole, kept_metadata, open_or_make, refuse_unknown
from revela_rag.index.types import check_k
from revela_rag.model.encoder import Encoder
from revela_rag.parts import MMR

__all__ = ["RevelaVectorStore"]

logger = logging.getLogger(__name__)

#: What can embed: LangChain's form of a model, a model, or its directory or name.
Embedding = Embeddings | Encoder | str | Path


class RevelaVectorStore(VectorStore):
    """Documents in an index: searched by meaning, by words, or both, and written by many processes in turn.

    A document is stored whole, under its ``id`` or a new one; adding one whose id is there replaces it. It comes back
    equal: metadata that JSON can hold is kept as it is, dates become ISO text, and what cannot be kept is left out with
    one warning that counts it. Documents of one ``source`` are read in its context by hybrid searches. Chunks that
    ``revela index`` or :class:`~langchain_revela.RevelaRetriever` wrote are found, too, their heading as ``title``.

    Scores are cosines in [-1, 1], higher is better, and relevance scores ``(1 + cosine) / 2``. Every method has its
    asynchronous twin, which runs in a thread. Nothing is ever unpickled.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one, which is made where there is none; None makes
            one that is removed with the last reference to the store.
        embedding: what embeds: RevelaEmbeddings, an Encoder, a model by its directory or name, or any embeddings of
            LangChain (:meth:`revela_rag.Encoder.over` has settings for these). Needed where there is no index yet, and
            for one that was built by embeddings which are no model.
        store: of a new index: where vectors live.
        kind: of a new index: how FAISS searches, see :meth:`revela_rag.Index.build`.
        lock_timeout: of an index given as a directory: seconds a write waits for another writer; None for the default.
        auto_refresh: of such an index: whether a search sees what other processes wrote.

    Raises:
        IndexingError: the index is damaged, or there is none and nothing that embeds.
        IndexMismatchError: the index was built with another model than ``embedding``.

    Example:
        >>> from langchain_revela import RevelaVectorStore
        >>> store = RevelaVectorStore("my-index", embedding="my-adapted-model")  # doctest: +SKIP
        >>> store.add_documents(documents)  # doctest: +SKIP
        >>> store.similarity_search("what clears the cache?", k=3, filter={"year": {"$gte": 2020}})  # doctest: +SKIP
    """

    def __init__(
        self,
        index: Index | str | Path | None = None,
        *,
        embedding: Embedding | None = None,
        store: Literal["faiss", "chroma"] = "faiss",
        kind: Kind = "flat",
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
    ) -> None:
        self._embeddings = embedding if isinstance(embedding, Embeddings) else None
        encoder = None if embedding is None else _encoder(embedding)
        settings: dict[str, Any] = {"lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
        made: dict[str, Any] = {"store": store, "kind": kind, "needed": "embedding"}
        self.index = open_or_make(index, encoder=encoder, **made, **settings)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embedding,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | Path | None = None,
        store: Literal["faiss", "chroma"] = "faiss",
        kind: Kind = "flat",
        overwrite: bool = False,
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store of texts.

        Args:
            texts: stored whole: cut long ones before.
            embedding: what embeds.
            metadatas: one for each text.
            ids: one for each text; default: new ones.
            path: directory of the new index; None makes one that is removed with the store.
            store: where vectors live.
            kind: how FAISS searches.
            overwrite: replace an index that is there.
            lock_timeout: seconds a write waits for another writer.
            auto_refresh: whether a search sees what other processes wrote.
            kwargs: none.

        Raises:
            IndexingError: there is an index in ``path``, and ``overwrite`` is off; an argument is unknown.
        """
        refuse_unknown(kwargs)
        chunks, _ = _chunks(texts, metadatas, ids)
        if path is not None:
            options = {"lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
            given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
            built = Index.build(
                chunks, encoder=_encoder(embedding), path=path, store=store, kind=kind, overwrite=overwrite, **given
            )
            made = cls(built)
            made._embeddings = embedding if isinstance(embedding, Embeddings) else None
            return made
        made = cls(embedding=embedding, store=store, kind=kind, lock_timeout=lock_timeout, auto_refresh=auto_refresh)
        made.index.add(chunks)
        return made

    @property
    def embeddings(self) -> Embeddings:
        """What embeds."""
        if self._embeddings is None:
            self._embeddings = RevelaEmbeddings.from_encoder(self.index.encoder)
        return self._embeddings

    def __len__(self) -> int:
        return len(self.index)

    # -- writing -----------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those whose id is there; of several with one id the last counts.

        Args:
            texts: stored whole.
            metadatas: one for each text.
            ids: one for each text; where it is None a new one.
            kwargs: ``batch_size``, which LangChain's indexing API brings, has no effect.

        Returns:
            The id of each text.

        Raises:
            IndexingError: there are more or fewer ids or metadatas than texts; an argument is unknown.
        """
        refuse_unknown(kwargs, known=("batch_size",))
        chunks, listed = _chunks(texts, metadatas, ids)
        add_whole(self.index, chunks)
        return listed

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Like ``add_documents``, with the answer of LangChain's document indexes."""
        return UpsertResponse(succeeded=self.add_documents(list(items), **kwargs), failed=[])

    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> bool:
        """Delete documents by id and by filter; those that are not there are passed over.

        Returns:
            True.

        Raises:
            IndexingError: neither is given, or the filter is empty or cannot be used.
        """
        refuse_unknown(kwargs)
        if ids is None and filter is None:
            raise IndexingError("Neither ids nor a filter says what to delete; store.index.sync([]) empties an index.")
        if ids or filter is not None:
            self.index.delete(ids or (), filter=filter)
        return True

    # -- reading -----------------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in this order; unknown ones are left out."""
        return [_document(chunk) for chunk in self.index.get(ids)]

    def similarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, *, mode: Mode = "dense", **kwargs: Any
    ) -> list[Document]:
        """Up to ``k`` documents, best first.

        Args:
            query: plain text.
            k: at most this many.
            filter: what their metadata must be, see :func:`revela_rag.index.filters.parse_filter`.
            mode: ``"dense"`` by cosine, ``"hybrid"`` by cosine and words together, ``"lexical"`` by words.
            kwargs: none.
        """
        refuse_unknown(kwargs)
        return [_document(hit.chunk) for hit in self.index.search(query, k=k, filter=filter, mode=mode)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, *, mode: Mode = "dense", **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """:meth:`similarity_search` with cosines, of lexical searches with BM25; hybrid ones are in their own order."""
        refuse_unknown(kwargs)
        hits = self.index.search(query, k=k, filter=filter, mode=mode)
        return [(_document(hit.chunk), hit.score if hit.cosine is None else hit.cosine) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents nearest to a query vector of any length but zero."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs)]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """:meth:`similarity_search_by_vector` with cosines."""
        refuse_unknown(kwargs)
        hits = self.index.search("", k=k, filter=filter, mode="dense", vector=np.asarray(embedding))
        return [(_document(hit.chunk), hit.score) for hit in hits]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Documents that answer a query and say different things.

        ``fetch_k`` are the candidates and ``lambda_mult`` the balance of :class:`revela_rag.parts.MMR`.
        """
        refuse_unknown(kwargs)
        return self._diverse(query, None, k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """:meth:`max_marginal_relevance_search` for a query vector."""
        refuse_unknown(kwargs)
        return self._diverse("", np.asarray(embedding), k, fetch_k, lambda_mult, filter)

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Search by a type: those of LangChain, ``"hybrid"``, ``"coverage"`` (:class:`revela_rag.parts.Coverage`)."""
        if search_type == "coverage":
            return self._covering(query, **kwargs)
        if search_type == "hybrid":
            return self.similarity_search(query, mode="hybrid", **kwargs)
        return super().search(query, search_type, **kwargs)

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Like :meth:`search`, in a thread."""
        if search_type == "coverage":
            return await run_in_executor(None, self._covering, query, **kwargs)
        if search_type == "hybrid":
            return await self.asimilarity_search(query, mode="hybrid", **kwargs)
        return await super().asearch(query, search_type, **kwargs)

    def as_retriever(self, **kwargs: Any) -> RevelaVectorStoreRetriever:
        """A retriever over the store; what it is given is checked now.

        Args:
            kwargs: ``search_type`` (``"similarity"``, ``"mmr"``, ``"similarity_score_threshold"``, ``"hybrid"``,
                ``"coverage"``),
                ``search_kwargs`` (``k``, ``filter``, of mmr ``fetch_k`` and ``lambda_mult``, of the third
                ``score_threshold``), and ``tags``, ``metadata``, ``name`` of every retriever.
        """
        tags = [*(kwargs.pop("tags", None) or []), *self._get_retriever_tags()]
        return RevelaVectorStoreRetriever(vectorstore=self, tags=tags, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, (1.0 + cosine) / 2.0))

    def _covering(self, query: str, k: int = 4, filter: Filter | None = None) -> list[Document]:
        hits = self.index.search(query, k=k, filter=filter, mode="hybrid", select="coverage")
        return [_document(hit.chunk) for hit in hits]

    def _diverse(
        self, query: str, vector: np.ndarray | None, k: int, fetch_k: int, balance: float, filter: Filter | None
    ) -> list[Document]:
        check_k(k)
        check_k(fetch_k, "fetch_k")
        select = MMR(balance=balance, candidates=max(k, fetch_k))
        hits = self.index.search(query, k=k, vector=vector, filter=filter, mode="dense", select=select)
        return [_document(hit.chunk) for hit in hits]


def _encoder(embedding: Embedding) -> Encoder:
    if isinstance(embedding, CachedEmbeddings):
        return embedding.embeddings.encoder
    if isinstance(embedding, RevelaEmbeddings):
        return embedding.encoder
    if isinstance(embedding, Embeddings):
        return Encoder.over(embedding, cache=False)  # the index keeps the vectors
    return embedding if isinstance(embedding, Encoder) else Encoder(embedding)


def _chunks(
    texts: Iterable[str], metadatas: Sequence[Mapping[str, Any]] | None, ids: Sequence[str | None] | None
) -> tuple[list[Chunk], list[str]]:
    """A chunk for each id, of which the last text counts, and the id of each text."""
    if isinstance(texts, str):
        raise IndexingError("texts is one string; pass a list of strings.")
    listed = list(texts)
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(listed):
            raise IndexingError(f"There are {len(listed)} texts and {len(given)} {name}; give one for each text.")
    named = [str(uuid4()) if id_ is None else str(id_) for id_ in ids or [None] * len(listed)]
    report = CorpusReport()
    chunks = {}
    for id_, text, metadata in zip(named, listed, metadatas or [{}] * len(listed), strict=True):
        kept = kept_metadata(metadata or {}, report)
        source = path_in(kept, *PATH_FIELDS) or id_
        chunks[id_] = Chunk(id=id_, text=text, document_id=source, metadata=kept, origin={"id": id_})
    if report.left_out:
        logger.warning("Metadata that JSON cannot hold was left out: %s.", report.left_out_summary())
    return list(chunks.values()), named


def _document(chunk: Chunk) -> Document:
    computed = {"title": chunk.title} if chunk.title else {}
    return Document(
        id=chunk.origin.get("id", chunk.id), page_content=chunk.text, metadata=computed | dict(chunk.metadata)
    )
