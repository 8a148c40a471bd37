"""Exact and near duplicates go, the first stays, and nothing else does."""

import random
import time

import pytest

from revela_rag.corpus import Chunk
from revela_rag.corpus.duplicates import find_duplicates


def chunks_of(texts, titles=None):
    titles = titles or [""] * len(texts)
    return [
        Chunk(str(n), text, f"d{n}", title=title) for n, (text, title) in enumerate(zip(texts, titles, strict=True))
    ]


def shingles(text, width=4):
    words = text.split()
    return {tuple(words[at : at + width]) for at in range(len(words) - width + 1)}


def words(rng, count, vocabulary=5000):
    return [f"w{rng.randrange(vocabulary)}" for _ in range(count)]


def test_exact_up_to_case_and_whitespace():
    found = find_duplicates(chunks_of(["Some  text\nhere", "some text HERE", "other", "some text here"]))
    assert (found.exact, found.near) == ([1, 3], [])


def test_titles_tell_texts_apart():
    found = find_duplicates(chunks_of(["Returns the price", "Returns the price"], ["Gas", "Oil"]))
    assert (found.exact, found.near) == ([], [])


def test_near_duplicates_match_brute_force():
    rng = random.Random(0)
    texts = []
    for _ in range(60):
        base = words(rng, rng.randrange(10, 120))
        texts.append(" ".join(base))
        for _ in range(4):
            copy = list(base)
            for _ in range(rng.randrange(4)):
                copy[rng.randrange(len(copy))] = "changed"
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    texts = list(dict.fromkeys(texts))
    kept, expected = [], []
    for number, text in enumerate(texts):
        mine = shingles(text)
        similar = any(len(mine & other) >= 0.9 * len(mine | other) for other in kept)
        if similar:
            expected.append(number)
        else:
            kept.append(mine)
    assert 0 < len(expected) < len(texts) / 2
    assert find_duplicates(chunks_of(texts), threshold=0.9).near == expected


def test_one_changed_word_in_a_short_text_is_kept():
    texts = ["Returns current gas price data for Alaska.", "Returns current gas price data for Texas.", "", "a", "b"]
    found = find_duplicates(chunks_of(texts))
    assert found.near == [] and found.exact == []


def test_operators_count():
    texts = [f"def f(a, b):\n    return {' + '.join('ab' * 4)}", f"def f(a, b):\n    return {' - '.join('ab' * 4)}"]
    assert find_duplicates(chunks_of(texts)).near == []


def test_threshold_one_keeps_near_duplicates():
    text = " ".join(words(random.Random(1), 200))
    near = chunks_of([text, text + " more"])
    assert find_duplicates(near).near == [1]
    assert find_duplicates(near, threshold=1.0).near == []


def test_nothing_to_compare():
    assert find_duplicates([]).near == []


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [30, 5000])
def test_fifty_thousand_chunks_take_less_than_a_minute(vocabulary):
    rng = random.Random(2)
    texts = [" ".join(words(rng, 100, vocabulary)) for _ in range(25_000)]
    texts += [f"{text} more" for text in texts]
    started = time.process_time()
    found = find_duplicates(chunks_of(texts))
    assert time.process_time() - started < 60
    assert found.near == list(range(25_000, 50_000))
