"""What BM25 is computed from: counts of terms and neighbours, on disk and put together."""

import json

import numpy as np
import pytest

from revela_rag.errors import IndexingError
from revela_rag.postings import Postings
from revela_rag.terms import read_terms

TEXTS = ["cache user cache", "user cache", "", "boat sail boat boat"]
ARRAYS = ["pairs.npy", "starts.npy", "places.npy", "counts.npy", "lengths.npy"]


def made(texts, **options) -> Postings:
    return Postings.of_terms(*read_terms(texts), **options)


def counted(postings: Postings):
    """Every term and pair, with the texts that have it."""
    names = list(postings.vocabulary)
    of = {name: dict(zip(*map(np.ndarray.tolist, postings.of_term(name)), strict=True)) for name in names}
    for first in names:
        for second in names:
            found = dict(zip(*map(np.ndarray.tolist, postings.of_pair(first, second)), strict=True))
            of |= {(first, second): found} if found else {}
    return of, postings.lengths.tolist()


@pytest.fixture
def postings() -> Postings:
    return made(TEXTS)


def test_terms_and_neighbours_are_counted(postings):
    of, lengths = counted(postings)
    assert lengths == [3, 2, 0, 4]
    assert of["cach"] == {0: 2, 1: 1} and of["boat"] == {3: 3}
    assert of["user", "cach"] == of["cach", "user"] == {0: 2, 1: 1} and of["boat", "boat"] == {3: 1}
    assert ("user", "boat") not in of and postings.of_term("zebra")[0].size == 0
    assert postings.of_pair("user", "zebra")[0].size == 0
    assert not counted(made(TEXTS, pairs=False))[0].keys() & {("user", "cach")}


@pytest.mark.parametrize("cut", range(len(TEXTS) + 1))
def test_parts_together_are_the_whole(cut):
    whole = made(TEXTS)
    merged = Postings.merged([(made(some), np.ones(len(some), dtype=bool)) for some in (TEXTS[:cut], TEXTS[cut:])])
    assert counted(merged) == counted(whole) and merged.counts.dtype == whole.counts.dtype == np.uint8


def test_what_is_left_out_is_gone(postings):
    merged = Postings.merged([(postings, np.array([True, False, True, False])), (made(["sail"]), np.array([True]))])
    assert counted(merged) == counted(made([TEXTS[0], "", "sail"]))
    assert list(merged.vocabulary) == ["cach", "user", "sail"]
    assert counted(Postings.merged([(postings, np.zeros(4, dtype=bool))])) == ({}, [])


def test_a_text_may_hold_a_term_thousands_of_times():
    assert made(["word " * 70_000]).of_term("word")[1].tolist() == [70_000]


@pytest.mark.parametrize("texts", [TEXTS, [], [""], ["", "the"]])
def test_save_and_load_without_pickle(texts, tmp_path):
    made(texts).save(tmp_path / "words")
    assert counted(Postings.load(tmp_path / "words")) == counted(made(texts))
    assert {file.name for file in (tmp_path / "words").iterdir()} == {"terms.json", *ARRAYS}
    assert Postings.is_current(tmp_path / "words") and not Postings.is_current(tmp_path)


@pytest.mark.parametrize("name", [*ARRAYS, "terms.json"])
def test_damaged_files(postings, tmp_path, name):
    postings.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(IndexingError, match="damaged"):
            Postings.load(tmp_path)


def test_arrays_that_point_elsewhere(postings, tmp_path):
    postings.save(tmp_path)
    np.save(tmp_path / "places.npy", postings.places + 10_000)
    with pytest.raises(IndexingError, match="outside"):
        Postings.load(tmp_path)
    np.save(tmp_path / "places.npy", postings.places)
    np.save(tmp_path / "counts.npy", postings.counts[1:])
    with pytest.raises(IndexingError, match="fit together"):
        Postings.load(tmp_path)
    np.save(tmp_path / "counts.npy", postings.counts)
    terms = json.loads((tmp_path / "terms.json").read_text())
    terms["vocabulary"].append("more")
    (tmp_path / "terms.json").write_text(json.dumps(terms))
    with pytest.raises(IndexingError, match="fit together"):
        Postings.load(tmp_path)


def test_pickled_arrays_are_never_opened(postings, tmp_path):
    postings.save(tmp_path)
    np.save(tmp_path / "counts.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(IndexingError, match="damaged"):
        Postings.load(tmp_path)
