"""Where in a hit the answer stands."""

import dataclasses

import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.parts import highlights

from .support import FakeEncoder, chunk

TEXT = "Tokens live for an hour. Keys are rotated every month.\n\nThe moon is far away. A month has weeks."


def shown(query, text=TEXT, **options):
    return [text[span.start : span.end] for span in highlights(query, text, **options)]


def test_the_sentence_that_holds_the_words_comes_first():
    assert shown("how often are keys rotated in a month?") == ["Keys are rotated every month."]
    assert shown("month") == ["Keys are rotated every month.", "A month has weeks."]
    assert shown("month", count=1) == ["Keys are rotated every month."]
    assert shown("elephants") == shown("") == shown("x", "") == []


def test_a_rare_word_is_worth_more():
    text = "The cache is here. The cache is there. The cache and more. An eviction happens."
    assert shown("cache eviction", text)[0] == "An eviction happens."


def test_code_has_lines():
    text = "def area(width, height):\n    # not the perimeter\n    return width * height\n"
    assert shown("return height", text, kind="code")[0] == "return width * height"


def test_of_a_long_sentence_a_part():
    text = " ".join(f"word{n}" for n in range(100)).replace("word70", "needle")
    (found,) = shown("needle", text)
    assert "needle" in found.split() and len(found.split()) == 25


def test_by_vectors():
    class Deaf(FakeEncoder):
        """Knows one sentence."""

        def _encode(self, texts):
            rows = super()._encode(texts)
            rows[:] = 0
            rows[:, 0] = [1.0 if text in ("lunar distance", "The moon is far away.") else 0.1 for text in texts]
            return rows

    (best,) = highlights("lunar distance", TEXT, encoder=Deaf())
    assert TEXT[best.start : best.end] == "The moon is far away." and best.score == pytest.approx(1.0)


def test_a_hit_knows_what_it_was_found_by(path):
    pieces = [chunk(0, text=TEXT, title="Keys"), chunk(1, text="month = 12\nprint(month)\n")]
    with Index.build(pieces, encoder=FakeEncoder(), path=path) as index:
        for mode in ("hybrid", "dense", "lexical"):
            for hit in index.search("rotated keys", mode=mode, feedback=0 if mode == "lexical" else 1, select="mmr"):
                assert hit.query == "rotated keys"
                (span,) = hit.highlights or (None,)
                if hit.chunk.metadata["number"] == 0:
                    assert TEXT[span.start : span.end] == "Keys are rotated every month."
        hit = index.search("month", mode="lexical")[0]
        assert dataclasses.replace(hit, query="") == hit and "query" not in repr(hit)
        assert dataclasses.replace(hit, query="").highlights == ()


def test_a_count_below_one_is_refused():
    with pytest.raises(IndexingError, match="count=0"):
        highlights("a", TEXT, count=0)
