"""LlamaIndex retriever of revela-rag.

Example:
    >>> from llama_index.retrievers.revela import RevelaRetriever  # doctest: +SKIP
    >>> RevelaRetriever("my-index", similarity_top_k=3).retrieve("what clears the cache?")  # doctest: +SKIP
"""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    from revela_rag.errors import MissingExtraError

    raise MissingExtraError("llama-index-core", "llama-index", "the LlamaIndex integration") from error

from llama_index.retrievers.revela.base import RevelaRetriever
from llama_index.retrievers.revela.corpus_tools import create_corpus_tools
from llama_index.retrievers.revela.search_tool import create_revela_tool
from llama_index.retrievers.revela.tools import ToolRetriever

__all__ = ["RevelaRetriever", "ToolRetriever", "create_corpus_tools", "create_revela_tool"]
