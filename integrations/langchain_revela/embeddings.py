"""Embeddings that always apply the model's own prompts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.stores import ByteStore

from langchain_revela.cache import CachedEmbeddings, listed_texts
from revela_rag.errors import ModelError
from revela_rag.model.encoder import Dtype, Encoder
from revela_rag.model.st_format import Role

__all__ = ["RevelaEmbeddings"]


class RevelaEmbeddings(Embeddings):
    """A sentence-transformers model as LangChain embeddings.

    The query prompt is applied to queries and the document prompt to documents, both as stored in the model:
    LangChain's own Hugging Face embeddings leave them out, and a model trained with prompts then ranks
    worse without a word. Vectors have length 1, so an inner product is a cosine. Newlines are kept. Nothing
    is loaded before the first text is embedded.

    Args:
        model: directory of a model (``revela adapt`` writes one), a Hugging Face id, or
            ``"all-MiniLM-L6-v2"``.
        device: torch device such as ``"cuda:0"``; default: the best one found.
        max_length: longest input in tokens; default: what the model says.
        batch_size: at most this many texts per forward pass; None: as many as are efficient.
        dtype: floating point type of the model's weights and arithmetic.
        trust_remote_code: run code that comes with the model. Off unless you have read that code.

    Raises:
        ModelError: the model does not exist or cannot be loaded.

    Example:
        >>> from langchain_revela import RevelaEmbeddings
        >>> embeddings = RevelaEmbeddings(model="my-adapted-model")  # doctest: +SKIP
        >>> embeddings.embed_query("how is the cache invalidated?")  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        model: str | Path,
        device: str | None = None,
        max_length: int | None = None,
        batch_size: int | None = None,
        dtype: Dtype = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        self._encoder = Encoder(
            model,
            device=device,
            max_length=max_length,
            batch_size=batch_size,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )

    @classmethod
    def from_encoder(cls, encoder: Encoder) -> RevelaEmbeddings:
        """Share an encoder that exists: that of an open index, or ``Encoder.over`` embeddings behind an API."""
        embeddings = cls.__new__(cls)
        embeddings._encoder = encoder
        return embeddings

    @property
    def encoder(self) -> Encoder:
        """The encoder that does the work."""
        return self._encoder

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors, but for the role of a text; see :meth:`namespace`."""
        return self._encoder.fingerprint

    def namespace(self, role: Role = "document") -> str:
        """What names this model's vectors of a role, ``"document"`` or ``"query"``, in a cache.

        A text has two vectors, one in each role. LangChain's ``CacheBackedEmbeddings`` has one namespace for both: give
        it that of documents, and for queries no cache or a store of their own, but never
        ``query_embedding_cache=True``, with which a document gets the vector of an equal query. :meth:`cached` does all
        this.
        """
        if role not in get_args(Role):
            raise ModelError(f"role={role!r} is not one of {', '.join(map(repr, get_args(Role)))}.")
        return f"{self.fingerprint}-{role}"

    def cached(self, store: ByteStore, *, queries: bool = True) -> CachedEmbeddings:
        """The same embeddings, kept in a store.

        Args:
            store: bytes under string keys, such as LangChain's ``LocalFileStore``; several models may share it.
            queries: whether queries are kept, too.
        """
        return CachedEmbeddings(self, store, queries=queries)

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Embed documents with the model's document prompt.

        Args:
            texts: n texts, in a list, an array, a column of a table; none give an empty list.

        Returns:
            n unit vectors of the model's dimension, in order.

        Raises:
            TypeError: it is one string.
        """
        listed = listed_texts(texts)
        return self._encoder.encode_documents(listed).tolist() if listed else []

    def embed_query(self, text: str) -> list[float]:
        """Embed one query with the model's query prompt, as a unit vector."""
        return self._encoder.encode_queries([text])[0].tolist()

    async def aembed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Like :meth:`embed_documents`, in a thread: the event loop stays free."""
        return await run_in_executor(None, self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Like :meth:`embed_query`, in a thread: the event loop stays free."""
        return await run_in_executor(None, self.embed_query, text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._encoder.model_path!r})"
