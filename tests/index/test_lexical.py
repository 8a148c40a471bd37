import math

import numpy as np
import pytest

from revela_rag.lexical import K1, PAIR_WEIGHT, B, LexicalIndex

TEXTS = {
    "camel": "def getUserName(): return cache",
    "snake": "get_user_name = 1",
    "prose": "The names of users are cached.",
    "other": "Nothing to see in os.path.join here",
}


@pytest.fixture
def index() -> LexicalIndex:
    return LexicalIndex.build(TEXTS, TEXTS.values())


def test_words_without_spaces_between_them_are_found():
    index = LexicalIndex.build("ab", ["这是一个关于数据库连接的说明", "今天天气很好"])
    assert [id_ for id_, _ in index.search("数据库")] == ["a"]


def test_every_spelling_finds_every_other(index):
    for query in ("user name", "getUserName", "get_user_name", "users' names"):
        assert {id_ for id_, _ in index.search(query)} == {"camel", "snake", "prose"}
    assert index.search("getUserName", 1)[0][0] == "camel"
    assert index.search("get_user_name", 1)[0][0] == "snake"


def test_scores_are_lucenes_bm25():
    texts = ["apple banana apple", "banana cherry", "cherry"]
    index = LexicalIndex.build("abc", texts, k1=1.2, b=0.75)
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    length = 1.2 * (1 - 0.75 + 0.75 * 3 / 2)
    assert index.scores("apple")[0] == pytest.approx(idf * 2 / (2 + length), rel=1e-5)
    assert index.scores("apple")[1:].tolist() == [0, 0]
    assert index.scores("apple apple")[0] == pytest.approx(2 * index.scores("apple")[0])


def test_words_that_stand_together_count_more_in_either_order():
    texts = ["retry the upload when it failed", "the upload that no retry saves", "a retry of uploads", "nothing"]
    index = LexicalIndex.build("abcd", texts)
    plain = LexicalIndex.build("abcd", texts, pair_weight=0)
    idf = math.log(1 + (4 - 3 + 0.5) / (3 + 0.5))
    lengths = np.array([2, 2, 1, 0])  # pairs: retry upload, upload fail; upload retry, retry save; retry upload; none
    pair = idf / (1 + K1 * (1 - B + B * lengths / lengths.mean()))
    extra = PAIR_WEIGHT * np.where(lengths > 0, pair, 0)
    for query in ("retry upload", "Uploads: can you retry?"):
        np.testing.assert_allclose(index.scores(query) - plain.scores(query), extra, atol=1e-6)
    for apart in ("retry", "retry zebra upload", "failed saves", "upload nothing"):
        np.testing.assert_array_equal(index.scores(apart), plain.scores(apart))
    np.testing.assert_array_equal(index.scores("upload failed retry saves"), index.scores("saves retry failed upload"))


def test_pairs_of_terms_that_come_late_are_told_apart():
    rng = np.random.default_rng(0)
    vocabulary = [f"z{a}{b}z" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    texts = [" ".join(rng.choice(vocabulary, 30)) for _ in range(200)]
    index = LexicalIndex.build(map(str, range(200)), texts)
    plain = LexicalIndex.build(map(str, range(200)), texts, pair_weight=0)
    for query in (" ".join(rng.choice(vocabulary, 2, replace=False)) for _ in range(300)):
        either = f"{query} ", " ".join(reversed(query.split())) + " "
        expected = [any(f" {pair}" in f" {text} " for pair in either) for text in texts]
        assert ((index.scores(query) - plain.scores(query)) > 0).tolist() == expected


def test_edges_of_search(index):
    assert index.search("") == index.search("zebra") == index.search("the") == []
    assert index.scores("").tolist() == [0, 0, 0, 0]
    assert len(index.search("name", 1000)) == 3
    with pytest.raises(ValueError, match="k=0"):
        index.search("name", 0)
    scores = [score for _, score in index.search("user name")]
    assert scores == sorted(scores, reverse=True) and all(score > 0 for score in scores)


def test_a_mask_is_applied_before_top_k(index):
    mask = np.array([False, True, True, False])
    assert {id_ for id_, _ in index.search("getUserName", 2, mask=mask)} == {"snake", "prose"}


def test_ties_keep_the_order_of_the_texts():
    index = LexicalIndex.build(map(str, range(20)), ["same text"] * 20)
    assert [id_ for id_, _ in index.search("same", 5)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("texts", [[], [""], ["", "the"]])
def test_nothing_to_index(texts):
    index = LexicalIndex.build(map(str, range(len(texts))), texts)
    assert len(index) == len(texts) and index.search("word") == []


def test_the_numbers_of_ids_and_texts_must_agree():
    with pytest.raises(ValueError, match="2 ids for 1 texts"):
        LexicalIndex.build(["a", "b"], ["text"])
