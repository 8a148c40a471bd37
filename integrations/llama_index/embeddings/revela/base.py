"""An embedding model that always applies its own prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index.embeddings.revela.cache import RoleCache, embedding_role
from llama_index.embeddings.revela.vector import ModelVector
from revela_rag.errors import ModelError
from revela_rag.model.encoder import Dtype, Encoder

__all__ = ["RevelaEmbedding"]


class RevelaEmbedding(BaseEmbedding):
    """A sentence-transformers model as a LlamaIndex embedding.

    The query prompt is applied to queries and the document prompt to nodes, both as stored in the model:
    LlamaIndex's own Hugging Face embedding overwrites them with nothing. Vectors have length 1. The
    fingerprint is a field, so the cache of an ``IngestionPipeline`` misses when the model changes behind
    the same name, and an ``embeddings_cache`` keeps queries apart from nodes and models apart from each
    other.

    Args:
        model_name: directory of a model (``revela adapt`` writes one), a Hugging Face id, or
            ``"all-MiniLM-L6-v2"``; for an encoder see :meth:`from_encoder`.
        device: torch device such as ``"cuda:0"``; default: the best one found.
        max_length: longest input in tokens; default: what the model says.
        embed_batch_size: texts encoded at a time.
        dtype: floating point type of the model's weights and arithmetic.
        trust_remote_code: run code that comes with the model. Off unless you have read that code; never
            serialised.
        fingerprint: the fingerprint the model must have; default: whatever it has.
        kwargs: the other fields of ``BaseEmbedding``, such as ``num_workers`` and ``embeddings_cache``.

    Raises:
        ModelError: the model does not exist, cannot be loaded, or has another fingerprint.

    Example:
        >>> from llama_index.embeddings.revela import RevelaEmbedding
        >>> embedding = RevelaEmbedding("my-adapted-model")  # doctest: +SKIP
        >>> embedding.get_query_embedding("how is the cache invalidated?")  # doctest: +SKIP
    """

    device: str | None = Field(default=None, description="Torch device, such as 'cuda:0'; None for the best one.")
    max_length: int | None = Field(default=None, description="Longest input in tokens; None for the model's own.")
    dtype: Dtype = Field(default="float32", description="Floating point type of weights and arithmetic.")
    trust_remote_code: bool = Field(default=False, exclude=True, description="Run code that comes with the model.")
    # a store is no part of what the model is: serialised or not, whoever reads it brings another
    embeddings_cache: Any = Field(default=None, exclude=True, description="Where vectors are kept.")
    fingerprint: str = Field(description="Hash of weights, tokenizer, prompts, pooling and maximum length.")

    _encoder: Encoder = PrivateAttr()

    def __init__(
        self,
        model_name: str | Path | Encoder,
        *,
        device: str | None = None,
        max_length: int | None = None,
        embed_batch_size: int = 32,
        dtype: Dtype = "float32",
        trust_remote_code: bool = False,
        fingerprint: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(model_name, Encoder):
            encoder = model_name
        else:
            encoder = Encoder(
                model_name,
                device=device,
                max_length=max_length,
                batch_size=embed_batch_size,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
            )
        if fingerprint is not None and fingerprint != encoder.fingerprint:
            raise ModelError(
                f"The model {str(model_name)!r} has fingerprint {encoder.fingerprint}, not {fingerprint}: "
                "it has changed. Restore that model, or leave fingerprint out and embed the documents again."
            )
        fields: dict[str, Any] = {
            "model_name": encoder.name,
            "device": device,
            "max_length": max_length,
            "embed_batch_size": embed_batch_size,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "fingerprint": encoder.fingerprint,
        }
        super().__init__(**fields, **kwargs)
        self._encoder = encoder
        if self.embeddings_cache is not None:
            self.embeddings_cache = RoleCache(self.embeddings_cache, self.fingerprint)

    @classmethod
    def from_encoder(cls, encoder: Encoder, **kwargs: Any) -> RevelaEmbedding:
        """Share an encoder that exists: that of an open index, or ``Encoder.over`` embeddings behind an API.

        Args:
            encoder: what embeds.
            kwargs: fields of ``BaseEmbedding``, such as ``embed_batch_size`` and ``embeddings_cache``.
        """
        return cls(encoder, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises this class under."""
        return "RevelaEmbedding"

    @property
    def encoder(self) -> Encoder:
        """The encoder that does the work."""
        return self._encoder

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> RevelaEmbedding:
        """A copy that shares the loaded model."""
        return self.model_copy()

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query with the model's query prompt, as a unit vector that says which model it is of."""
        with embedding_role("query"):
            return ModelVector(super().get_query_embedding(query), self.fingerprint)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Like :meth:`get_query_embedding`, in a thread: the event loop stays free."""
        with embedding_role("query"):
            return ModelVector(await super().aget_query_embedding(query), self.fingerprint)

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """One vector of several queries, by default their mean; it says which model it is of."""
        return ModelVector(super().get_agg_embedding_from_queries(queries, agg_fn), self.fingerprint)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Like :meth:`get_agg_embedding_from_queries`, in a thread."""
        return ModelVector(await super().aget_agg_embedding_from_queries(queries, agg_fn), self.fingerprint)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._encoder.encode_queries([query])[0].tolist()

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._encoder.encode_documents(texts).tolist()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
