"""Retrieval of tools, for LlamaIndex agents that have many."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.objects import ObjectRetriever, SimpleToolNodeMapping
from llama_index.core.objects.tool_node_mapping import convert_tool_to_node
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, QueryType
from llama_index.core.tools import BaseTool, FunctionTool

from revela_rag.agent.toolbox import Entry, Toolbox, namespaced, shown
from revela_rag.corpus.tools.definitions import tool_definition
from revela_rag.errors import IndexingError
from revela_rag.index import Mode
from revela_rag.index.types import check_k
from revela_rag.model.encoder import Encoder

if TYPE_CHECKING:
    from revela_rag.evaluation import Evaluation

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
        tools: Sequence[BaseTool | Callable[..., Any]] = (),
        *,
        model: str | Path | Encoder,
        similarity_top_k: int = 5,
        mode: Mode = "hybrid",
        node_postprocessors: list[BaseNodePostprocessor] | None = None,
    ) -> None:
        check_k(similarity_top_k, "similarity_top_k")
        toolbox: Toolbox[BaseTool] = Toolbox(model=model, mode=mode)
        self._ranked = _Ranked(toolbox, similarity_top_k)
        super().__init__(self._ranked, _Mapping(toolbox), node_postprocessors)
        self.add(tools)

    def __len__(self) -> int:
        return len(self._ranked.toolbox)

    @property
    def registry(self) -> dict[str, BaseTool]:
        """Every tool by its name."""
        return self._ranked.toolbox.registry

    def add(
        self, tools: Sequence[BaseTool | Callable[..., Any]], *, replace: bool = False, namespace: str = ""
    ) -> list[str]:
        """Add tools, embedding those that are new, and return the id of each, the SHA-256 of its schema.

        Args:
            tools: LlamaIndex tools, or functions with docstrings.
            replace: whether a tool takes the place of one of its name that has another schema, or was connected anew.
            namespace: of an MCP server or another source: its tools are called ``namespace_name``, so that several
                may offer tools of one name. They run as before.

        Raises:
            IndexingError: something is no tool, or two tools have one name and ``replace`` is False.
        """
        if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
            raise _refusal(tools, "no tool" if _as_tool(tools) is None else "no list of tools")
        named = [_renamed(_tool(tool), namespace) for tool in tools]
        entries = [Entry(tool, tool_definition(tool) or {}) for tool in named]
        return self._ranked.toolbox.add(entries, replace=replace, namespace=namespace)

    def remove(self, names: Iterable[str] = (), *, namespace: str | None = None) -> int:
        """Remove tools by name, passing over unknown ones, and all of a namespace; gives how many were removed."""
        return self._ranked.toolbox.remove(names, namespace=namespace)

    def retrieve(self, str_or_query_bundle: QueryType) -> list[BaseTool]:
        """The tools that fit a request, best first."""
        return [tool for tool in super().retrieve(str_or_query_bundle) if tool is not None]

    async def aretrieve(self, str_or_query_bundle: QueryType) -> list[BaseTool]:
        """The tools that fit a request, best first."""
        return [tool for tool in await super().aretrieve(str_or_query_bundle) if tool is not None]

    def evaluate(self, needed: Mapping[str, Iterable[str]], *, k: int | None = None) -> Evaluation:
        """How well tools are picked for requests of which it is known what they need, without postprocessors.

        Args:
            needed: request to the names of the tools that it needs.
            k: of All@k; None means ``similarity_top_k``.

        Returns:
            nDCG@10, Recall@100, MRR@10, and All@k: the share of requests that are shown every tool they need.

        Raises:
            IndexingError: a tool that is needed is not here.
        """
        k = self.similarity_top_k if k is None else k
        return self._ranked.toolbox.evaluate(needed, k=k, name=f"tools, {self.mode}")

    @property
    def similarity_top_k(self) -> int:
        """How many tools to pick; may be set at any time."""
        return self._ranked.similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, similarity_top_k: int) -> None:
        check_k(similarity_top_k, "similarity_top_k")
        self._ranked.similarity_top_k = similarity_top_k

    @property
    def mode(self) -> Mode:
        """What ranks the tools; may be set at any time."""
        return self._ranked.toolbox.ranker.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._ranked.toolbox.ranker.mode = mode


class _Ranked(BaseRetriever):
    """The nodes of the best tools."""

    def __init__(self, toolbox: Toolbox[BaseTool], similarity_top_k: int) -> None:
        super().__init__()
        self.similarity_top_k = similarity_top_k
        self.toolbox = toolbox

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.toolbox.search(query_bundle.query_str, self.similarity_top_k)
        return [NodeWithScore(node=convert_tool_to_node(tool), score=score) for tool, score in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class _Mapping(SimpleToolNodeMapping):
    """Finds the tool of a node by its name; None where it was removed meanwhile."""

    def __init__(self, toolbox: Toolbox[BaseTool]) -> None:
        super().__init__()
        self._toolbox = toolbox

    def _from_node(self, node: BaseNode) -> Any:
        return self._toolbox.registry.get(node.metadata["name"])


def _renamed(tool: BaseTool, namespace: str) -> BaseTool:
    """A tool under the name that it has in a namespace."""
    if not namespace:
        return tool
    name = namespaced(tool.metadata.get_name(), namespace)
    copied = copy.copy(tool)
    with suppress(AttributeError, TypeError):
        copied._metadata = replace(tool.metadata, name=name)  # type: ignore[attr-defined]
    if copied.metadata.name != name:
        raise IndexingError(f"A {type(tool).__name__} cannot be renamed; call it {name!r} where it is made.")
    return copied


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
    return IndexingError(
        f"{shown(given)} is {what}; give a list of LlamaIndex tools and functions with docstrings (for what has no "
        "name of its own, such as a functools.partial, FunctionTool.from_defaults(fn, name=..., description=...))."
    )
