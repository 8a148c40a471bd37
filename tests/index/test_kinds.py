"""Kinds of FAISS index: what they find, what a write costs, and that nothing is missed or found twice."""

import logging
from pathlib import Path

import numpy as np
import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.stores.approximate import clusters
from revela_rag.index.stores.segments import Segment, bitmap

from .support import DIMENSION, FakeEncoder, chunk, chunks, numbers

KINDS = ["flat", "hnsw", "ivf-sq8", "rabitq", "int8"]
CODES = ["rabitq", "int4", "int8", "fp16"]
STORE = "revela_rag.index.stores.faiss_store"


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch) -> str:
    """Small segments, and structures from a hundred vectors on."""
    monkeypatch.setattr(f"{STORE}.SEGMENT", 64)
    monkeypatch.setattr(f"{STORE}.LEAST", 100)
    monkeypatch.setattr("revela_rag.index.writing.writer._BATCH", 32)
    return request.param


def files(index: Index) -> dict[str, int]:
    """Inode of every FAISS file of the generation."""
    folder = index.path / index.manifest.generation
    return {file.name: file.stat().st_ino for file in folder.glob("*.faiss")}


def exact(encoder: FakeEncoder, query: str, wanted, k: int) -> list[int]:
    vectors = encoder._encode([chunk(number).text for number in wanted])
    order = np.argsort(-(vectors @ encoder._encode([query])[0]), kind="stable")[:k]
    return [list(wanted)[place] for place in order]


def recall(index: Index, encoder: FakeEncoder, wanted, **options) -> float:
    queries = [f"query {number}" for number in range(20)]
    found = [set(numbers(hits)) for hits in index.search_many(queries, k=10, mode="dense", **options)]
    pairs = zip(queries, found, strict=True)
    return float(np.mean([len(some & set(exact(encoder, query, wanted, 10))) / 10 for query, some in pairs]))


def test_what_is_found_is_what_is_there(path, encoder, kind):
    with Index.build(chunks(400), encoder=encoder, path=path, kind=kind) as index:
        assert index.kind == index.manifest.kind == kind and len(index) == 400
        assert ("approximate.faiss" in files(index)) == (kind != "flat")
        assert recall(index, encoder, range(400)) >= (1 if kind == "flat" else 0.9)
        for number in (0, 63, 64, 399):
            best = index.search(chunk(number).text, k=1, mode="dense")[0]
            assert best.chunk == chunk(number) and best.score == pytest.approx(1, abs=1e-5)
        assert sorted(numbers(index.search("q", k=999, mode="dense"))) == list(range(400))  # as many as are asked for
        some = index.search("q", k=999, mode="dense", filter={"number": [5, 70, 399, 1000]})
        assert sorted(numbers(some)) == [5, 70, 399]
        half = index.search("q", k=10, mode="dense", filter={"even": True})
        assert len(half) == 10 and all(number % 2 == 0 for number in numbers(half))
    with Index.open(path, encoder=encoder, verify=True) as again:
        assert again.kind == kind and recall(again, encoder, range(400)) >= 0.9


def test_writes_follow_what_changed(path, encoder, kind):
    index = Index.build(chunks(640), encoder=encoder, path=path, kind=kind)
    before = files(index)
    gone, new = range(100, 110), range(640, 655)
    index.sync([*chunks(100), *chunks(655, 110)])
    after = files(index)
    assert all(after[name] == inode for name, inode in before.items()), "what did not change is linked, not written"
    assert len(after) == len(before) + 1 and not (index.path / "generation-000001").exists()
    wanted = [number for number in range(655) if number not in gone]
    assert sorted(numbers(index.search("q", k=999, mode="dense"))) == wanted
    assert recall(index, encoder, wanted) >= (1 if kind == "flat" else 0.9)
    for number in new:  # searched exactly, whatever the structure covers
        assert numbers(index.search(chunk(number).text, k=1, mode="dense")) == [number]
    for number in gone:
        assert number not in numbers(index.search(chunk(number).text, k=50, mode="dense"))
        assert number not in numbers(
            index.search(chunk(number).text, k=50, mode="dense", filter={"even": number % 2 == 0})
        )


def test_a_replaced_vector_is_found_once_under_its_new_place(path, encoder, kind):
    vectors = encoder._encode([c.text for c in chunks(300)])
    index = Index.build(chunks(300), encoder=encoder, path=path, kind=kind, vectors=vectors)
    index.add([chunk(7)], vectors=-vectors[7:8])
    assert numbers(index.search("", mode="dense", vector=-vectors[7], k=1)) == [7]
    assert 7 not in numbers(index.search("", mode="dense", vector=vectors[7], k=200))
    assert sorted(numbers(index.search("q", k=999, mode="dense"))) == list(range(300))
    index.add([chunk(7)], vectors=vectors[7:8])
    assert numbers(index.search("", mode="dense", vector=vectors[7], k=1)) == [7]
    assert sorted(numbers(index.search("q", k=999, mode="dense"))) == list(range(300))


def test_random_writes_end_as_a_new_index_would(path, encoder, kind):
    random = np.random.default_rng(1)
    there = set(range(200))
    index = Index.build(chunks(200), encoder=encoder, path=path, kind=kind)
    for step in range(12):
        gone = set(random.choice(sorted(there), 12, replace=False).tolist())
        new = set(range(200 + 12 * step, 212 + 12 * step))
        index.delete([chunk(number).id for number in gone])
        index.add([chunk(number) for number in sorted(new)])
        there = (there - gone) | new
    assert sorted(numbers(index.search("q", k=999, mode="dense"))) == sorted(there)
    assert recall(index, encoder, sorted(there)) >= (1 if kind == "flat" else 0.9)
    stored = sum(len(segment.rows) for segment, *_ in index._current().vectors._parts)
    assert stored <= 1.3 * len(there), "dead vectors are cleared away"
    assert len(files(index)) <= 16, "and small segments are merged"


def test_a_structure_is_made_anew_when_a_share_is_stale(path, encoder, kind):
    if kind == "flat":
        pytest.skip("nothing to make anew")
    few = 10 if kind in CODES else 50  # less than a twentieth, or a fifth
    index = Index.build(chunks(400), encoder=encoder, path=path, kind=kind)
    first = files(index)["approximate.faiss"]
    index.add(chunks(400 + few, 400))
    assert files(index)["approximate.faiss"] == first
    index.add(chunks(400 + 3 * few, 400 + few))
    assert files(index)["approximate.faiss"] != first
    second = files(index)["approximate.faiss"]
    index.delete([c.id for c in chunks(few)])
    assert files(index)["approximate.faiss"] == second
    index.delete([c.id for c in chunks(3 * few, few)])
    assert files(index)["approximate.faiss"] != second


def test_few_vectors_are_searched_exactly_and_that_is_said(path, encoder, kind, caplog):
    with caplog.at_level(logging.INFO, logger=STORE):
        index = Index.build(chunks(99), encoder=encoder, path=path, kind=kind)
        assert ("searched exactly" in caplog.text) == (kind != "flat") and "approximate.faiss" not in files(index)
        assert recall(index, encoder, range(99)) == 1
        index.add(chunks(100, 99))
    assert ("approximate.faiss" in files(index)) == (kind != "flat")
    index.delete([c.id for c in chunks(100)])
    assert len(index) == 0 and index.search("q") == []
    index.add(chunks(5))
    assert sorted(numbers(index.search("q"))) == [0, 1, 2, 3, 4]


def test_kinds_are_checked(path, encoder):
    for options in ({"kind": "pq"}, {"store": "chroma", "kind": "hnsw"}):
        with pytest.raises(IndexingError, match=r"kind=.*flat, hnsw, ivf-sq8, rabitq"):
            Index.build(chunks(3), encoder=encoder, path=path, **options)
    assert not path.exists()


@pytest.mark.parametrize("name", ["approximate.faiss", "approximate.rows.npy", "vectors-000002.faiss"])
def test_missing_files_are_an_error(path, encoder, monkeypatch, name):
    monkeypatch.setattr(f"{STORE}.SEGMENT", 64)
    monkeypatch.setattr(f"{STORE}.LEAST", 100)
    monkeypatch.setattr("revela_rag.index.writing.writer._BATCH", 32)
    Index.build(chunks(200), encoder=encoder, path=path, kind="hnsw").close()
    (path / "generation-000001" / name).unlink()
    with pytest.raises(IndexingError, match=name.replace(".", r"\.")):
        Index.open(path)


def test_a_segment_knows_its_rows():
    vectors = np.random.default_rng(0).normal(size=(5, DIMENSION)).astype(np.float32)
    segment = Segment.of(np.array([9, 3, 7, 5, 1]), vectors)
    segment.dead = np.array([7])
    assert segment.alive.tolist() == [9, 3, 5, 1] and len(segment) == 4
    assert segment.locate(np.array([1, 2, 7, 9, 100, -1])).tolist() == [4, -1, -1, 0, -1, -1]
    np.testing.assert_array_equal(segment.living()[1], vectors[[0, 1, 3, 4]])
    rows, _ = segment.search(vectors, 1, bitmap(np.array([5, 9]), 9))
    assert set(rows.ravel().tolist()) <= {5, 9}


def test_clusters_never_outnumber_their_training():
    assert clusters(1_000_000) == 4000 and clusters(10_000) == 256 and clusters(1) == 1


def test_files_without_links_are_copied(path, encoder, monkeypatch):
    def refuse(*names: Path) -> None:
        raise OSError("no links here")

    index = Index.build(chunks(40), encoder=encoder, path=path)
    monkeypatch.setattr("revela_rag.index.stores.segments.os.link", refuse)
    index.add([chunk(40)])
    assert sorted(numbers(index.search("q", k=99, mode="dense"))) == list(range(41))
