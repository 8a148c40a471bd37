"""What an agent can do with the texts of an index, as LangChain tools."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from revela_rag.agent import AgentTool, CorpusTools, agent_tools
from revela_rag.errors import RevelaError
from revela_rag.index import Index

__all__ = ["create_corpus_tools"]


def create_corpus_tools(
    index: Index | str | Path | CorpusTools, *, prefix: str = "", about: str = "", **options: Any
) -> list[BaseTool]:
    """Tools for agents that look around in a corpus: ``search``, ``grep``, ``read``, ``list`` and ``neighbours``.

    An index of tool definitions has ``find_tools`` in place of ``search``. The model sees text with its places, the
    artifact of the tool message is the same as plain JSON. What a model can mend, such as an unknown document, is an
    answer with the status ``"error"``.

    Args:
        index: an index, its directory, or :class:`revela_rag.agent.CorpusTools`.
        prefix: stands before the names, as in ``docs_search``, to tell several indexes apart.
        about: what the index holds, for the descriptions: "the handbook of ACME".
        options: of :class:`revela_rag.agent.CorpusTools`, such as ``max_characters``, where ``index`` is none.

    Raises:
        IndexingError: there is no index, or the prefix has other characters than letters, digits, ``_`` and ``-``.

    Example:
        >>> from langchain_revela import create_corpus_tools  # doctest: +SKIP
        >>> chat_model.bind_tools(create_corpus_tools("my-index", about="our handbook"))  # doctest: +SKIP
    """
    tools = index if isinstance(index, CorpusTools) else CorpusTools(index, **options)
    return [_structured(tool) for tool in agent_tools(tools, prefix=prefix, about=about)]


def _structured(tool: AgentTool) -> BaseTool:
    return StructuredTool(
        name=tool.name,
        description=tool.description,
        args_schema=tool.arguments,
        func=partial(_run, tool),
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=tool.refusal,
    )


def _run(tool: AgentTool, **arguments: Any) -> tuple[str, dict[str, Any]]:
    try:
        return tool.call(arguments)
    except RevelaError as error:
        raise ToolException(str(error)) from error
