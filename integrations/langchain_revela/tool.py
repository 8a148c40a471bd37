"""Retrieval as a tool for agents, and retrieval of tools for agents that have many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import run_in_executor
from langchain_core.tools import BaseTool, create_retriever_tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_revela.retriever import RevelaRetriever
from revela_rag.corpus.tools import describe_tool
from revela_rag.encoder import Encoder
from revela_rag.errors import IndexingError
from revela_rag.index import Index, Mode
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
            retriever.
    """
    retriever = index if isinstance(index, RevelaRetriever) else RevelaRetriever(index=index, **kwargs)
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

    Args:
        tools: LangChain tools, functions with docstrings, pydantic classes, or OpenAI schemas.
        model: model that embeds tools and requests, for example one that `revela adapt` made of the tools.
        k: how many tools to pick.
        mode: ``"hybrid"`` ranks by the model and BM25 together, ``"dense"`` by the model alone, ``"lexical"`` by BM25
            alone.
    """

    def __init__(
        self, tools: Sequence[Tool] = (), *, model: str | Path | Encoder, k: int = 5, mode: Mode = "hybrid"
    ) -> None:
        self.k = _at_least_one(k)
        self._ranker = Ranker(model=model, mode=mode)
        self._tools: dict[str, Tool] = {}
        self.add(tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def mode(self) -> Mode:
        """What ranks the tools; may be set at any time."""
        return self._ranker.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._ranker.mode = mode

    def add(self, tools: Sequence[Tool]) -> list[str]:
        """Add tools, embedding those that are new, and return the id of each."""
        schemas = [convert_to_openai_tool(tool)["function"] for tool in tools]
        ids = [hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest() for schema in schemas]
        self._ranker.add({id_: describe_tool(schema) for id_, schema in zip(ids, schemas, strict=True)})
        self._tools = dict(zip(ids, tools, strict=True)) | self._tools
        return ids

    def search(self, query: str, *, k: int | None = None) -> list[tuple[Tool, float]]:
        """The best ``k`` tools for a request, best first, with what they are ranked by.

        That is :func:`revela_rag.fusion.fused_scores`, which compare tools of one request only; the cosine in mode
        ``"dense"``; BM25 in mode ``"lexical"``, where tools that share no word with the request are left out.
        """
        found = self._ranker.search(query, self.k if k is None else k)
        return [(self._tools[id_], score) for id_, score in found]

    def select(self, query: str, *, k: int | None = None) -> list[Tool]:
        """The best ``k`` tools for a request, ready for ``chat_model.bind_tools``."""
        return [tool for tool, _ in self.search(query, k=k)]

    async def aselect(self, query: str, *, k: int | None = None) -> list[Tool]:
        """Like :meth:`select`, in a thread."""
        return await run_in_executor(None, self.select, query, k=k)


def select_tools(tools: Sequence[Tool], query: str, *, model: str | Path | Encoder, k: int = 5) -> list[Tool]:
    """The ``k`` of ``tools`` that fit ``query`` best; for many queries keep a :class:`ToolRetriever`."""
    return ToolRetriever(tools, model=model, k=k).select(query)


def _at_least_one(k: int) -> int:
    if k < 1:
        raise IndexingError(f"k={k} must be at least 1.")
    return k
