"""LlamaIndex node postprocessor of revela-rag.

Example:
    >>> from llama_index.postprocessor.revela import RevelaRerank  # doctest: +SKIP
    >>> rerank = RevelaRerank(cross_encoder, top_n=3)  # doctest: +SKIP
    >>> query_engine = RetrieverQueryEngine.from_args(retriever, node_postprocessors=[rerank])  # doctest: +SKIP
"""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    from revela_rag.errors import MissingExtraError

    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex integration") from error

from llama_index.postprocessor.revela.base import RevelaRerank

__all__ = ["RevelaRerank"]
