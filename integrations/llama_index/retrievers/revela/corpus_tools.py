"""What an agent can do with the texts of an index, as LlamaIndex tools."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.tools import FunctionTool, ToolMetadata

from revela_rag.agent import AgentTool, CorpusTools, agent_tools, shown
from revela_rag.index import Index

__all__ = ["create_corpus_tools"]


def create_corpus_tools(
    index: Index | str | Path | CorpusTools, *, prefix: str = "", about: str = "", **options: Any
) -> list[FunctionTool]:
    """Tools for agents that look around in a corpus: ``search``, ``grep``, ``read``, ``list`` and ``neighbours``.

    An index of tool definitions has ``find_tools`` in place of ``search``. The model sees text with its places,
    ``raw_output`` is the same as plain JSON.

    Args:
        index: an index, its directory, or :class:`revela_rag.agent.CorpusTools`.
        prefix: stands before the names, as in ``docs_search``, to tell several indexes apart.
        about: what the index holds, for the descriptions: "the handbook of ACME".
        options: of :class:`revela_rag.agent.CorpusTools`, such as ``max_characters``, where ``index`` is none.

    Raises:
        IndexingError: there is no index, or the prefix has other characters than letters, digits, ``_`` and ``-``.

    Example:
        >>> from llama_index.retrievers.revela import create_corpus_tools  # doctest: +SKIP
        >>> FunctionAgent(tools=create_corpus_tools("my-index", about="our handbook"), llm=llm)  # doctest: +SKIP
    """
    tools = index if isinstance(index, CorpusTools) else CorpusTools(index, **options)
    return [_function(tool) for tool in agent_tools(tools, prefix=prefix, about=about)]


def _function(tool: AgentTool) -> FunctionTool:
    metadata = ToolMetadata(tool.description, tool.name, tool.arguments)
    return FunctionTool(partial(_run, tool), metadata, callback=shown)


def _run(tool: AgentTool, **arguments: Any) -> dict[str, Any]:
    return tool.call(arguments)[1]
