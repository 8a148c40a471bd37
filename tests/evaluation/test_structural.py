from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from revela_rag.corpus.types import Chunk, Part
from revela_rag.errors import CorpusError
from revela_rag.evaluation import headings_by_document, structural_data, without_headings


@dataclass(frozen=True)
class Pair:
    query: str
    chunk_id: str
    document_id: str
    query_role: str
    answer_text: str


CODE = Chunk(
    id="c1",
    text='def f():\n    """Opens the door."""\n    door.open()',
    document_id="m.py",
    kind="code",
    title="m.f",
    parts=(Part("docstring", "Opens the door."), Part("body", "def f():\n    door.open()")),
)
AMBIGUOUS = Chunk(
    id="c2",
    text='def g():\n    """Returns self."""\n    return self',
    document_id="m.py",
    kind="code",
    title="m.g",
    parts=(Part("docstring", "Returns self."), Part("body", "def g():\n    return self")),
)
SECTION = Chunk(
    id="c3",
    text="Install on Linux\nUse the package.",
    document_id="guide.md",
    title="Guide > Install on Linux",
    parts=(Part("heading", "Install on Linux"), Part("section", "Use the package.")),
)
PLAIN = Chunk(id="c4", text="Nothing to ask here.", document_id="n.txt", title="Notes")
PAIRS = [
    Pair("Opens the door.", "c1", "m.py", "docstring", "def f():\n    door.open()"),
    Pair("Install on Linux", "c3", "guide.md", "heading", "Use the package."),
]


def test_no_document_holds_what_is_asked_about_it() -> None:
    data = structural_data(PAIRS, [CODE, AMBIGUOUS, SECTION, PLAIN])
    assert data.queries == {"s0": "Opens the door.", "s1": "Install on Linux"}
    assert data.qrels == {"s0": {"c1": 1}, "s1": {"c3": 1}}
    assert data.corpus == {
        "c1": ("m.f", "def f():\n    door.open()"),
        "c2": ("m.g", "def g():\n    return self"),
        "c3": ("Guide", "Use the package."),
        "c4": ("Notes", "Nothing to ask here."),
    }


def test_a_title_asked_in_other_words_is_dropped_whole() -> None:
    method = Chunk(
        id="c5",
        text="Removes every item.",
        document_id="List.removeAllItems",
        title="java.util.List.removeAllItems",
        parts=(Part("title", "List remove all items"), Part("text", "Removes every item.")),
    )
    pair = Pair("List remove all items", "c5", "List.removeAllItems", "title", "Removes every item.")
    assert structural_data([pair], [method]).corpus["c5"] == ("", "Removes every item.")


def test_neighbours_under_a_heading_do_not_repeat_it() -> None:
    below = replace(SECTION, id="c6", text="More of it.", parts=())
    other = replace(below, id="c7", document_id="other.md")
    named = Chunk(id="c8", text="a b", document_id="api", title="a.getAll", parts=(Part("title", "get all"),))
    data = structural_data(PAIRS, [CODE, SECTION, below, other, named, replace(named, id="c9", parts=())])
    assert data.corpus["c6"] == ("Guide", "More of it.")
    assert data.corpus["c7"] == ("Guide > Install on Linux", "More of it.")
    assert data.corpus["c8"] == data.corpus["c9"] == ("", "a b")
    assert without_headings(below, headings_by_document([SECTION])) == "Guide"
    assert without_headings(below, headings_by_document([other])) == below.title


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(CorpusError, match="no structural pair"):
        structural_data([], [PLAIN])


def test_pairs_of_another_corpus_are_an_error() -> None:
    with pytest.raises(CorpusError, match=r"1 pairs name chunks .*'c1'"):
        structural_data(PAIRS, [SECTION])
