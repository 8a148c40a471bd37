"""Tools are picked by some threads while others add and remove some."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_revela import ToolRetriever
from revela_rag.ranker import Ranker

ROUNDS = 24


@pytest.fixture(autouse=True)
def eager_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def definition(name: str) -> dict[str, object]:
    schema = {"type": "object", "properties": {"day": {"type": "string"}}}
    return {"name": name, "description": f"Book a {name} for a day.", "inputSchema": schema}


def while_searched(search: Callable[[], object], *changes: Callable[[], None]) -> None:
    """Run the changes, a thread each, while four threads search; the first error of any of them is raised."""
    done = threading.Event()

    def searching() -> None:
        while not done.is_set():
            search()

    with ThreadPoolExecutor(4 + len(changes)) as pool:
        searches = [pool.submit(searching) for _ in range(4)]
        changing = [pool.submit(change) for change in changes]
        try:
            for change in changing:
                change.result()
        finally:
            done.set()
        for running in searches:
            running.result()


def test_tools_are_found_while_two_threads_add_some(encoder) -> None:
    retriever = ToolRetriever([definition("room")], model=encoder, k=3)

    def adding(start: int) -> Callable[[], None]:
        return lambda: [retriever.add([definition(f"tool_{at}")]) for at in range(start, start + ROUNDS)] and None

    while_searched(lambda: retriever.select("book a room"), adding(0), adding(ROUNDS // 2))
    names = {tool["name"] for tool, _ in retriever.search("book a day", k=1000)}
    assert names == {"room", *(f"tool_{at}" for at in range(ROUNDS + ROUNDS // 2))}
    assert len(retriever) == len(names)


def test_tools_are_found_while_one_thread_removes_what_another_adds(encoder) -> None:
    retriever = ToolRetriever([definition("room"), definition("car")], model=encoder)

    def adding() -> None:
        for at in range(ROUNDS):
            retriever.add([definition(f"tool_{at}")])

    def removing() -> None:
        for at in range(ROUNDS):
            while not retriever.remove([f"tool_{at}"]):
                pass

    while_searched(lambda: retriever.search("book a tool", k=100), adding, removing)
    assert {tool["name"] for tool, _ in retriever.search("book a day")} == {"room", "car"}
    assert len(retriever) == 2


def test_a_failed_addition_leaves_the_tools_as_they_were(encoder, monkeypatch) -> None:
    retriever = ToolRetriever([definition("room")], model=encoder)

    def fails(texts: object, *, without: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(retriever._toolbox.ranker, "add", fails)
        retriever.add([definition("car")])
    assert len(retriever) == 1
    assert len(retriever.add([definition("car")])) == 1
    assert {tool["name"] for tool, _ in retriever.search("x", k=9)} == {"room", "car"}


def test_a_tool_is_never_gone_nor_there_twice_while_it_is_replaced(encoder) -> None:
    retriever = ToolRetriever([definition("room"), definition("car")], model=encoder, k=9)

    def replacing() -> None:
        for at in range(ROUNDS):
            retriever.add([{**definition("room"), "description": f"Book room {at}."}], replace=True)

    def searching() -> None:
        names = [tool["name"] for tool, _ in retriever.search("book a room")]
        assert sorted(names) == ["car", "room"]

    while_searched(searching, replacing)
    assert retriever.registry["room"]["description"] == f"Book room {ROUNDS - 1}."


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_ranker_keeps_every_text_with_its_vector(encoder, mode) -> None:
    texts = {f"id{at}": f"word{at} and some more" for at in range(2 * ROUNDS)}
    ranker, alone = Ranker(model=encoder, mode=mode), Ranker(model=encoder, mode=mode)
    halves = [dict(list(texts.items())[start::2]) for start in (0, 1)]

    def adding(half: dict[str, str]) -> Callable[[], None]:
        return lambda: [ranker.add({id_: text}) for id_, text in half.items()] and None

    while_searched(lambda: ranker.search("word1", 5), *map(adding, halves))
    alone.add(texts)
    found, expected = dict(ranker.search("word7 more", 1000)), dict(alone.search("word7 more", 1000))
    assert len(ranker) == len(texts)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
