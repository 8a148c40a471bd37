"""Chunks fit what a model reads; a token is a letter, digit or sign here, so that sizes can be seen."""

from __future__ import annotations

import re
import textwrap

import pytest

from revela_rag.corpus import Document, chunk_document, load_corpus
from revela_rag.corpus.chunking import cut_document
from revela_rag.corpus.window import Window


def window(room: int, tokens_of_word: int = 3) -> Window:
    """A model with as many tokens for every word, and one for every sign."""

    def count(text: str) -> int:
        return sum(tokens_of_word if word[0].isalnum() else 1 for word in re.findall(r"\w+|[^\w\s]", text))

    return Window(room + 2, room, count)


def held(chunk, some: Window) -> bool:
    return some.count(chunk.title) + some.count(chunk.text) <= some.room


SENTENCES = [f"The owl number {i} hunts its mice in barn {i}." for i in range(60)]
BODY = "\n".join(
    f"    if value_{i}:\n        total += weigh(value_{i}, {i})\n        seen.append({i})" for i in range(16)
)
CODE = f'''
class Scale:
    """Weighs owls."""

    def weigh_all(self, values: dict[str, int]) -> int:
        """The weight of all owls together, in grams."""
{textwrap.indent(BODY, "    ")}
        return total


def short(owl):
    return owl.weight + owl.height
'''


def test_prose_is_cut_at_sentences_and_every_part_has_its_heading() -> None:
    document = Document("d.md", f"# Barn owls\n\n{' '.join(SENTENCES)}\n", format="markdown")
    some = window(120)
    whole, parts = chunk_document(document), chunk_document(document, window=some)
    assert len(whole) == 5 and not any(held(chunk, some) for chunk in whole)
    assert all(held(chunk, some) for chunk in parts) and len(parts) == 20
    assert " ".join(chunk.text for chunk in parts) == " ".join(SENTENCES)
    assert all(chunk.text.endswith(".") and chunk.title == "Barn owls" for chunk in parts)
    assert {(chunk.metadata["start_line"], chunk.metadata["end_line"]) for chunk in parts} == {(3, 3)}
    sizes = [len(chunk.text.split()) for chunk in parts]
    assert max(sizes) <= 1.6 * min(sizes), "no crumbs"


def test_what_fits_stays_as_it_is() -> None:
    text = f"# A\n\n{' '.join(SENTENCES[:9])}\n\n# B\n\n{' '.join(SENTENCES[9:11])}\n"
    document = Document("d.md", text, format="markdown")
    plain = chunk_document(document)
    assert chunk_document(document, window=window(1000)) == plain
    cut = chunk_document(document, window=window(120))
    assert len(plain) == 2 and cut[-1].id == plain[-1].id and len(cut) > 2
    code = Document("s.py", CODE, format="python")
    assert chunk_document(code, window=window(5000)) == chunk_document(code)


def test_long_definitions_are_cut_at_inner_statements_below_their_signature() -> None:
    document = Document("s.py", CODE, format="python")
    some = window(150)
    chunks, truncated = cut_document(document, window=some)
    parts = [chunk for chunk in chunks if chunk.metadata.get("symbol") == "Scale.weigh_all"]
    assert len(parts) > 3 and all(held(chunk, some) for chunk in chunks) and not truncated
    assert parts[0].title == "Scale.weigh_all" and [part.role for part in parts[0].parts] == ["docstring", "body"]
    signature = "def weigh_all(self, values: dict[str, int]) -> int:"
    assert {chunk.title for chunk in parts[1:]} == {f"Scale.weigh_all {signature}"}
    assert not any(chunk.parts for chunk in parts[1:])
    lines = CODE.split("\n")
    for chunk in parts:
        start, end = chunk.metadata["start_line"], chunk.metadata["end_line"]
        assert textwrap.dedent("\n".join(lines[start - 1 : end])) == chunk.text
        assert chunk.text.split("\n")[0].startswith(("def", "if", "return")), "between statements"
    rows = [row for chunk in parts for row in range(chunk.metadata["start_line"], chunk.metadata["end_line"] + 1)]
    assert rows == list(range(5, 56)), "nothing is lost or said twice"
    assert [chunk.metadata["symbol"] for chunk in chunks if chunk not in parts] == ["Scale", "short"]


def test_tables_keep_the_names_of_their_columns() -> None:
    rows = [f"| owl {i} | {i * 30} g | barn {i} |" for i in range(30)]
    text = "\n".join(["| owl | weight | place |", "|-----|--------|-------|", *rows])
    chunks = chunk_document(Document("t.md", text, format="markdown"), window=window(130))
    assert len(chunks) > 4
    for chunk in chunks:
        assert chunk.text.split("\n")[:2] == ["| owl | weight | place |", "|-----|--------|-------|"]
        assert held(chunk, window(130))
    assert [line for chunk in chunks for line in chunk.text.split("\n")[2:]] == rows


@pytest.mark.parametrize("text", ["x" * 3000, "if (a) { b(); } " * 300, "猫は好き。" * 200])
@pytest.mark.parametrize("format", ["text", "python", "yaml"])
def test_without_sentences_or_lines_words_are_cut(text: str, format: str) -> None:
    some = Window(66, 64, len)  # a token for every character
    chunks, truncated = cut_document(Document("d", text, format=format), window=some)
    assert all(some.count(chunk.embedding_text) <= 64 or chunk.id in truncated for chunk in chunks)
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())


def test_what_is_still_truncated_is_counted_and_told() -> None:
    word = Window(22, 20, lambda text: 30 * len(text.split()))  # no word fits
    corpus = load_corpus(
        [{"id": "a", "text": "owls hunt"}, {"id": "b", "text": " ".join(SENTENCES)}], window=word
    )  # the first is too short to be counted
    assert corpus.report.truncated == len(corpus.chunks) - 1 > 2 and corpus.report.window == 22
    assert f"; {len(corpus.chunks) - 1:,} are longer than the 22 tokens the model reads" in corpus.report.summary()
    plain = load_corpus([{"id": "a", "text": "owls hunt"}])
    assert (plain.report.window, plain.report.truncated) == (None, 0) and "tokens" not in plain.report.summary()


def test_short_texts_are_not_counted() -> None:
    counted: list[str] = []
    some = Window(256, 254, lambda text: counted.append(text) or 1)
    chunk_document(Document("d.md", "# Owls\n\nThey hunt mice.\n", format="markdown"), window=some)
    chunk_document(Document("s.py", "def f(owl):\n    return owl.weight\n", format="python"), window=some)
    assert counted == []
    assert not some.surely_holds("é" * 64) and some.surely_holds("é" * 63)
