"""Documents are put together from their passages, line for line."""

from __future__ import annotations

from pathlib import Path

import pytest

from revela_rag.agent import CorpusTools
from revela_rag.agent.shown import shown
from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index import Index

from .conftest import HANDBOOK, FakeEncoder

ROOT = Path(__file__).parents[2]


def texts(found) -> list[str]:
    return [segment["text"] for segment in found["segments"]]


def spans(found) -> list[tuple[int, int]]:
    return [(segment["start_line"], segment["end_line"]) for segment in found["segments"]]


def test_a_page_reads_as_it_was_written(handbook):
    found = handbook.read("docs/keys.md")
    assert (found["document"], found["chunks"], found["last_line"]) == ("docs/keys.md", 3, 12)
    assert spans(found) == [(3, 3), (7, 8), (12, 12)]
    assert [segment["title"] for segment in found["segments"]] == ["Keys", "Keys > Rotate the keys", "Keys > Lost keys"]
    assert texts(found)[1] == "Run the rotate command every month.\nIt makes a new key."
    assert "notes" not in found
    assert texts(handbook.read("docs/keys.md", 8, 11)) == ["It makes a new key."]


def test_methods_stand_where_their_class_has_them(handbook):
    found = handbook.read("src/dates.py", start_line=6)
    source = HANDBOOK["src/dates.py"].split("\n")
    for segment in found["segments"]:
        assert segment["whole"]
        lines = source[segment["start_line"] - 1 : segment["end_line"]]
        assert [line.strip() for line in segment["text"].split("\n")] == [line.strip() for line in lines]
    assert spans(found) == [(6, 9), (11, 15), (17, 18), (21, 25)]


@pytest.mark.parametrize("folder", ["revela_rag/index", "revela_rag/corpus/code", "docs", "tests/corpus/sources"])
def test_lines_of_this_project_are_those_of_its_files(made, folder):
    tools = made(str(ROOT / folder))
    counts = {True: 0, False: 0}
    for listed in tools.list(limit=1000)["documents"]:
        name, at = listed["document"], 1
        source = (ROOT / folder / name).read_text(encoding="utf-8").split("\n")
        while True:
            found = tools.read(name, start_line=at)
            for segment in found["segments"]:
                counts[segment["whole"]] += 1
                if segment["whole"]:
                    lines = source[segment["start_line"] - 1 : segment["end_line"]]
                    shown = segment["text"].split("\n")
                    assert len(shown) == len(lines), (name, segment)
                    # a cut inside a line leaves out its start or end; between passages some lines are no text
                    assert all(text.strip() in line for text, line in zip(shown, lines, strict=True)), (name, segment)
            onward = [note for note in found.get("notes", []) if "go on with start_line=" in note]
            if not onward:
                break
            next_at = int(onward[0].rpartition("=")[2].rstrip("."))
            assert next_at > at
            at = next_at
    assert counts[True] > 4 * counts[False]


def test_what_does_not_fit_is_read_by_going_on(made):
    lines = [f"Line {at} is about something else." for at in range(1, 200)]
    tools = made({"a.txt": "\n\n".join(lines)}, max_characters=500)
    seen: list[str] = []
    at = 1
    while True:
        found = tools.read("a.txt", start_line=at)
        assert sum(map(len, texts(found))) <= 500
        seen += [line for text in texts(found) for line in text.split("\n") if line]
        if "notes" not in found:
            break
        at = int(found["notes"][0].rpartition("=")[2].rstrip("."))
    assert seen == lines


def test_a_line_that_never_fits_is_cut(made):
    tools = made(["word " * 2000], max_words=100_000, max_characters=300)
    found = tools.read("item-1" if "item-1" in str(tools.list()) else tools.list()["documents"][0]["document"])
    assert len(texts(found)[0]) == 300
    assert found["notes"][:2] == ["Line 1 is longer than fits.", "No more fits; go on with start_line=2."]


def test_sentences_of_one_line_are_joined(made):
    text = " ".join(f"Sentence number {at} says something about the moon." for at in range(60))
    found = made({"a.md": text}).read("a.md")
    assert found["chunks"] > 1
    assert (texts(found), spans(found)) == ([text], [(1, 1)])
    chinese = "".join(f"第{at}句话说的是月亮和星星。" for at in range(80))
    found = made({"b.md": chinese}).read("b.md")
    assert found["chunks"] > 1
    assert texts(found) == [chinese]


def test_the_names_of_columns_are_read_once(made):
    rows = [f"| name {at} | a value that takes some words {at} |" for at in range(60)]
    table = ["| name | value |", "|---|---|", *rows]
    tools = made({"a.md": "\n".join(table)})
    found = tools.read("a.md")
    assert found["chunks"] > 2
    assert texts(found) == ["\n".join(table)]
    assert [match["line"] for match in tools.grep("name \\|")["matches"]] == [1]
    assert [match["line"] for match in tools.grep("name 59")["matches"]] == [62]


PIECES = [
    "The first page is about the moon.\nIt has two lines.\nThe moon is far away from here.",
    "The moon is far away from here. The second page goes on.\nIt ends here.",
    "A third page has nothing in common with the others.",
]


def pieces() -> list[Chunk]:
    return [Chunk(f"id-{at}", text, "book.pdf", 0, metadata={"page": at}) for at, text in enumerate(PIECES)]


def test_pieces_are_put_together_without_what_they_repeat(tmp_path):
    index = Index.build(pieces(), encoder=FakeEncoder(), path=tmp_path / "index")
    tools = CorpusTools(index)
    found = tools.read("book.pdf")
    assert texts(found) == [
        "The first page is about the moon.\nIt has two lines.\n"
        "The moon is far away from here. The second page goes on.\nIt ends here.\n\n"
        "A third page has nothing in common with the others."
    ]
    assert found["last_line"] == 6
    assert found["notes"] == ["Lines are counted in the stored texts; the source has no lines, or they are not known."]
    assert [match["line"] for match in tools.grep("second|third|It ends")["matches"]] == [3, 4, 6]
    assert [match["line"] for match in tools.grep("far away")["matches"]] == [3]


def test_a_hit_says_the_page(tmp_path):
    tools = CorpusTools(Index.build(pieces(), encoder=FakeEncoder(), path=tmp_path / "index"))
    found = tools.search("third page nothing in common", k=1)
    assert found["hits"][0]["place"] == "p. 2"
    assert shown(found).startswith("[book.pdf:6, p. 2]")
    (hit,) = tools.search("third page nothing common", k=1)["hits"]
    assert hit["lines"] == [6, 6]
    assert [passage["lines"] for passage in tools.neighbours("id-1")["passages"]] == [[1, 3], [3, 4], [6, 6]]
    assert texts(tools.read("book.pdf", 3, 4)) == [
        "The moon is far away from here. The second page goes on.\nIt ends here."
    ]


def test_html_has_lines_of_its_text(made):
    tools = made({"a.html": "<html><body><h1>Moon</h1><p>It is far.</p><h2>Sun</h2><p>It is hot.</p></body></html>"})
    found = tools.read("a.html")
    assert [line for text in texts(found) for line in text.split("\n")] == ["It is far.", "It is hot."]
    (match,) = tools.grep("hot")["matches"]
    assert texts(tools.read("a.html", match["line"], match["line"])) == ["It is hot."]


def test_lines_of_a_documents_own_metadata_are_not_taken_for_those_of_passages(tmp_path):
    own = {"start_line": 5, "end_line": 9}
    chunks = [Chunk(f"id-{at}", f"Text {at}\nof two lines.", "a", at, metadata=own) for at in range(3)]
    tools = CorpusTools(Index.build(chunks, encoder=FakeEncoder(), path=tmp_path / "index"))
    assert tools.read("a")["last_line"] == 8
    assert [match["line"] for match in tools.grep("Text")["matches"]] == [1, 4, 7]


def test_lines_that_are_not_there(handbook):
    with pytest.raises(IndexingError, match=r"'docs/leave\.md' ends with line 3; start_line=9"):
        handbook.read("docs/leave.md", start_line=9)
    with pytest.raises(IndexingError, match="end_line=1 is before start_line=2"):
        handbook.read("docs/leave.md", 2, 1)
    with pytest.raises(IndexingError, match="start_line=0"):
        handbook.read("docs/leave.md", 0)
    assert handbook.read("docs/leave.md", 1, 2)["notes"] == [
        "Nothing is stored of these lines; the document has lines 1 to 3."
    ]
