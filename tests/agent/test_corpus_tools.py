from __future__ import annotations

import copy
import json
import pickle
import re
import sys
import time
from dataclasses import replace

import pytest

from revela_rag.agent import CorpusTools
from revela_rag.corpus import load_corpus
from revela_rag.errors import IndexingError, MissingExtraError
from revela_rag.index import Index

from .conftest import HANDBOOK, FakeEncoder, build


def test_search_gives_passages_with_their_places(handbook):
    found = handbook.search("rotate the keys every month", k=2)
    first = found["hits"][0]
    assert (first["document"], first["source"], first["lines"]) == ("docs/keys.md", "docs/keys.md", [7, 8])
    assert first["text"] == "Run the rotate command every month.\nIt makes a new key."
    assert first["title"] == "Keys > Rotate the keys"
    assert handbook.index.get([first["id"]])[0].text == first["text"]
    assert len(found["hits"]) == 2 and found["hits"][0]["score"] >= found["hits"][1]["score"]
    assert "notes" not in found
    assert [hit["document"] for hit in handbook.search("keys", filter={"language": "python"})["hits"]] == [
        "src/dates.py"
    ] * 4


def test_search_is_bounded_and_says_so(made):
    tools = made({"a.md": "one two three four five six seven eight nine ten " * 20}, max_characters=100)
    found = tools.search("seven", k=1000)
    assert all(len(hit["text"]) <= 200 for hit in found["hits"])
    assert "k=1000 is more than can be given; 50 is used." in found["notes"]
    assert any(note.startswith("Texts are cut after 200 characters") for note in found["notes"])
    with pytest.raises(IndexingError, match="The query is empty"):
        tools.search(" ")
    with pytest.raises(IndexingError, match="k=0 must be at least 1"):
        tools.search("seven", k=0)
    assert tools.search("seven", filter={"language": "go"})["notes"] == [
        "Nothing found; try other words, or without the filter."
    ]


def lines_of(found):
    return [(match["document"], match["line"], match["text"].strip()) for match in found["matches"]]


def test_grep_gives_the_lines_of_the_source(handbook):
    expected = [
        (name, number, line.strip())
        for name, text in HANDBOOK.items()
        for number, line in enumerate(text.split("\n"), start=1)
        if re.search(r"(?i)\bmonth\b", line)
    ]
    assert len(expected) == 8
    assert sorted(lines_of(handbook.grep("(?i)\\bmonth\\b"))) == expected


def test_a_signature_in_the_head_of_a_class_is_found_once(handbook):
    assert lines_of(handbook.grep("def parse")) == [("src/dates.py", 11, "def parse(self, text):")]
    assert lines_of(handbook.grep("strict|def close")) == [
        ("src/dates.py", 9, "strict = True"),
        ("src/dates.py", 17, "def close(self):"),
    ]


def test_grep_narrows_by_path_filter_and_case(handbook):
    assert {match["document"] for match in handbook.grep("keys?", path="docs/")["matches"]} == {"docs/keys.md"}
    assert {match["document"] for match in handbook.grep("[a-z]", path="*.py")["matches"]} == {"src/dates.py"}
    assert {m["document"] for m in handbook.grep("[a-z]", filter={"language": "python"})["matches"]} == {"src/dates.py"}
    later = {"start_line": {"$gte": 20}, "$not": {"language": "go"}}
    assert {match["line"] for match in handbook.grep("month", filter=later)["matches"]} == {21, 23, 24, 25}
    assert handbook.list(filter=later)["documents"][0]["chunks"] == 1
    assert handbook.grep("thirty")["notes"] == ["Nothing matches. Try with ignore_case, or search."]
    assert lines_of(handbook.grep("thirty", ignore_case=True)) == [
        ("docs/leave.md", 3, "Thirty days of paid leave a year.")
    ]
    assert handbook.grep("key", path="docs/", filter={"language": "python"})["matches"] == []
    with pytest.raises(IndexingError, match=r"No document matches 'doc/'.*Similar names: 'docs/keys\.md'"):
        handbook.grep("key", path="doc/")
    with pytest.raises(IndexingError, match="The filter is a str"):
        handbook.grep("key", filter="language")


@pytest.mark.parametrize("pattern", ["(?=a)", "(a)\\1", "(", "[a-", "a{1000}{1000}", "\ud800", "", "x" * 2000])
def test_a_pattern_that_cannot_be_used_is_explained(handbook, pattern):
    with pytest.raises(IndexingError, match=r"RE2|give 1 to 1000"):
        handbook.grep(pattern)


def test_anchors_and_breaks_belong_to_lines(handbook):
    assert [line for _, line, _ in lines_of(handbook.grep("^It makes"))] == [8]
    assert [line for _, line, _ in lines_of(handbook.grep("month\\.$"))] == [7]
    assert handbook.grep("month\\.\\nIt")["notes"] == ["Patterns match within lines; look for one of the lines alone."]
    assert len(handbook.grep("x*")["matches"]) > 5


def test_patterns_that_other_engines_never_finish_take_no_time(made):
    tools = made({"a.md": "\n\n".join("a" * 60 + f" {at}!" for at in range(400))})
    start = time.monotonic()
    assert tools.grep("(a+)+$")["matches"] == []
    assert tools.grep("(a|aa)+b")["matches"] == []
    assert time.monotonic() - start < 2


def test_grep_stops_and_says_where(made):
    tools = made({f"{at}.md": f"word {at} is here" for at in range(700)})
    found = tools.grep("word", limit=7)
    assert len(found["matches"]) == 7
    assert found["notes"] == [
        "Stopped after 7 lines; narrow the pattern, path or filter, or raise limit (at most 500)."
    ]
    tools.seconds = 0
    assert tools.grep("word 0 ")["notes"] == ["Stopped after 0 s and 500 of 700 passages; narrow path or filter."]
    tools.seconds, tools.max_characters = 10, 500
    found = tools.grep("word", limit=100)
    assert 1 <= len(found["matches"]) < 20
    assert found["notes"] == [f"Only {len(found['matches'])} fit; narrow the path or the filter to see others."]


def test_a_long_line_is_shown_around_the_match(made):
    tools = made(["é " * 3000 + "needle " + "b " * 3000], max_words=100_000)
    (match,) = tools.grep("needle")["matches"]
    assert "needle" in match["text"] and match["text"].startswith("...") and match["text"].endswith("...")
    assert len(match["text"]) == 306


def test_sentences_that_share_a_line_are_found_each(made):
    text = " ".join(f"Sentence number {at} says something about the moon." for at in range(60))
    tools = made({"a.md": text})
    found = tools.grep("number (3|50) says")["matches"]
    assert [match["line"] for match in found] == [1, 1]
    assert len({match["id"] for match in found}) == 2


def test_without_google_re2_the_extra_is_named(handbook, monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(MissingExtraError, match=r"revela-rag\[agents\]"):
        handbook.grep("x")


def test_documents_are_listed(handbook):
    found = handbook.list()
    assert found == {
        "documents": [
            {"document": "docs/keys.md", "chunks": 3, "metadata": {}},
            {"document": "docs/leave.md", "chunks": 1, "metadata": {}},
            {"document": "src/dates.py", "chunks": 4, "metadata": {"language": "python"}},
        ],
        "total": 3,
    }
    assert [each["document"] for each in handbook.list("docs/")["documents"]] == ["docs/keys.md", "docs/leave.md"]
    assert [each["document"] for each in handbook.list("*leave*")["documents"]] == ["docs/leave.md"]
    assert [each["document"] for each in handbook.list(filter={"kind": "code"})["documents"]] == ["src/dates.py"]
    page = handbook.list(limit=1, offset=1)
    assert [each["document"] for each in page["documents"]] == ["docs/leave.md"]
    assert (page["total"], page["notes"]) == (3, ["1 more; go on with offset=2, or narrow the path."])
    with pytest.raises(IndexingError, match="offset=-1"):
        handbook.list(offset=-1)
    with pytest.raises(IndexingError, match=r"Names look like 'docs/keys\.md'"):
        handbook.list("zebra")


def test_neighbours_come_in_the_order_of_the_document(handbook):
    middle = handbook.grep("rotate command")["matches"][0]["id"]
    found = handbook.neighbours(middle)
    assert found["document"] == "docs/keys.md"
    assert [passage["lines"] for passage in found["passages"]] == [[3, 3], [7, 8], [12, 12]]
    assert [passage["lines"] for passage in handbook.neighbours(middle, before=0, after=99)["passages"]] == [
        [7, 8],
        [12, 12],
    ]
    assert handbook.neighbours(middle, after=99)["notes"] == ["after=99 is more than can be given; 20 is used."]
    with pytest.raises(IndexingError, match="There is no passage 'nope'; take an id from"):
        handbook.neighbours("nope")


def test_an_unknown_document_is_answered_with_similar_names(handbook):
    for name in ("keys.md", "docs/KEYS.md", "docs/key.md", "keys"):
        with pytest.raises(IndexingError, match=r"There is no document .* Similar names: 'docs/keys\.md'"):
            handbook.read(name)


def test_what_others_write_is_seen(handbook):
    assert handbook.grep("quokka")["matches"] == []
    other = Index.open(handbook.index.path, encoder=FakeEncoder())
    other.add(load_corpus([{"id": "new.md", "text": "A quokka smiles."}]).chunks)
    assert [match["document"] for match in handbook.grep("quokka")["matches"]] == ["new.md"]
    assert handbook.read("new.md")["segments"][0]["text"] == "A quokka smiles."
    other.delete(documents=["new.md"])
    with pytest.raises(IndexingError, match=r"There is no document 'new\.md'"):
        handbook.read("new.md")


def test_tools_are_found_once_each(tmp_path):
    long = "Book a room for a meeting. " + "It has chairs and a table and a window. " * 60
    tools = [{"name": "book_room", "description": long, "parameters": {}}]
    tools += [{"name": f"send_{at}", "description": f"Send mail number {at}.", "parameters": {}} for at in range(9)]
    index = build(tools, tmp_path / "index")
    assert len(index) > 10
    agent = CorpusTools(index)
    assert agent.has_tools
    found = agent.find_tools("book a room with a window", k=3)["tools"]
    assert len({tool["name"] for tool in found}) == 3
    assert found[0]["name"] == "book_room" and found[0]["text"].startswith("Book a room for a meeting.")
    with pytest.raises(IndexingError, match="The request is empty"):
        agent.find_tools("")


def test_prose_is_no_index_of_tools(handbook, made):
    assert not handbook.has_tools
    mixed = [{"name": "send", "description": "Send.", "parameters": {}}, {"id": "a", "text": "Some prose is here."}]
    assert not made(mixed).has_tools


def test_an_empty_index_is_answered(tmp_path):
    tools = CorpusTools(Index.build([], encoder=FakeEncoder(), path=tmp_path / "index"))
    assert tools.search("x") == {"query": "x", "hits": [], "notes": ["Nothing found."]}
    assert tools.list() == {"documents": [], "total": 0}
    assert tools.grep("x")["matches"] == []
    assert not tools.has_tools
    with pytest.raises(IndexingError, match="The index is empty"):
        tools.read("x")


def test_every_result_is_plain_json(handbook):
    id_ = handbook.search("keys", k=1)["hits"][0]["id"]
    for result in (
        handbook.search("keys"),
        handbook.grep("key"),
        handbook.read("docs/keys.md"),
        handbook.list(),
        handbook.neighbours(id_),
    ):
        assert json.loads(json.dumps(result)) == result


def test_copies_work(handbook):
    handbook.list()
    assert copy.deepcopy(handbook).list() == handbook.list()
    again = pickle.loads(pickle.dumps(handbook))  # noqa: S301
    assert again.grep("key") == handbook.grep("key")


def test_bad_settings_are_refused(handbook, tmp_path):
    with pytest.raises(IndexingError, match="mode='sparse'"):
        CorpusTools(handbook.index, mode="sparse")
    with pytest.raises(IndexingError, match="max_characters=0"):
        CorpusTools(handbook.index, max_characters=0)
    assert CorpusTools(str(handbook.index.path)).list()["total"] == 3


def test_metadata_of_a_document_is_listed(tmp_path):
    chunks = load_corpus([{"id": "a", "text": "Some text.", "team": "red", "note": "x" * 500}]).chunks
    index = Index.build([replace(each) for each in chunks], encoder=FakeEncoder(), path=tmp_path / "index")
    assert CorpusTools(index).list()["documents"] == [{"document": "a", "chunks": 1, "metadata": {"team": "red"}}]
