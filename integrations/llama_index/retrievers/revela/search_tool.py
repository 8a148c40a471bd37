"""One search tool over an index, as a LlamaIndex tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.tools import FunctionTool, ToolMetadata
from pydantic import BaseModel, Field

from llama_index.retrievers.revela.base import RevelaRetriever
from revela_rag.errors import IndexingError
from revela_rag.index import Index

__all__ = ["create_revela_tool"]

_PROMPT = "[{source}]\n{text}"


class _Arguments(BaseModel):
    """What the model gives."""

    query: str = Field(description="What to look up, in words or as a question.")


def create_revela_tool(
    index: Index | str | Path | RevelaRetriever,
    *,
    name: str,
    description: str,
    document_prompt: BasePromptTemplate | str = _PROMPT,
    node_postprocessors: Sequence[Any] = (),
    **kwargs: Any,
) -> FunctionTool:
    """An agent's search tool over an index.

    The model sees every passage as ``document_prompt`` writes it; the nodes with their scores are ``raw_output``.

    Args:
        index: an index, its directory, or a retriever over one.
        name: what the model calls the tool: letters, digits, ``_`` and ``-``.
        description: tells the model what the index holds and when to ask it.
        document_prompt: how a passage is shown: ``{text}`` is the passage, ``{content}`` the passage with the metadata
            that its node shows to an LLM, ``{node_id}`` and ``{score}`` are the node's; all else is metadata, empty
            where a node has none of the name.
        node_postprocessors: rerankers and filters over the nodes found.
        kwargs: of :class:`RevelaRetriever`, such as ``similarity_top_k`` and ``filters``, where ``index`` is none.

    Raises:
        IndexingError: there is no index, or ``kwargs`` are given beside a retriever.

    Example:
        >>> from llama_index.retrievers.revela import create_revela_tool  # doctest: +SKIP
        >>> search = create_revela_tool("my-index", name="docs", description="Our handbook.")  # doctest: +SKIP
        >>> FunctionAgent(tools=[search], llm=llm)  # doctest: +SKIP
    """
    if isinstance(index, RevelaRetriever) and kwargs:
        raise IndexingError(f"{sorted(kwargs)} belong to the retriever, and one was given: set them there.")
    retriever = index if isinstance(index, RevelaRetriever) else RevelaRetriever(index, **kwargs)
    prompt = PromptTemplate(document_prompt) if isinstance(document_prompt, str) else document_prompt

    def search(query: str) -> list[NodeWithScore]:
        found = retriever.retrieve(query)
        for postprocessor in node_postprocessors:
            found = postprocessor.postprocess_nodes(found, query_bundle=QueryBundle(query))
        return found

    async def asearch(query: str) -> list[NodeWithScore]:
        found = await retriever.aretrieve(query)
        for postprocessor in node_postprocessors:
            found = await postprocessor.apostprocess_nodes(found, query_bundle=QueryBundle(query))
        return found

    def shown(found: Sequence[NodeWithScore]) -> str:
        return "\n\n".join(_shown(prompt, one) for one in found)

    metadata = ToolMetadata(description, name, _Arguments)
    return FunctionTool(search, metadata, async_fn=asearch, callback=shown)


def _shown(prompt: BasePromptTemplate, found: NodeWithScore) -> str:
    node = found.node
    own = {
        "text": node.get_content(MetadataMode.NONE),
        "content": node.get_content(MetadataMode.LLM),
        "node_id": node.node_id,
        "score": found.score,
    }
    return prompt.format(**(dict.fromkeys(prompt.template_vars, "") | node.metadata | own))
