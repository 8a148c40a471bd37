"""Retrieval as a tool for agents, and retrieval of tools for agents that have many."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import run_in_executor
from langchain_core.tools import BaseTool, create_retriever_tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_revela.retriever import RevelaRetriever
from revela_rag.corpus.tools.definitions import definitions, describe_tool, tool_definition, tool_document
from revela_rag.errors import IndexingError
from revela_rag.index import Index, Mode
from revela_rag.index.types import check_k
from revela_rag.model.encoder import Encoder
from revela_rag.ranker import Ranker

__all__ = ["Tool", "ToolRetriever", "create_revela_tool", "select_tools"]

#: Whatever a LangChain chat model can bind: a tool, a function, a pydantic class, a schema.
Tool = BaseTool | Callable[..., Any] | type | dict[str, Any]


def create_revela_tool(
    index: Index | str | Path | RevelaRetriever, *, name: str, description: str, **kwargs: Any
) -> BaseTool:
    """An agent's search tool over an index.

    The model sees every passage after the name of its source; the documents with their scores are the
    artifact of the tool message.

    Args:
        index: an index, its directory, or a retriever over one.
        name: what the model calls the tool: letters, digits, ``_`` and ``-``.
        description: tells the model what the index holds and when to ask it.
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
        document_prompt=PromptTemplate.from_template("[{source}]\n{page_content}"),
        response_format="content_and_artifact",
    )


class ToolRetriever:
    """Picks the tools that fit a request, so that a model with hundreds of tools is shown a handful.

    Name, description and parameters of a tool are a document, the same that `revela adapt` reads, and the request is
    the query. A tool's id is the SHA-256 of its schema: adding the same tool again changes nothing.
    Threads may pick tools while others add and remove some.

    Args:
        tools: LangChain tools, functions with docstrings, pydantic classes, definitions in the form of OpenAI,
            Anthropic or MCP, or the answer of an MCP server to ``tools/list``; each name once.
        model: model that embeds tools and requests, for example one that `revela adapt` made of the tools.
        k: how many tools to pick.
        mode: ``"hybrid"`` ranks by the model and BM25 together, ``"dense"`` by the model alone, ``"lexical"`` by BM25
            alone.

    Raises:
        IndexingError: something is no tool, two tools have one name, ``k`` is below 1, or the mode has another name.
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
        self._ranker = Ranker(model=model, mode=mode)
        self._tools: dict[str, Tool] = {}
        self._named: dict[str, str] = {}  # the id of the tool of each name
        self._changing = threading.Lock()
        self.add(tools)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changing=threading.Lock())

    def __len__(self) -> int:
        return len(self._ranker)

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
        return self._ranker.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._ranker.mode = mode

    def add(self, tools: Sequence[Tool] | dict[str, Any]) -> list[str]:
        """Add tools, embedding those that are new, and return the id of each.

        A tool whose schema changed takes the place of the old one once that is removed.
        """
        given = list(_single(tools))
        schemas = [_schema(tool) for tool in given]
        ids = [hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest() for schema in schemas]
        texts = {id_: describe_tool(schema) for id_, schema in zip(ids, schemas, strict=True)}
        with self._changing:
            named, held = dict(self._named), self._tools
            for id_, schema in zip(ids, schemas, strict=True):
                if named.setdefault(schema["name"], id_) != id_:
                    raise _same_name(schema["name"], here=schema["name"] in self._named)
            self._tools = dict(zip(ids, given, strict=True)) | held  # first: searches look up what the ranker finds
            try:
                self._ranker.add(texts)
            except BaseException:
                self._tools = held
                raise
            self._named = named
        return ids

    def remove(self, names: Iterable[str]) -> int:
        """Remove tools by name, passing over unknown ones; gives how many were removed."""
        if isinstance(names, str):
            raise IndexingError(f"names is one string, {names!r}; pass a list of names.")
        with self._changing:
            gone = {name: id_ for name in names if (id_ := self._named.get(name)) is not None}
            self._ranker.remove(gone.values())  # first: what it finds must have its tool
            self._tools = {id_: tool for id_, tool in self._tools.items() if id_ not in gone.values()}
            self._named = {name: id_ for name, id_ in self._named.items() if name not in gone}
        return len(gone)

    def search(self, query: str, *, k: int | None = None) -> list[tuple[Tool, float]]:
        """The best ``k`` tools for a request, best first, with what they are ranked by.

        That is :func:`revela_rag.fusion.fused_scores`, which compare tools of one request only; the cosine in mode
        ``"dense"``; BM25 in mode ``"lexical"``, where tools that share no word with the request are left out.
        """
        before = self._tools
        found = self._ranker.search(query, self.k if k is None else k)
        tools = before | self._tools  # one may have been added or removed meanwhile
        return [(tools[id_], score) for id_, score in found if id_ in tools]

    def select(self, query: str, *, k: int | None = None) -> list[Tool]:
        """The best ``k`` tools for a request, ready for ``chat_model.bind_tools``.

        Tools are what was given, but for definitions as MCP servers list them, whose ``inputSchema`` LangChain does not
        read: these come in the form of OpenAI.
        """
        return [_bindable(tool) for tool, _ in self.search(query, k=k)]

    async def aselect(self, query: str, *, k: int | None = None) -> list[Tool]:
        """Like :meth:`select`, in a thread."""
        return await run_in_executor(None, self.select, query, k=k)


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


def _same_name(name: str, *, here: bool) -> IndexingError:
    if here:
        remedy = f"one is here already, with another schema; remove it first: retriever.remove([{name!r}])"
    else:
        remedy = "an agent calls tools by name, so give each its own"
    return IndexingError(f"Two tools are called {name!r}; {remedy}.")


def _no_tool(given: Any) -> IndexingError:
    shown = repr(given)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
    return IndexingError(
        f"{shown} is no tool; give LangChain tools, functions with docstrings, pydantic classes, definitions in the "
        "form of OpenAI, Anthropic or MCP, or the parsed answer of an MCP server to tools/list."
    )
