"""Retrieval of tools, for LlamaIndex agents that have many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.objects import ObjectRetriever, SimpleToolNodeMapping
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.tools import BaseTool, FunctionTool

from revela_rag.corpus.tools.definitions import describe_tool, tool_definition
from revela_rag.errors import IndexingError
from revela_rag.index import Mode
from revela_rag.model.encoder import Encoder
from revela_rag.ranker import Ranker

__all__ = ["ToolRetriever"]


class ToolRetriever(ObjectRetriever[BaseTool]):
    """Picks the tools that fit a request, so that an agent with hundreds of tools is shown a handful.

    Goes where an agent takes a ``tool_retriever``. Name, description and parameters of a tool are a document, the same
    that `revela adapt` reads, and the request is the query.

    Args:
        tools: LlamaIndex tools, or functions with docstrings; each name once.
        model: model that embeds tools and requests, for example one that `revela adapt` made of the tools.
        similarity_top_k: how many tools to pick.
        mode: ``"hybrid"`` ranks by the model and BM25 together, ``"dense"`` by the model alone, ``"lexical"`` by BM25
            alone.
        node_postprocessors: rerankers and filters over the nodes of the tools found.

    Raises:
        IndexingError: something is no tool, two tools have one name, ``similarity_top_k`` is below 1, or the mode has
            another name.

    Example:
        >>> from llama_index.retrievers.revela import ToolRetriever
        >>> tools = ToolRetriever([get_weather, book_train], model="my-retriever")  # doctest: +SKIP
        >>> FunctionAgent(tool_retriever=tools, llm=llm)  # doctest: +SKIP
    """

    def __init__(
        self,
        tools: Sequence[BaseTool | Callable[..., Any]],
        *,
        model: str | Path | Encoder,
        similarity_top_k: int = 5,
        mode: Mode = "hybrid",
        node_postprocessors: list[BaseNodePostprocessor] | None = None,
    ) -> None:
        _at_least_one(similarity_top_k)
        if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
            raise _refusal(tools, "no tool" if _as_tool(tools) is None else "no list of tools")
        given = [_tool(tool) for tool in tools]
        names = Counter(tool.metadata.get_name() for tool in given)
        if twice := [name for name, count in names.items() if count > 1]:
            raise IndexingError(
                f"Two tools are called {twice[0]!r}; an agent calls tools by name, so give each its own."
            )
        mapping = SimpleToolNodeMapping.from_objects(given)
        ranker = Ranker(model=model, mode=mode)
        ranker.add({tool.metadata.get_name(): describe_tool(tool_definition(tool) or {}) for tool in given})
        nodes = {tool.metadata.get_name(): mapping.to_node(tool) for tool in given}
        self._ranked = _Ranked(ranker, nodes, similarity_top_k)
        super().__init__(self._ranked, mapping, node_postprocessors)

    @property
    def similarity_top_k(self) -> int:
        """How many tools to pick; may be set at any time."""
        return self._ranked.similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, similarity_top_k: int) -> None:
        self._ranked.similarity_top_k = _at_least_one(similarity_top_k)

    @property
    def mode(self) -> Mode:
        """What ranks the tools; may be set at any time."""
        return self._ranked.ranker.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._ranked.ranker.mode = mode


class _Ranked(BaseRetriever):
    """The nodes of the best tools."""

    def __init__(self, ranker: Ranker, nodes: dict[str, BaseNode], similarity_top_k: int) -> None:
        super().__init__()
        self.similarity_top_k = similarity_top_k
        self.ranker = ranker
        self._nodes = nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.ranker.search(query_bundle.query_str, self.similarity_top_k)
        return [NodeWithScore(node=self._nodes[name], score=score) for name, score in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _tool(given: Any) -> BaseTool:
    tool = _as_tool(given)
    if tool is None:
        raise _refusal(given, "no tool")
    return tool


def _as_tool(given: Any) -> BaseTool | None:
    if isinstance(given, BaseTool):
        return given
    if not callable(given) or not hasattr(given, "__name__"):
        return None
    try:
        return FunctionTool.from_defaults(given)
    except ValueError:  # a builtin type
        return None


def _refusal(given: Any, what: str) -> IndexingError:
    shown = repr(given)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return IndexingError(
        f"{shown} is {what}; give a list of LlamaIndex tools and functions with docstrings (for what has no name of "
        "its own, such as a functools.partial, FunctionTool.from_defaults(fn, name=..., description=...))."
    )


def _at_least_one(similarity_top_k: int) -> int:
    if similarity_top_k < 1:
        raise IndexingError(f"similarity_top_k={similarity_top_k} must be at least 1.")
    return similarity_top_k
