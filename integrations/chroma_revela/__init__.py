"""The model as an embedding function of Chroma, for collections that are used without :class:`revela_rag.Index`.

Importing this package registers it, so that Chroma finds it again when a collection is opened.

Example:
    >>> from chroma_revela import RevelaEmbeddingFunction  # doctest: +SKIP
    >>> function = RevelaEmbeddingFunction("my-model")  # doctest: +SKIP
    >>> client.create_collection("docs", embedding_function=function)  # doctest: +SKIP
"""

from chroma_revela.function import RevelaEmbeddingFunction

__all__ = ["RevelaEmbeddingFunction"]
