"""Retrieval as a tool for agents, and retrieval of tools for agents that have many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import BasePromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, run_in_executor
from langchain_core.tools import BaseTool, create_retriever_tool
from langchain_core.tools import tool as as_tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_revela.retriever import RevelaRetriever
from revela_rag.agent.toolbox import Entry, Toolbox, namespaced, shown
from revela_rag.corpus.tools.definitions import definitions, tool_definition, tool_document
from revela_rag.errors import IndexingError
from revela_rag.index import Index, Mode
from revela_rag.index.types import check_k
from revela_rag.model.encoder import Encoder

if TYPE_CHECKING:
    from revela_rag.evaluation import Evaluation

__all__ = ["Tool", "ToolRetriever", "create_revela_tool", "select_tools"]

#: Whatever a LangChain chat model can bind: a tool, a function, a pydantic class, a schema.
Tool = BaseTool | Callable[..., Any] | type | dict[str, Any]
#: Whatever has a request in it, see `request_of`.
ToolQuery = str | PromptValue | BaseMessage | Sequence[Any] | Mapping[str, Any]


def create_revela_tool(
    index: Index | str | Path | RevelaRetriever,
    *,
    name: str,
    description: str,
    document_prompt: BasePromptTemplate | None = None,
    **kwargs: Any,
) -> BaseTool:
    """An agent's search tool over an index.

    The model sees every passage as ``document_prompt`` writes it; the documents with their scores are the artifact of
    the tool message.

    Args:
        index: an index, its directory, or a retriever over one.
        name: what the model calls the tool: letters, digits, ``_`` and ``-``.
        description: tells the model what the index holds and when to ask it.
        document_prompt: how a passage is shown, from ``page_content`` and its metadata; None puts the source above it.
        kwargs: fields of :class:`RevelaRetriever`, such as ``k`` and ``filter``, when ``index`` is not a
            retriever; ``with_scores`` is on.
    """
    if isinstance(index, RevelaRetriever):
        retriever = index
    else:
        retriever = RevelaRetriever(index=index, **{"with_scores": True, **kwargs})
    if isinstance(index, RevelaRetriever) and kwargs:
        raise IndexingError(f"{sorted(kwargs)} belong to the retriever, and one was given: set them there.")
    return create_retriever_tool(
        retriever,
        name,
        description,
        document_prompt=document_prompt or PromptTemplate.from_template("[{source}]\n{page_content}"),
        response_format="content_and_artifact",
    )


class ToolRetriever(Runnable[ToolQuery, list[Any]]):
    """Picks the tools that fit a request, so that a model with hundreds of tools is shown a handful.

    Name, description and parameters of a tool are a document, the same that `revela adapt` reads, and the request is
    the query. A tool's id is the SHA-256 of its schema: adding the same tool again changes nothing.
    Threads may pick tools while others add and remove some.

    A Runnable: ``invoke`` takes a string, messages (the last of a person counts), a prompt, or the state of a graph
    with ``messages``, and gives what :meth:`select` does.

    Args:
        tools: LangChain tools, functions with docstrings, pydantic classes, definitions in the form of OpenAI,
            Anthropic or MCP, or the answer of an MCP server to ``tools/list``; each name once.
        model: model that embeds tools and requests, for example one that `revela adapt` made of the tools.
        k: how many tools to pick.
        mode: ``"hybrid"`` ranks by the model and BM25 together, ``"dense"`` by the model alone, ``"lexical"`` by BM25
            alone.

    Raises:
        IndexingError: something is no tool, two tools have one name, ``k`` is below 1, or the mode has another name.

    Example:
        >>> tools = ToolRetriever(k=5, model="my-retriever")  # doctest: +SKIP
        >>> for server in ("github", "jira"):  # doctest: +SKIP
        ...     tools.add(await client.get_tools(server_name=server), namespace=server)
        >>> chat_model.bind_tools(tools.invoke(messages)).invoke(messages)  # doctest: +SKIP
    """

    def __init__(
        self,
        tools: Sequence[Tool] | dict[str, Any] = (),
        *,
        model: str | Path | Encoder,
        k: int = 5,
        mode: Mode = "hybrid",
    ) -> None:
        self.k = k
        self._toolbox: Toolbox[Tool] = Toolbox(model=model, mode=mode)
        self.add(tools)

    def __len__(self) -> int:
        return len(self._toolbox)

    @property
    def InputType(self) -> Any:
        """What :meth:`invoke` takes."""
        return str | list[AnyMessage] | dict[str, Any]

    @property
    def OutputType(self) -> Any:
        """What :meth:`invoke` gives."""
        return list[Any]

    @property
    def k(self) -> int:
        """How many tools to pick; may be set at any time."""
        return self._k

    @k.setter
    def k(self, k: int) -> None:
        check_k(k)
        self._k = k

    @property
    def mode(self) -> Mode:
        """What ranks the tools; may be set at any time."""
        return self._toolbox.ranker.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._toolbox.ranker.mode = mode

    @property
    def registry(self) -> dict[str, Tool]:
        """Every tool by its name: the ``tool_registry`` of langgraph-bigtool, or what a tool node runs."""
        return self._toolbox.registry

    def add(self, tools: Sequence[Tool] | dict[str, Any], *, replace: bool = False, namespace: str = "") -> list[str]:
        """Add tools, embedding those that are new, and return the id of each.

        Args:
            tools: as for the class.
            replace: whether a tool takes the place of one of its name that has another schema, or was connected anew.
            namespace: of an MCP server or another source: its tools are called ``namespace_name``, so that several
                may offer tools of one name. They run as before.

        Raises:
            IndexingError: something is no tool, or two tools have one name and ``replace`` is False.
        """
        named = [_renamed(tool, namespace) for tool in _single(tools)]
        return self._toolbox.add([Entry(tool, _schema(tool)) for tool in named], replace=replace, namespace=namespace)

    def remove(self, names: Iterable[str] = (), *, namespace: str | None = None) -> int:
        """Remove tools by name, passing over unknown ones, and all of a namespace; gives how many were removed."""
        return self._toolbox.remove(names, namespace=namespace)

    def search(self, query: str, *, k: int | None = None) -> list[tuple[Tool, float]]:
        """The best ``k`` tools for a request, best first, with what they are ranked by.

        That is :func:`revela_rag.fusion.fused_scores`, which compare tools of one request only; the cosine in mode
        ``"dense"``; BM25 in mode ``"lexical"``, where tools that share no word with the request are left out.
        """
        return self._toolbox.search(query, self.k if k is None else k)

    def select(self, query: str, *, k: int | None = None) -> list[Tool]:
        """The best ``k`` tools for a request, ready for ``chat_model.bind_tools``.

        Tools are what was given, but for definitions as MCP servers list them, whose ``inputSchema`` LangChain does not
        read: these come in the form of OpenAI.
        """
        return [_bindable(tool) for tool, _ in self.search(query, k=k)]

    async def aselect(self, query: str, *, k: int | None = None) -> list[Tool]:
        """Like :meth:`select`, in a thread."""
        return await run_in_executor(None, self.select, query, k=k)

    def invoke(self, input: ToolQuery, config: RunnableConfig | None = None, **kwargs: Any) -> list[Any]:
        """:meth:`select` for a request in any form that chains and graphs pass on.

        Args:
            input: a string, messages, a prompt, or a mapping with ``messages``.
            config: callbacks, tags and such.
            kwargs: ``k``, where another than the retriever's is wanted.

        Raises:
            IndexingError: there is no request in it.
        """
        return self._call_with_config(self._picked, input, config, run_type="retriever", **kwargs)

    def _picked(self, given: ToolQuery, **kwargs: Any) -> list[Any]:
        return self.select(request_of(given), **kwargs)

    def retrieve_tools(self, query: str) -> list[str]:
        """Retrieve a tool to use, given a search query."""
        # the model is shown this docstring: langgraph-bigtool makes a tool of the method (retrieve_tools_function)
        return [_schema(tool)["name"] for tool, _ in self.search(query)]

    async def aretrieve_tools(self, query: str) -> list[str]:
        """Retrieve a tool to use, given a search query."""
        return await run_in_executor(None, self.retrieve_tools, query)

    def evaluate(self, needed: Mapping[str, Iterable[str]], *, k: int | None = None) -> Evaluation:
        """How well tools are picked for requests of which it is known what they need.

        Args:
            needed: request to the names of the tools that it needs.
            k: of All@k; None means the retriever's.

        Returns:
            nDCG@10, Recall@100, MRR@10, and All@k: the share of requests that are shown every tool they need.

        Raises:
            IndexingError: a tool that is needed is not here.
        """
        return self._toolbox.evaluate(needed, k=self.k if k is None else k, name=f"tools, {self.mode}")


def select_tools(
    tools: Sequence[Tool] | dict[str, Any], query: str, *, model: str | Path | Encoder, k: int = 5
) -> list[Tool]:
    """The ``k`` of ``tools`` that fit ``query`` best; for many queries keep a :class:`ToolRetriever`."""
    return ToolRetriever(tools, model=model, k=k).select(query)


def _bindable(tool: Tool) -> Tool:
    if not isinstance(tool, dict) or "inputSchema" not in tool:
        return tool
    function = {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool["inputSchema"]}
    return {"type": "function", "function": function}


def _single(tools: Sequence[Tool] | dict[str, Any]) -> Iterator[Tool]:
    """The tools, those inside an answer of an MCP server one by one."""
    if isinstance(tools, str | bytes | Path):
        raise _no_tool(tools)
    for tool in [tools] if isinstance(tools, dict) else tools:
        whole = not isinstance(tool, dict) or tool_document(tool) is not None
        yield from [tool] if whole else definitions(tool)


def _schema(tool: Tool) -> dict[str, Any]:
    """Name, description and parameters of a tool, as `revela adapt` reads them where it reads such."""
    if isinstance(tool, dict) and tool_document(tool) is not None:
        return dict(next(definitions(tool)))
    if isinstance(tool, dict) and not isinstance(tool.get("name", tool.get("title")), str):
        raise _no_tool(tool)
    if not isinstance(tool, dict | BaseTool) and not callable(tool):
        raise _no_tool(tool)
    definition = None if isinstance(tool, dict) else tool_definition(tool)
    return convert_to_openai_tool(tool)["function"] if definition is None else dict(definition)


def _renamed(tool: Tool, namespace: str) -> Tool:
    """A tool under the name that it has in a namespace."""
    if not namespace:
        return tool
    name = namespaced(_schema(tool)["name"], namespace)
    if isinstance(tool, BaseTool):
        return tool.model_copy(update={"name": name})
    if isinstance(tool, dict):
        inner = next((key for key in ("function", "toolSpec") if isinstance(tool.get(key), dict)), None)
        if inner:
            return {**tool, inner: {**tool[inner], "name": name}}
        return {**tool, ("name" if "name" in tool else "title"): name}
    if isinstance(tool, type):
        return {"type": "function", "function": {**_schema(tool), "name": name}}
    return as_tool(name)(tool)


def request_of(given: Any) -> str:
    """The request in what a chain or a graph passes on: a string, messages, a prompt, or a mapping with messages.

    Raises:
        IndexingError: there is none in it.
    """
    if isinstance(given, Mapping):
        given = given.get("messages", given)
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, str):
        return given
    if isinstance(given, BaseMessage):
        return given.text
    if isinstance(given, Sequence) and given:
        messages = convert_to_messages(given)
        asked = [message for message in messages if isinstance(message, HumanMessage)] or messages
        return asked[-1].text
    raise IndexingError(
        f'There is no request in {shown(given)}; give a string, messages, a prompt, or a mapping with "messages".'
    )


def _no_tool(given: Any) -> IndexingError:
    return IndexingError(
        f"{shown(given)} is no tool; give LangChain tools, functions with docstrings, pydantic classes, definitions "
        "in the form of OpenAI, Anthropic or MCP, or the parsed answer of an MCP server to tools/list."
    )
