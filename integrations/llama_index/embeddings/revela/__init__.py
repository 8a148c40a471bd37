"""LlamaIndex embedding of revela-rag.

Example:
    >>> from llama_index.embeddings.revela import RevelaEmbedding  # doctest: +SKIP
    >>> VectorStoreIndex.from_documents(documents, embed_model=RevelaEmbedding("my-model"))  # doctest: +SKIP
"""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    from revela_rag.errors import MissingExtraError

    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex integration") from error

from llama_index.embeddings.revela.base import RevelaEmbedding
from llama_index.embeddings.revela.vector import ModelVector

__all__ = ["ModelVector", "RevelaEmbedding"]
