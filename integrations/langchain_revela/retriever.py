"""A LangChain retriever over an index of revela-rag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field

from revela_rag.corpus import load_corpus
from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index, Mode
from revela_rag.model.encoder import Encoder

__all__ = ["RevelaRetriever"]


class RevelaRetriever(BaseRetriever):
    """Finds the chunks of an index that answer a query; works over both stores, FAISS and Chroma.

    Every document found carries the chunk's metadata and, beside it, ``score`` (what it is in each type of search says
    :class:`revela_rag.index.Hit`), ``cosine`` (what a threshold can be set on; not in lexical search), ``rank`` (from
    1), ``source``, ``document_id``, ``title`` and ``kind``; its ``id`` is the chunk's. Metadata of the same name that a
    document brought along stays what it was, in what is found and for filters; ``retriever.index.search`` gives both.

    Args:
        index: an open :class:`revela_rag.Index`, or the directory of one.
        model: model the queries are encoded with, when ``index`` is a directory; default: the one it was
            built with.
        k: how many documents to return.
        search_type: ``"hybrid"`` (cosine and BM25, fused by how sure each is), ``"dense"`` (cosine), ``"lexical"``
            (BM25) or ``"auto"``: hybrid, but dense in an index of more than 200,000 chunks.
        filter: metadata that a document must have, key by key (a list: any of its values; metadata that is a list must
            hold one of them); applied before the best k are taken.
        search_kwargs: the same three under the names other LangChain retrievers use: ``k``, ``filter``,
            ``search_type``. They win over the fields; what is given to ``invoke`` wins over both.
        kwargs: ``name``, ``tags`` and ``metadata`` of every LangChain retriever.

    Raises:
        IndexingError: there is no index there, or it is damaged; ``search_kwargs`` has an unknown key.
        IndexMismatchError: the index was built with another model than ``model``.

    Example:
        >>> from langchain_revela import RevelaRetriever
        >>> retriever = RevelaRetriever(index="my-index", k=3)  # doctest: +SKIP
        >>> retriever.invoke("what clears the cache?", k=9, filter={"language": "python"})  # doctest: +SKIP
    """

    # a misspelt field must not pass, nor a field be set to what it cannot be
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_assignment=True)

    index: Index = Field(repr=False)
    k: int = Field(default=5, ge=1)
    search_type: Mode = "auto"
    filter: dict[str, Any] | None = None
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, *, index: Index | str | Path, model: str | Path | Encoder | None = None, **kwargs: Any) -> None:
        _known(kwargs.get("search_kwargs") or {})
        fields = {"index": _open(index, model), **kwargs}
        super().__init__(**fields)

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
        **kwargs: Any,
    ) -> RevelaRetriever:
        """Chunk, embed and index LangChain documents, all of them, and return a retriever over them.

        Args:
            documents: documents of any length; their metadata travels with every chunk.
            model: model that embeds them.
            path: directory of the new index; without ``overwrite`` it must not hold one yet.
            store: where the vectors live.
            max_words: longest chunk of prose, in words.
            overwrite: replace an index that is there.
            kwargs: fields of the retriever, such as ``k``.

        Raises:
            CorpusError: the documents hold no text.
        """
        if unknown := set(kwargs) - set(cls.model_fields):  # before the minutes of embedding
            raise IndexingError(f"{', '.join(sorted(unknown))}: no field of {cls.__name__}, which has k, filter, ...")
        encoder = model if isinstance(model, Encoder) else Encoder(model)
        corpus = load_corpus(documents, max_words=max_words, deduplicate=False)
        index = Index.build(corpus.chunks, encoder=encoder, path=path, store=store, overwrite=overwrite)
        return cls(index=index, **kwargs)

    def _search_options(
        self, k: int | None, filter: Mapping[str, Any] | None, search_type: Mode | None
    ) -> dict[str, Any]:
        """What is given to one call wins over ``search_kwargs``, and that over the fields."""
        fields = {"k": self.k, "filter": self.filter, "search_type": self.search_type}
        fields |= _known(self.search_kwargs)
        call = {"k": k, "filter": filter, "search_type": search_type}
        options = fields | {name: value for name, value in call.items() if value is not None}
        return {"k": options["k"], "filter": options["filter"], "mode": options["search_type"]}

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        search_type: Mode | None = None,
    ) -> list[Document]:
        hits = self.index.search(query, **self._search_options(k, filter, search_type))
        return [to_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        search_type: Mode | None = None,
    ) -> list[Document]:
        options = self._search_options(k, filter, search_type)
        hits = await run_in_executor(None, self.index.search, query, **options)
        return [to_document(hit) for hit in hits]


def _known(search_kwargs: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(search_kwargs) - {"k", "filter", "search_type"}:
        raise IndexingError(f"search_kwargs={sorted(unknown)} are unknown; it takes k, filter and search_type.")
    return search_kwargs


def _open(index: Index | str | Path, model: str | Path | Encoder | None) -> Index:
    if isinstance(index, Index):
        if model is not None:
            raise IndexingError("model is for an index given as a directory; this one is open and has its encoder.")
        return index
    encoder = model if model is None or isinstance(model, Encoder) else Encoder(model)
    return Index.open(index, encoder=encoder)


def to_document(hit: Hit) -> Document:
    """A search hit as a LangChain document."""
    chunk = hit.chunk
    computed: dict[str, Any] = {
        "source": chunk.document_id,
        "document_id": chunk.document_id,
        "title": chunk.title,
        "kind": chunk.kind,
        "score": hit.score,
        "rank": hit.rank,
    }
    if hit.cosine is not None:
        computed["cosine"] = hit.cosine
    return Document(id=chunk.id, page_content=chunk.text, metadata=computed | dict(chunk.metadata))
