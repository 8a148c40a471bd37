"""Embeddings kept in a store, queries apart from documents and models apart from each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.stores import ByteStore

from revela_rag.model.backends import Role

if TYPE_CHECKING:
    from langchain_revela.embeddings import RevelaEmbeddings

__all__ = ["CachedEmbeddings", "listed_texts"]


def listed_texts(texts: Iterable[str]) -> list[str]:
    """Texts as a list; TypeError for a single one, whose characters would be embedded."""
    if isinstance(texts, str):
        raise TypeError("texts is one string; pass a list of strings.")
    return list(texts)


class CachedEmbeddings(Embeddings):
    """Embeddings whose vectors are kept in a store; made by :meth:`RevelaEmbeddings.cached`.

    Keys name the model's fingerprint and the role of the text, so that one store serves both roles and several models.

    Args:
        embeddings: what embeds texts that are not in the store.
        store: bytes under string keys, such as LangChain's ``LocalFileStore`` or ``InMemoryByteStore``.
        queries: whether queries are kept, too.
    """

    def __init__(self, embeddings: RevelaEmbeddings, store: ByteStore, *, queries: bool = True) -> None:
        self.embeddings = embeddings
        self.store = store
        self.queries = queries

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Embed documents, each text that is not in the store once."""
        return self._embed(listed_texts(texts), "document")

    def embed_query(self, text: str) -> list[float]:
        """Embed one query."""
        return self._embed([text], "query")[0] if self.queries else self.embeddings.embed_query(text)

    async def aembed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Like :meth:`embed_documents`, in a thread."""
        return await run_in_executor(None, self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Like :meth:`embed_query`, in a thread."""
        return await run_in_executor(None, self.embed_query, text)

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        encoder = self.embeddings.encoder
        keys = {text: self._key(text, role) for text in texts}
        kept = dict(zip(keys, self.store.mget(list(keys.values())), strict=True))
        vectors = {text: np.frombuffer(data, dtype="<f4") for text, data in kept.items() if data is not None}
        if missing := [text for text in keys if text not in vectors]:
            encode = encoder.encode_queries if role == "query" else encoder.encode_documents
            vectors.update(zip(missing, encode(missing), strict=True))
            self.store.mset([(keys[text], vectors[text].astype("<f4").tobytes()) for text in missing])
        return [vectors[text].tolist() for text in texts]

    def _key(self, text: str, role: Role) -> str:
        return f"{self.embeddings.namespace(role)}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"
