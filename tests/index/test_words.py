"""BM25 of chunks in the context of their documents."""

import numpy as np
import pytest

from revela_rag.index.words import WordIndex, write_words
from revela_rag.lexical import LexicalIndex

TEXTS = ["class Parser reads tokens", "def close(self): stop", "class Painter draws windows", "def close(self): stop"]
OWNERS = ["parser.py", "parser.py", "painter.py", "painter.py"]


@pytest.fixture
def words() -> WordIndex:
    return WordIndex.build([3, 5, 8, 9], TEXTS, OWNERS)


def test_a_chunk_scores_by_its_own_words_and_its_documents(words):
    own = LexicalIndex.build("abcd", TEXTS).scores("close the parser")
    around = LexicalIndex.build("ab", ["\n".join(TEXTS[:2]), "\n".join(TEXTS[2:])]).scores("close the parser")
    found = words.scores_in_context("close the parser")
    np.testing.assert_allclose(found, (own + around[[0, 0, 1, 1]]) / 2, rtol=1e-6)
    assert own[1] == own[3] and found[1] > found[3], "the same text, told apart by what stands around it"
    assert words.rows.tolist() == [3, 5, 8, 9]


def test_lexical_search_reads_the_chunk_alone(words):
    assert [row for row, _ in words.search("parser", 4)] == [3]


def test_chunks_that_are_whole_documents_are_read_once():
    words = WordIndex.build(range(4), TEXTS, "abcd")
    plain = LexicalIndex.build("abcd", TEXTS)
    np.testing.assert_array_equal(words.scores_in_context("close parser"), plain.scores("close parser"))


@pytest.mark.parametrize("owners", [OWNERS, list("abcd")])
def test_it_comes_back_from_disk(tmp_path, owners):
    rows = np.array([3, 5, 8, 9])
    words = WordIndex.build(rows, TEXTS, owners)
    write_words(tmp_path, rows, lambda some: [TEXTS[place] for place in np.searchsorted(rows, some)])
    again = WordIndex.load(tmp_path, rows, owners)
    for query in ("close the parser", "windows", "zebra", ""):
        np.testing.assert_array_equal(again.scores_in_context(query), words.scores_in_context(query))
        assert again.search(query, 3) == words.search(query, 3)


def test_without_texts_nothing_is_found(tmp_path):
    rows = np.empty(0, dtype=np.int64)
    write_words(tmp_path, rows, lambda some: [])
    for words in (WordIndex.build([], [], []), WordIndex.load(tmp_path, rows, [])):
        assert words.scores_in_context("x").shape == (0,) and words.search("x", 3) == []
