"""A LangChain retriever over an index of revela-rag."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, PlainSerializer, WithJsonSchema, field_validator

from revela_rag.corpus import load_corpus
from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.filters import Filter, check_filter
from revela_rag.index.types import check_k, check_mode
from revela_rag.index.writing.generations import LOCK_TIMEOUT
from revela_rag.model.encoder import Encoder
from revela_rag.parts import as_reranker
from revela_rag.parts.rerank import RERANKED
from revela_rag.retriever import open_index

__all__ = ["RevelaRetriever"]

#: In JSON an index is its path, from which a retriever opens it.
_AS_PATH = PlainSerializer(lambda index: str(index.path), return_type=str, when_used="json")

#: The modes of an index, and its ways to select.
SearchType = Mode | Literal["mmr", "coverage"]

#: In JSON a reranker cannot be.
_Rerank = Annotated[Any, PlainSerializer(lambda _: None, when_used="json"), WithJsonSchema({"type": "null"})]

#: In JSON a filter that is a function cannot be.
_Filter = Annotated[
    dict[str, Any] | Callable[[Mapping[str, Any]], Any] | None,
    PlainSerializer(lambda filter: None if callable(filter) else filter, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "null"}]}),
]


_SELECTING = ("mmr", "coverage")


class RevelaRetriever(BaseRetriever):
    """Finds the chunks of an index that answer a query; works over both stores, FAISS and Chroma.

    Every document found carries the chunk's metadata and, beside it, ``source``, ``document_id``, ``title`` and
    ``kind``; its ``id`` is the one it was indexed with or, where it had none or was cut into several, the chunk's. A
    passage is equal whichever query found it, as retrievers that merge several lists need it. Scores are asked for.
    Metadata of the same name that a document brought along stays what it was, in what is found and for filters;
    ``retriever.index.search`` gives both.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one.
        model: model the queries are encoded with, when ``index`` is a directory; default: the one it was
            built with.
        k: how many documents to return.
        search_type: ``"hybrid"`` (cosine and BM25, fused by how sure each is), ``"dense"`` (cosine), ``"lexical"``
            (BM25) or ``"auto"``: hybrid, but dense in an index of more than 200,000 chunks. ``"mmr"`` and
            ``"coverage"`` search as ``"auto"`` and choose such as say different things, or such as hold together all
            that is asked for (:class:`revela_rag.parts.Coverage`).
        filter: metadata that a document must have, such as ``{"team": "hr", "year": {"$gte": 2020}}``, in the language
            of :func:`revela_rag.index.filters.parse_filter`, or a function of the metadata; applied before the best k
            are taken. A function is not kept in JSON.
        search_kwargs: the same three under the names other LangChain retrievers use: ``k``, ``filter``,
            ``search_type``. They win over the fields; what is given to ``invoke`` wins over both.
        with_scores: add to the metadata ``score`` (what it is in each type of search says
            :class:`revela_rag.index.Hit`), ``cosine`` (what a threshold can be set on; not in lexical search) and
            ``rank`` (from 1); ``invoke`` takes it, too.
        feedback: so many of the best move the query's vector towards themselves, and it searches again; 0 is none.
        rerank: reads the query and the best texts together: a function of both that gives scores, a LangChain
            compressor, or what else :func:`revela_rag.parts.as_reranker` takes. It is not kept in JSON.
        rerank_top: how many of the best it reads.
        lock_timeout: of an index given as a directory: seconds a write waits for another writer; None for the default.
        auto_refresh: of such an index: whether a search sees what other processes wrote, see
            :meth:`revela_rag.Index.open`.
        kwargs: ``name``, ``tags`` and ``metadata`` of every LangChain retriever.

    Raises:
        IndexingError: there is no index there, or it is damaged; the filter cannot be used; ``search_kwargs`` has an
            unknown key or a value out of range.
        IndexMismatchError: the index was built with another model than ``model``.

    Example:
        >>> from langchain_revela import RevelaRetriever
        >>> retriever = RevelaRetriever(index="my-index", k=3)  # doctest: +SKIP
        >>> retriever.invoke("what clears the cache?", k=9, filter={"language": "python"})  # doctest: +SKIP
    """

    # a misspelt field must not pass, nor a field be set to what it cannot be
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)

    index: Annotated[Index, _AS_PATH, WithJsonSchema({"type": "string", "format": "path"})] = Field(repr=False)
    k: int = Field(default=5, ge=1)
    search_type: SearchType = "auto"
    filter: _Filter = None
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    with_scores: bool = False
    feedback: int = Field(default=0, ge=0)
    rerank: _Rerank = None
    rerank_top: int = Field(default=RERANKED, ge=1)

    def __init__(
        self,
        *,
        index: Index | str | Path,
        model: str | Path | Encoder | None = None,
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
        **kwargs: Any,
    ) -> None:
        opened = open_index(index, model=model, lock_timeout=lock_timeout, auto_refresh=auto_refresh)
        super().__init__(**{"index": opened, **kwargs})

    @field_validator("filter")
    @classmethod
    def _usable(cls, filter: Filter | None) -> Filter | None:
        check_filter(filter)
        return filter

    @field_validator("rerank")
    @classmethod
    def _reranks(cls, rerank: Any) -> Any:
        if rerank is not None:
            as_reranker(rerank)
        return rerank

    @field_validator("search_kwargs")
    @classmethod
    def _all_known(cls, search_kwargs: dict[str, Any]) -> dict[str, Any]:
        return _known(search_kwargs)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        *,
        model: str | Path | Encoder,
        path: str | Path,
        store: Literal["faiss", "chroma"] = "faiss",
        max_words: int = 120,
        overwrite: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
        auto_refresh: bool = True,
        **kwargs: Any,
    ) -> RevelaRetriever:
        """Chunk, embed and index LangChain documents, all of them, and return a retriever over them.

        Whatever can be wrong but the documents is checked first.

        Args:
            documents: documents of any length; their metadata travels with every chunk.
            model: model that embeds them.
            path: directory of the new index; without ``overwrite`` it must not hold one yet.
            store: where the vectors live.
            max_words: longest chunk of prose, in words.
            overwrite: replace an index that is there.
            lock_timeout: seconds to wait for another writer, now and in later writes.
            auto_refresh: whether a search sees what other processes wrote, see :meth:`revela_rag.Index.open`.
            kwargs: fields of the retriever, such as ``k``.

        Raises:
            CorpusError: none of the documents holds text. Of no documents an empty index is made.
        """
        if unknown := set(kwargs) - (set(cls.model_fields) - {"index"}):
            raise IndexingError(f"{', '.join(sorted(unknown))}: no field of {cls.__name__}, which has k, filter, ...")
        cls(
            index=Index.__new__(Index), **kwargs
        )  # over no index yet: fields are checked before the minutes of embedding
        encoder = model if isinstance(model, Encoder) else Encoder(model)
        given = list(documents)
        chunks = load_corpus(given, max_words=max_words, deduplicate=False).chunks if given else []
        options: dict[str, Any] = {"lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
        index = Index.build(chunks, encoder=encoder, path=path, store=store, overwrite=overwrite, **options)
        return cls(index=index, **kwargs)

    def _asked(self, k: int | None, filter: Filter | None, search_type: SearchType | None) -> dict[str, Any]:
        """What a search is asked; arguments win over ``search_kwargs``, these over the fields."""
        fields = {"k": self.k, "filter": self.filter, "search_type": self.search_type} | _known(self.search_kwargs)
        given = {"k": k, "filter": filter, "search_type": search_type}
        asked = fields | {name: value for name, value in given.items() if value is not None}
        kind = asked.pop("search_type")
        how = {"mode": "auto", "select": kind} if kind in _SELECTING else {"mode": kind}
        return {**asked, **how, "feedback": self.feedback, "rerank": self.rerank, "rerank_top": self.rerank_top}

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
        search_type: SearchType | None = None,
        with_scores: bool | None = None,
    ) -> list[Document]:
        return self._documents(self.index.search(query, **self._asked(k, filter, search_type)), with_scores)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
        search_type: SearchType | None = None,
        with_scores: bool | None = None,
    ) -> list[Document]:
        hits = await asyncio.to_thread(self.index.search, query, **self._asked(k, filter, search_type))
        return self._documents(hits, with_scores)

    def _documents(self, hits: list[Hit], with_scores: bool | None) -> list[Document]:
        asked = self.with_scores if with_scores is None else with_scores
        return [to_document(hit, with_scores=asked) for hit in hits]


def _known(search_kwargs: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(search_kwargs) - {"k", "filter", "search_type"}:
        raise IndexingError(f"search_kwargs={sorted(unknown)} are unknown; it takes k, filter and search_type.")
    for name, check in (("k", check_k), ("filter", check_filter), ("search_type", _check_type)):
        if search_kwargs.get(name) is not None:
            check(search_kwargs[name])
    return search_kwargs


def _check_type(search_type: str) -> None:
    if search_type not in _SELECTING:
        check_mode(search_type)


def to_document(hit: Hit, *, with_scores: bool = False) -> Document:
    """A search hit as a LangChain document; with scores it also says how well it fits this one query."""
    chunk = hit.chunk
    computed: dict[str, Any] = {
        "source": chunk.document_id,
        "document_id": chunk.document_id,
        "title": chunk.title,
        "kind": chunk.kind,
    }
    if with_scores:
        computed |= {"score": hit.score, "rank": hit.rank}
        computed |= {} if hit.cosine is None else {"cosine": hit.cosine}
    id_ = chunk.origin.get("id", chunk.id)
    return Document(id=id_, page_content=chunk.text, metadata=computed | dict(chunk.metadata))
