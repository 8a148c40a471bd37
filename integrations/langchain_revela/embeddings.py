"""Embeddings that always apply the model's own prompts."""

from __future__ import annotations

from pathlib import Path

from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor

from revela_rag.model.encoder import Dtype, Encoder

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
        """Share an encoder that exists, for example that of an open index, instead of loading it twice."""
        embeddings = cls.__new__(cls)
        embeddings._encoder = encoder
        return embeddings

    @property
    def encoder(self) -> Encoder:
        """The encoder that does the work."""
        return self._encoder

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors; use it as the namespace of a cache."""
        return self._encoder.fingerprint

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents with the model's document prompt.

        Args:
            texts: n texts; an empty list gives an empty list.

        Returns:
            n unit vectors of the model's dimension, in order.
        """
        if not texts:
            return []
        return self._encoder.encode_documents(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Embed one query with the model's query prompt, as a unit vector."""
        return self._encoder.encode_queries([text])[0].tolist()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like :meth:`embed_documents`, in a thread: the event loop stays free."""
        return await run_in_executor(None, self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Like :meth:`embed_query`, in a thread: the event loop stays free."""
        return await run_in_executor(None, self.embed_query, text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._encoder.model_path!r})"
