from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.tools import FunctionTool

from langchain_revela import ToolRetriever as LangChainToolRetriever
from llama_index.retrievers.revela import ToolRetriever
from revela_rag.errors import IndexingError


def reset_password(user: str) -> str:
    """Reset the password of a user by a link on the login page."""
    return user


def book_train(origin: str, destination: str) -> str:
    """Book a train."""
    return origin + destination


def days_of_leave(employee: str) -> int:
    """Days of paid leave an employee has."""
    return 30


FUNCTIONS = [reset_password, book_train, days_of_leave]


def names(tools) -> list[str]:
    return [tool.metadata.name for tool in tools]


@pytest.fixture(scope="module")
def tools():
    return [FunctionTool.from_defaults(function) for function in FUNCTIONS]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_tools_are_picked(encoder, tools, mode):
    picked = ToolRetriever(tools, model=encoder, similarity_top_k=2, mode=mode).retrieve("paid leave of an employee")
    assert all(any(one is tool for tool in tools) for one in picked)
    assert len(picked) == (1 if mode == "lexical" else 2)
    assert mode != "lexical" or names(picked) == ["days_of_leave"]


def test_functions_are_tools_too_and_scores_are_kept_for_postprocessors(encoder, tools):
    retriever = ToolRetriever(FUNCTIONS, model=encoder, similarity_top_k=3)
    query = "Book a train from here to there"
    scores = {node.node.metadata["name"]: node.score for node in retriever.retriever.retrieve(query)}
    assert names(retriever.retrieve(query)) == list(scores) == sorted(scores, key=lambda name: -scores[name])
    strict = [SimilarityPostprocessor(similarity_cutoff=max(scores.values()))]
    alone = ToolRetriever(tools, model=encoder, similarity_top_k=3, node_postprocessors=strict)
    assert names(alone.retrieve(query)) == list(scores)[:1]


def test_what_is_set_later_counts(encoder, tools):
    retriever = ToolRetriever(tools, model=encoder)
    assert len(retriever.retrieve("paid leave of an employee")) == 3
    retriever.similarity_top_k = 2
    assert len(retriever.retrieve("paid leave of an employee")) == 2
    retriever.mode = "lexical"
    assert names(retriever.retrieve("paid leave of an employee")) == ["days_of_leave"]
    with pytest.raises(IndexingError, match="mode='sparse'"):
        retriever.mode = "sparse"
    with pytest.raises(IndexingError, match="similarity_top_k=0"):
        retriever.similarity_top_k = 0
    with pytest.raises(AttributeError):
        retriever.node_postprocessors = []
    assert (retriever.mode, retriever.similarity_top_k) == ("lexical", 2)


def test_both_integrations_rank_alike(encoder):
    query = "reset a password"
    ours = names(ToolRetriever(FUNCTIONS, model=encoder, similarity_top_k=3).retrieve(query))
    assert ours == [tool.__name__ for tool in LangChainToolRetriever(FUNCTIONS, model=encoder, k=3).select(query)]


async def test_an_agent_is_shown_the_tools_that_fit(encoder, tools):
    class Caller(MockLLM, FunctionCallingLLM):
        """Only counted on to be one that calls functions."""

        def _prepare_chat_with_tools(self, *args, **kwargs):
            raise NotImplementedError

        def get_tool_calls_from_response(self, *args, **kwargs):
            raise NotImplementedError

    retriever = ToolRetriever(tools, model=encoder, similarity_top_k=1, mode="lexical")
    agent = FunctionAgent(tool_retriever=retriever, llm=Caller())
    assert names(await agent.get_tools("paid leave of an employee")) == ["days_of_leave"]


def test_nothing_to_pick_and_bad_arguments(encoder, tools):
    assert ToolRetriever([], model=encoder).retrieve("anything") == []
    for wrong in (0, True, 2.5, "3"):
        with pytest.raises(IndexingError, match=f"similarity_top_k={wrong!r} must be a whole number"):
            ToolRetriever(tools, model=encoder, similarity_top_k=wrong)
    with pytest.raises(IndexingError, match="mode='sparse'"):
        ToolRetriever(tools, model=encoder, mode="sparse")
    other = FunctionTool.from_defaults(book_train, description="Book another train.")
    with pytest.raises(IndexingError, match="'book_train'"):
        ToolRetriever([*tools, other], model=encoder)
    assert len(ToolRetriever([*tools, book_train], model=encoder)) == len(tools)


DEFINITION = {"name": "book_room", "description": "Book a room.", "inputSchema": {"type": "object"}}


@pytest.mark.parametrize(
    "given", ["tools.json", DEFINITION, None, 3, int, Path("tools.json"), partial(book_train, "a")]
)
def test_what_is_no_tool_is_named(encoder, given):
    shown = re.escape(repr(given)[:60])
    with pytest.raises(IndexingError, match=rf"^{shown}.* is no tool; give a list of LlamaIndex tools and functions"):
        ToolRetriever([book_train, given], model=encoder)
    with pytest.raises(IndexingError, match=rf"^{shown}.* is no tool; give a list"):
        ToolRetriever(given, model=encoder)


def test_a_tool_outside_a_list_is_refused(encoder, tools):
    for given in (book_train, tools[0]):
        with pytest.raises(IndexingError, match="is no list of tools; give a list"):
            ToolRetriever(given, model=encoder)
    assert len(ToolRetriever(iter(tools), model=encoder).retrieve("a train")) == 3
