"""The retriever of a vector store, which can also search by meaning and words together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import model_validator

from revela_rag.errors import IndexingError
from revela_rag.index.filters import check_filter
from revela_rag.index.types import check_k

__all__ = ["RevelaVectorStoreRetriever"]

_KNOWN = {
    "similarity": ("k", "filter", "mode"),
    "mmr": ("k", "filter", "fetch_k", "lambda_mult"),
    "similarity_score_threshold": ("k", "filter", "score_threshold"),
    "hybrid": ("k", "filter"),
    "coverage": ("k", "filter"),
}
_OWN = ("hybrid", "coverage")


class RevelaVectorStoreRetriever(VectorStoreRetriever):
    """Made by :meth:`RevelaVectorStore.as_retriever`; ``search_kwargs`` are checked when they are given."""

    allowed_search_types: ClassVar[Collection[str]] = tuple(_KNOWN)

    @model_validator(mode="after")
    def _usable(self) -> RevelaVectorStoreRetriever:
        if unknown := sorted(set(self.search_kwargs) - set(_KNOWN[self.search_type])):
            known = ", ".join(_KNOWN[self.search_type])
            raise IndexingError(f"search_kwargs={unknown} are unknown; search_type={self.search_type!r} takes {known}.")
        for name in ("k", "fetch_k"):
            if name in self.search_kwargs:
                check_k(self.search_kwargs[name], name)
        check_filter(self.search_kwargs.get("filter"))
        return self

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type in _OWN:
            return self.vectorstore.search(query, self.search_type, **self.search_kwargs | kwargs)
        return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type in _OWN:
            return await self.vectorstore.asearch(query, self.search_type, **self.search_kwargs | kwargs)
        return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)
