"""Retrieval of tools where agents use it: chains, graphs, several servers, and its quality."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from llama_index.core.tools import FunctionTool, ToolMetadata
from pydantic import BaseModel

from langchain_revela import ToolRetriever
from llama_index.retrievers.revela import ToolRetriever as LlamaIndexToolRetriever
from revela_rag.errors import IndexingError


@tool
def reset_password(user: str) -> str:
    """Reset the password of a user."""
    return f"reset {user}"


@tool
def book_train(origin: str) -> str:
    """Book a train."""
    return f"train from {origin}"


def days_of_leave(employee: str) -> int:
    """Days of paid leave an employee has."""
    return 30


TOOLS = [reset_password, book_train, days_of_leave]
QUERY = "paid leave of an employee"


@pytest.fixture
def retriever(encoder):
    return ToolRetriever(TOOLS, model=encoder, k=1, mode="lexical")


# -- a Runnable --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        QUERY,
        HumanMessage(QUERY),
        [SystemMessage("Book a train."), HumanMessage("Book a train."), HumanMessage(QUERY), AIMessage("A train?")],
        [("user", QUERY)],
        [{"role": "user", "content": QUERY}],
        [HumanMessage([{"type": "text", "text": QUERY}])],
        {"messages": [HumanMessage(QUERY)]},
        ChatPromptTemplate.from_messages([("user", "{asked}")]).invoke({"asked": QUERY}),
    ],
)
async def test_a_request_comes_in_many_forms(retriever, given):
    assert retriever.invoke(given) == await retriever.ainvoke(given) == [days_of_leave]


@pytest.mark.parametrize("given", [[], {}, 7, {"messages": []}])
def test_no_request_is_an_error(retriever, given):
    with pytest.raises(IndexingError, match="There is no request in"):
        retriever.invoke(given)


async def test_it_is_a_runnable(retriever):
    queries = [QUERY, "book a train"]
    assert retriever.batch(queries) == await retriever.abatch(queries) == [[days_of_leave], [book_train]]
    chain = ChatPromptTemplate.from_messages([("user", "{asked}")]) | retriever | RunnableLambda(len)
    assert chain.invoke({"asked": QUERY}) == 1
    assert len(retriever.invoke("a password of an employee on a train", k=3)) == 3
    assert [chunk async for chunk in retriever.astream(QUERY)] == [[days_of_leave]]
    assert retriever.get_input_schema().model_json_schema()
    seen: list[Any] = []
    retriever.with_listeners(on_end=lambda run: seen.append(run.run_type)).invoke(QUERY)
    assert seen == ["retriever"]


# -- several servers ---------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}}
SEARCH = {"name": "search", "description": "Search issues.", "inputSchema": SCHEMA}


class search(BaseModel):
    """Search pages."""

    query: str


def as_openai(definition):
    about = {"name": definition["name"], "description": definition["description"], "parameters": SCHEMA}
    return {"type": "function", "function": about}


def find(query: str) -> str:
    """Search files."""
    return f"found {query}"


def test_servers_may_have_tools_of_one_name(encoder):
    retriever = ToolRetriever(model=encoder, k=9)
    live = StructuredTool.from_function(find, name="search")
    for namespace, given in (
        ("github", SEARCH),
        ("jira", as_openai(SEARCH)),
        ("wiki", search),
        ("disk", live),
        ("old", {"title": "search", "description": "Search old things.", **SCHEMA}),
    ):
        retriever.add([given], namespace=namespace)
    retriever.add([find], namespace="code")
    names = ["github_search", "jira_search", "wiki_search", "disk_search", "old_search", "code_find"]
    assert list(retriever.registry) == names
    bound = {convert_to_openai_tool(each)["function"]["name"]: each for each in retriever.select("search")}
    assert set(bound) == set(names)
    for name in ("github_search", "jira_search"):
        function = convert_to_openai_tool(bound[name])["function"]
        assert list(function["parameters"]["properties"]) == ["query"]
    assert bound["disk_search"].invoke({"query": "x"}) == bound["code_find"].invoke({"query": "x"}) == "found x"
    assert live.name == SEARCH["name"] == "search"
    assert ToolRetriever.select(retriever, "github", k=1)[0]["function"]["name"] == "github_search"
    assert retriever.remove(namespace="github") == 1
    assert retriever.remove(["jira_search"], namespace="wiki") == 2
    assert list(retriever.registry) == ["disk_search", "old_search", "code_find"]
    with pytest.raises(IndexingError, match="The namespace 'my server' must be"):
        retriever.add([SEARCH], namespace="my server")


@pytest.mark.parametrize("kind", ["langchain", "llama_index"])
def test_a_tool_is_replaced_on_request(encoder, kind):
    def first(day: str) -> str:
        """Book a room."""
        return "first"

    def second(day: str, people: int) -> str:
        """Book a room for some people."""
        return "second"

    first.__name__ = second.__name__ = "book_room"
    retriever = (ToolRetriever if kind == "langchain" else LlamaIndexToolRetriever)([first], model=encoder)
    with pytest.raises(IndexingError, match=r"Two tools are called 'book_room'; one is here already.*replace=True"):
        retriever.add([second])
    retriever.add([second], replace=True)
    assert len(retriever) == 1
    (found,) = retriever.select("room") if kind == "langchain" else retriever.retrieve("room")
    assert (found("x", 2) if kind == "langchain" else found(day="x", people=2).content) == "second"


def test_a_tool_that_was_connected_anew_takes_the_place_of_its_former_self(encoder):
    before, after = (StructuredTool.from_function(find, name="find", metadata={"at": at}) for at in (1, 2))
    retriever = ToolRetriever([before], model=encoder)
    assert retriever.add([after]) == retriever.add([before])
    assert retriever.registry["find"] is before
    retriever.add([after], replace=True)
    assert retriever.registry["find"] is after and retriever.select("find") == [after]


# -- graphs ------------------------------------------------------------------------------------------------------------


class Scripted(BaseChatModel):
    """A model that says what it is told to, and remembers which tools it was shown."""

    says: list[AIMessage]
    shown: list[list[str]] = []  # noqa: RUF012

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        self.shown.append([convert_to_openai_tool(each)["function"]["name"] for each in tools])
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        done = sum(isinstance(message, AIMessage) for message in messages)
        return ChatResult(generations=[ChatGeneration(message=self.says[done])])


def calling(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": name, "type": "tool_call"}])


async def test_an_agent_of_langgraph_is_shown_what_fits(encoder):
    prebuilt = pytest.importorskip("langgraph.prebuilt")
    retriever = ToolRetriever([reset_password, book_train], model=encoder, k=1, mode="lexical")
    model = Scripted(says=[calling("reset_password", user="ada"), AIMessage("done")], shown=[])
    agent = prebuilt.create_react_agent(
        lambda state, runtime: model.bind_tools(retriever.invoke(state)), list(retriever.registry.values())
    )
    for run in (agent.invoke, agent.ainvoke):
        state = run({"messages": [("user", "reset the password of ada")]})
        state = state if isinstance(state, dict) else await state
        assert [m.content for m in state["messages"] if isinstance(m, ToolMessage)] == ["reset ada"]
        assert state["messages"][-1].content == "done"
    assert model.shown == [["reset_password"]] * 4


async def test_it_is_what_bigtool_retrieves_tools_with(retriever):
    made = StructuredTool.from_function(func=retriever.retrieve_tools, coroutine=retriever.aretrieve_tools)
    assert (made.name, list(made.args)) == ("retrieve_tools", ["query"])
    assert made.description == "Retrieve a tool to use, given a search query."
    names = made.invoke({"query": QUERY})
    assert names == await made.ainvoke({"query": QUERY}) == ["days_of_leave"]
    assert [retriever.registry[name] for name in names] == [days_of_leave]


# -- how well --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["langchain", "llama_index"])
def test_it_says_how_many_requests_are_shown_all_they_need(encoder, kind):
    make = {"langchain": ToolRetriever, "llama_index": LlamaIndexToolRetriever}[kind]
    functions = [StructuredTool.from_function, FunctionTool.from_defaults]
    tools = [functions[kind == "llama_index"](each) for each in (days_of_leave, find)]
    retriever = make(tools, model=encoder, mode="lexical")
    needed = {QUERY: ["days_of_leave"], "employee and files": ["find", "days_of_leave"]}
    found = retriever.evaluate(needed)
    assert found.metrics == ("nDCG@10", "Recall@100", "MRR@10", "All@5")
    assert (found.mean("All@5"), found.mean("nDCG@10")) == (1.0, 1.0)
    first = retriever.evaluate(needed, k=1)
    assert first.per_query["All@1"] == {QUERY: 1.0, "employee and files": 0.0}
    with pytest.raises(IndexingError, match=r"\['fly'\] are needed"):
        retriever.evaluate({"x": ["fly"]})


# -- LlamaIndex --------------------------------------------------------------------------------------------------------


def names(found) -> list[str]:
    return [each.metadata.name for each in found]


async def test_tools_come_and_go_in_llama_index(encoder):
    retriever = LlamaIndexToolRetriever(model=encoder, similarity_top_k=9)
    assert (len(retriever), retriever.retrieve("x")) == (0, [])
    ids = retriever.add([days_of_leave, find])
    assert retriever.add([find]) == ids[1:] and len(retriever) == 2
    retriever.add([find], namespace="code")
    retriever.add([FunctionTool.from_defaults(find)], namespace="disk")
    assert sorted(names(retriever.retrieve("search files"))) == ["code_find", "days_of_leave", "disk_find", "find"]
    assert retriever.registry["code_find"](query="x").content == "found x"
    assert retriever.remove(["find", "nothing"]) == 1
    assert retriever.remove(namespace="disk") == 1
    assert sorted(names(await retriever.aretrieve("search files"))) == ["code_find", "days_of_leave"]
    assert sorted(names(copy.deepcopy(retriever).retrieve("search files"))) == ["code_find", "days_of_leave"]
    with pytest.raises(IndexingError, match="pass a list of names"):
        retriever.remove("find")


def test_a_tool_that_cannot_be_renamed_is_refused(encoder):
    class Fixed(FunctionTool):
        @property
        def metadata(self):
            return ToolMetadata("Does one thing.", "fixed")

    fixed = Fixed(find, ToolMetadata("Does one thing.", "fixed"))
    with pytest.raises(IndexingError, match="A Fixed cannot be renamed; call it 'a_fixed' where it is made"):
        LlamaIndexToolRetriever([], model=encoder).add([fixed], namespace="a")
