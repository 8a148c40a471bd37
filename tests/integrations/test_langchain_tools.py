from __future__ import annotations

from pathlib import Path

import pytest
from integration_data import TEXTS
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_revela import RevelaRetriever, ToolRetriever, create_revela_tool, select_tools
from revela_rag.corpus import load_corpus
from revela_rag.errors import IndexingError
from revela_rag.fusion import cosine_step, fused_scores
from revela_rag.lexical import LexicalIndex


@tool
def reset_password(user: str) -> str:
    """Reset the password of a user by a link on the login page."""
    return user


@tool
def book_train(origin: str, destination: str) -> str:
    """Book a train."""
    return origin + destination


def days_of_leave(employee: str) -> int:
    """Days of paid leave an employee has."""
    return 30


TOOLS = [reset_password, book_train, days_of_leave]


def test_a_tool_call_returns_text_with_sources_and_scored_documents(index):
    search = create_revela_tool(index, name="search_handbook", description="Company rules.", k=2)
    assert search.name == "search_handbook"
    assert list(search.args) == ["query"]
    message = search.invoke({"name": search.name, "args": {"query": "leave"}, "id": "1", "type": "tool_call"})
    hits = index.search("leave", k=2)
    assert message.content == "\n\n".join(f"[{hit.chunk.document_id}]\n{hit.chunk.text}" for hit in hits)
    assert [document.metadata["score"] for document in message.artifact] == [hit.score for hit in hits]


def test_passages_are_shown_as_the_prompt_writes_them(index):
    prompt = PromptTemplate.from_template("{team}: {page_content}")
    search = create_revela_tool(index, name="s", description="d", k=1, document_prompt=prompt)
    hit = index.search("leave", k=1)[0]
    assert search.invoke("leave") == f"{hit.chunk.metadata['team']}: {hit.chunk.text}"


async def test_a_tool_call_runs_async(index):
    search = create_revela_tool(RevelaRetriever(index=index, k=1), name="search", description="Company rules.")
    call = {"name": "search", "args": {"query": "leave"}, "id": "1", "type": "tool_call"}
    assert (await search.ainvoke(call)).content == search.invoke(call).content


def test_text_with_braces_is_shown_as_it_is(encoder, tmp_path):
    from langchain_core.documents import Document

    code = "x = {'a': {b}}  # {source}"
    retriever = RevelaRetriever.from_documents([Document(page_content=code)], model=encoder, path=tmp_path / "index")
    call = {"name": "s", "args": {"query": "x"}, "id": "1", "type": "tool_call"}
    assert code in create_revela_tool(retriever, name="s", description="d").invoke(call).content


def test_options_beside_a_retriever_are_refused(index):
    with pytest.raises(IndexingError, match="'k'"):
        create_revela_tool(RevelaRetriever(index=index), name="s", description="d", k=3)


def test_the_retriever_itself_becomes_a_tool(index):
    search = RevelaRetriever(index=index, k=1).as_tool(name="search", description="Company rules.")
    assert search.invoke(TEXTS["tax.md"])[0].id == index.search(TEXTS["tax.md"], k=1)[0].chunk.id


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_tools_are_ranked(encoder, mode):
    retriever = ToolRetriever(TOOLS, model=encoder, k=2, mode=mode)
    found = retriever.search("reset a password", k=3)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert {id(item) for item, _ in found} == {id(item) for item in TOOLS}
    assert retriever.select("reset a password") == [item for item, _ in found[:2]]
    if mode == "hybrid":
        assert select_tools(TOOLS, "reset a password", model=encoder, k=1) == [found[0][0]]


def test_scores_are_those_of_the_mode(encoder):
    query = "paid leave of an employee"
    texts = {
        "reset_password": "reset password\nReset the password of a user by a link on the login page.\n"
        "Parameters: user (string)",
        "book_train": "book train\nBook a train.\nParameters: origin (string); destination (string)",
        "days_of_leave": "days of leave\nDays of paid leave an employee has.\nParameters: employee (string)",
    }
    named = {"reset_password": reset_password, "book_train": book_train, "days_of_leave": days_of_leave}
    vectors = encoder.encode_documents(list(texts.values()))
    cosines, step = vectors @ encoder.encode_queries([query])[0], cosine_step(3, vectors.__getitem__)
    words = LexicalIndex.build(texts, texts.values()).scores(query)

    def scores(mode):
        found = ToolRetriever(TOOLS, model=encoder, mode=mode).search(query, k=9)
        return [next(score for tool_, score in found if tool_ is named[name]) for name in texts if mode != "lexical"]

    assert scores("dense") == pytest.approx(cosines.tolist(), abs=1e-6)
    assert scores("hybrid") == pytest.approx(fused_scores(cosines, words, cosine_step=step).tolist(), abs=1e-6)
    assert ToolRetriever(TOOLS, model=encoder, mode="lexical").search(query) == [(days_of_leave, float(words[2]))]
    assert ToolRetriever(TOOLS, model=encoder, mode="lexical").search("zebra") == []
    with pytest.raises(IndexingError, match="mode='sparse'"):
        ToolRetriever(TOOLS, model=encoder, mode="sparse")


def test_what_is_set_later_counts(encoder):
    retriever = ToolRetriever(TOOLS, model=encoder)
    retriever.k = 2
    assert len(retriever.select("paid leave of an employee")) == 2
    retriever.mode = "lexical"
    assert retriever.select("paid leave of an employee") == [days_of_leave]
    with pytest.raises(IndexingError, match="mode='sparse'"):
        retriever.mode = "sparse"
    with pytest.raises(IndexingError, match="k=0"):
        retriever.k = 0
    assert retriever.k == 2


async def test_tools_are_selected_async(encoder):
    retriever = ToolRetriever(TOOLS, model=encoder)
    assert await retriever.aselect("book a train", k=2) == retriever.select("book a train", k=2)


def test_a_tool_added_twice_is_one_tool(encoder):
    retriever = ToolRetriever(TOOLS, model=encoder)
    ids = retriever.add([book_train, book_train])
    assert len(retriever) == len(TOOLS)
    assert ids[0] == ids[1] and len(ids[0]) == 64
    assert len(retriever.search("x", k=10)) == len(TOOLS)


SCHEMA = {"type": "object", "properties": {"day": {"type": "string", "description": "Which day."}}}
ROOM = {"name": "book_room", "description": "Book a room.", "inputSchema": SCHEMA}
CAR = {"name": "book_car", "description": "Book a car.", "inputSchema": SCHEMA}


def of_openai(definition):
    function = {"name": definition["name"], "description": definition["description"], "parameters": SCHEMA}
    return {"type": "function", "function": function}


@pytest.mark.parametrize(
    "form",
    [
        ROOM,
        of_openai(ROOM),
        {"type": "function", **of_openai(ROOM)["function"]},
        {"name": "book_room", "description": "Book a room.", "input_schema": SCHEMA},
        {"toolSpec": {"name": "book_room", "description": "Book a room.", "inputSchema": {"json": SCHEMA}}},
        {"title": "book_room", "description": "Book a room.", **SCHEMA},
    ],
)
def test_definitions_read_as_they_do_in_a_corpus(encoder, form):
    text = "book room\nBook a room.\nParameters: day (string): Which day."
    assert load_corpus([ROOM]).chunks[0].embedding_text == text
    ((found, score),) = ToolRetriever([form], model=encoder, mode="dense").search("a room")
    assert found is form
    cosine = encoder.encode_documents([text]) @ encoder.encode_queries(["a room"])[0]
    assert score == pytest.approx(float(cosine[0]), abs=1e-6)


def test_an_answer_of_a_server_is_its_tools(encoder):
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [ROOM, CAR]}}
    for tools in (answer, answer["result"], [answer], [ROOM, CAR]):
        retriever = ToolRetriever(tools, model=encoder, k=9)
        assert len(retriever) == 2
        assert all(found in (ROOM, CAR) for found, _ in retriever.search("a room"))


def test_two_tools_of_one_name_are_refused(encoder):
    other = {**ROOM, "description": "Book another room."}
    with pytest.raises(IndexingError, match="Two tools are called 'book_room'; an agent calls tools by name"):
        ToolRetriever([ROOM, other], model=encoder)
    retriever = ToolRetriever([ROOM, ROOM], model=encoder)
    remedy = r"Two tools are called 'book_room'; one is here already.* add it with replace=True"
    with pytest.raises(IndexingError, match=remedy):
        retriever.add([CAR, other])
    assert len(retriever) == 1
    assert len(retriever.add([CAR])) == 1


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_tools_can_be_removed_and_replaced(encoder, mode):
    retriever = ToolRetriever([ROOM, CAR, *TOOLS], model=encoder, mode=mode)
    assert retriever.remove(["book_room", "book_room", "unknown", "days_of_leave"]) == 2
    assert (retriever.remove(["book_room"]), retriever.remove([]), len(retriever)) == (0, 0, 3)
    other = {**ROOM, "description": "Book another room."}
    retriever.add([other])
    query = "book a room and a car"
    alone = ToolRetriever([CAR, reset_password, book_train, other], model=encoder, mode=mode).search(query)
    assert [found for found, _ in retriever.search(query)] == [found for found, _ in alone]
    assert [s for _, s in retriever.search(query)] == pytest.approx([s for _, s in alone], abs=1e-6)
    assert retriever.remove(name for name in ("book_room", "book_car", "reset_password", "book_train")) == 4
    assert (len(retriever), retriever.search(query)) == (0, [])
    retriever.add([ROOM])
    assert retriever.select("room") == ToolRetriever([ROOM], model=encoder).select("room")
    with pytest.raises(IndexingError, match="pass a list of names"):
        retriever.remove("book_room")


@pytest.mark.parametrize("tools", ["tools.json", Path("tools.json"), ["tools.json"], [Path("tools.json")], [{"a": 1}]])
def test_what_is_no_tool_is_named(encoder, tools):
    with pytest.raises(IndexingError, match=r"(tools\.json|'a': 1).* is no tool; give LangChain tools"):
        ToolRetriever(tools, model=encoder)


def test_no_tools_and_a_bad_k(encoder):
    assert ToolRetriever(model=encoder).select("anything") == []
    with pytest.raises(IndexingError, match="k=0"):
        ToolRetriever(TOOLS, model=encoder, k=0)
    with pytest.raises(IndexingError, match="k=0"):
        ToolRetriever(TOOLS, model=encoder).select("x", k=0)


def test_what_is_selected_keeps_its_parameters_for_a_chat_model(encoder):
    retriever = ToolRetriever([ROOM, CAR], model=encoder, k=2)  # both: a random model ranks as it likes
    functions = [convert_to_openai_tool(tool)["function"] for tool in retriever.select("Book a room.")]
    (bound,) = (function for function in functions if function["name"] == "book_room")
    assert (bound["name"], bound["description"], bound["parameters"]) == ("book_room", "Book a room.", SCHEMA)
    assert any(found is ROOM for found, _ in retriever.search("Book a room."))
