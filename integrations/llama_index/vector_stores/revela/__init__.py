"""LlamaIndex vector store of revela-rag.

Example:
    >>> from llama_index.vector_stores.revela import RevelaVectorStore  # doctest: +SKIP
    >>> store = RevelaVectorStore("my-store", model="my-adapted-model")  # doctest: +SKIP
    >>> index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model())  # doctest: +SKIP
"""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    from revela_rag.errors import MissingExtraError

    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex integration") from error

from llama_index.vector_stores.revela.base import RevelaVectorStore

__all__ = ["RevelaVectorStore"]
