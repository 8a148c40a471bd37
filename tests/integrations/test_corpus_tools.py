"""The tools over a corpus in both frameworks: LangChain's own suites, and agents that call them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from langchain_revela import create_corpus_tools
from llama_index.retrievers.revela import create_corpus_tools as create_llama_index_tools
from revela_rag.agent import CorpusTools, agent_tools
from revela_rag.errors import IndexingError

EXAMPLES: dict[str, dict[str, Any]] = {
    "search": {"query": "how many days of leave", "k": 2},
    "grep": {"pattern": "[a-z]+", "limit": 3},
    "read": {"document": "tax.md"},
    "list": {"path": "*.md"},
    "neighbours": {},  # filled in with an id
}


def example(index, name: str) -> dict[str, Any]:
    if name == "neighbours":
        return {"chunk_id": index.search("leave", k=1)[0].chunk.id}
    return EXAMPLES[name]


class _Tools:
    @pytest.fixture(autouse=True, params=list(EXAMPLES))
    def _index(self, request, index):
        self.index, self.name = index, request.param

    @property
    def tool_constructor(self):
        return next(tool for tool in create_corpus_tools(self.index) if tool.name == self.name)

    @property
    def tool_invoke_params_example(self):
        return example(self.index, self.name)


class TestUnit(_Tools, ToolsUnitTests):
    pass


class TestIntegration(_Tools, ToolsIntegrationTests):
    pass


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": "1", "type": "tool_call"}


@pytest.mark.parametrize("name", EXAMPLES)
async def test_both_frameworks_say_the_same(index, name):
    arguments = example(index, name)
    ours = next(tool for tool in agent_tools(CorpusTools(index)) if tool.name == name)
    text, result = ours.call(arguments)
    langchain = {tool.name: tool for tool in create_corpus_tools(index)}[name]
    llama = {tool.metadata.name: tool for tool in create_llama_index_tools(index)}[name]
    for message in (langchain.invoke(call(name, arguments)), await langchain.ainvoke(call(name, arguments))):
        assert isinstance(message, ToolMessage)
        assert (message.content, message.artifact, message.status) == (text, result, "success")
    for output in (llama.call(**arguments), await llama.acall(**arguments)):
        assert (output.content, output.raw_output, output.tool_name) == (text, result, name)
    assert langchain.description == llama.metadata.description == ours.description
    assert langchain.get_input_schema().model_json_schema() == ours.schema
    assert llama.metadata.to_openai_tool()["function"]["parameters"]["properties"] == ours.schema["properties"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("read", {"document": "tux.md"}, "Similar names: 'tax.md'"),
        ("grep", {"pattern": "("}, "cannot be used"),
        ("grep", {"pattern": "x", "limit": "many"}, "The arguments of grep do not fit: limit"),
        ("search", {}, "The arguments of search do not fit: query: Field required"),
    ],
)
async def test_what_a_model_can_mend_is_an_answer(index, name, arguments, said):
    tool = {tool.name: tool for tool in create_corpus_tools(index)}[name]
    for message in (tool.invoke(call(name, arguments)), await tool.ainvoke(call(name, arguments))):
        assert message.status == "error" and said in message.content
    llama = {tool.metadata.name: tool for tool in create_llama_index_tools(index)}[name]
    with pytest.raises(IndexingError) as raised:
        llama.call(**arguments)
    assert said in str(raised.value)


def test_options_and_names(index):
    path = str(index.path)
    for create, name_of in (
        (create_corpus_tools, lambda tool: tool.name),
        (create_llama_index_tools, lambda tool: tool.metadata.name),
    ):
        tools = create(path, prefix="docs", about="a handbook", max_characters=300)
        assert [name_of(tool) for tool in tools] == [f"docs_{name}" for name in EXAMPLES]
        assert [name_of(tool) for tool in create(CorpusTools(index))] == list(EXAMPLES)


def test_tools_can_be_copied_and_pickled(index):
    tool = create_corpus_tools(index)[3]
    assert copy.deepcopy(tool).invoke({}) == tool.invoke({})
    tools = CorpusTools(index)
    assert pickle.loads(pickle.dumps(tools)).list() == tools.list()  # noqa: S301


class Scripted(MockLLM, FunctionCallingLLM):
    """A model that calls what it is told to, one after the other, and then repeats the last answer."""

    calls: list[dict[str, Any]]

    def __init__(self, calls: list[dict[str, Any]]) -> None:
        FunctionCallingLLM.__init__(self, calls=calls, max_tokens=None)

    @property
    def metadata(self):
        return LLMMetadata(is_function_calling_model=True)

    def _prepare_chat_with_tools(self, *args, **kwargs):
        raise NotImplementedError

    async def achat_with_tools(self, tools, user_msg=None, chat_history=None, **kwargs):
        history = chat_history or []
        done = sum(message.role.value == "tool" for message in history)
        asked = self.calls[done : done + 1]
        text = "" if asked else history[-1].content
        return ChatResponse(message=ChatMessage(text, role="assistant", additional_kwargs={"asked": asked}))

    def get_tool_calls_from_response(self, response, error_on_no_tool_call=True, **kwargs):
        asked = response.message.additional_kwargs["asked"]
        return [ToolSelection(tool_id="1", tool_name=call["name"], tool_kwargs=call["args"]) for call in asked]


async def test_an_agent_of_llama_index_mends_its_call(index):
    calls = [
        {"name": "read", "args": {"document": "tux.md"}},
        {"name": "read", "args": {"document": "tax.md"}},
    ]
    agent = FunctionAgent(tools=create_llama_index_tools(index), llm=Scripted(calls=calls), streaming=False)
    answer = await agent.run("what about tax?")
    assert [call.tool_output.is_error for call in answer.tool_calls] == [True, False]
    assert "Similar names: 'tax.md'" in answer.tool_calls[0].tool_output.content
    assert answer.response.content.startswith("tax.md, 1 lines")
