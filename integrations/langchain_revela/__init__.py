"""LangChain components of revela-rag: embeddings, a retriever, a vector store, and tools for agents.

Example:
    >>> from langchain_revela import RevelaRetriever  # doctest: +SKIP
    >>> retriever = RevelaRetriever(index="my-index", k=3)  # doctest: +SKIP
    >>> retriever.invoke("how is the cache invalidated?")  # doctest: +SKIP
"""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    from revela_rag.errors import MissingExtraError

    raise MissingExtraError("langchain-core", "langchain", "the LangChain integration") from error

from langchain_revela.cache import CachedEmbeddings
from langchain_revela.corpus_tools import create_corpus_tools
from langchain_revela.embeddings import RevelaEmbeddings
from langchain_revela.retriever import RevelaRetriever
from langchain_revela.tool import ToolRetriever, create_revela_tool, select_tools
from langchain_revela.translator import RevelaTranslator
from langchain_revela.vectorstore import RevelaVectorStore

__all__ = [
    "CachedEmbeddings",
    "RevelaEmbeddings",
    "RevelaRetriever",
    "RevelaTranslator",
    "RevelaVectorStore",
    "ToolRetriever",
    "create_corpus_tools",
    "create_revela_tool",
    "select_tools",
]
