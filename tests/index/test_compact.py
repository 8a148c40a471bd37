"""Vectors in little memory: codes that find candidates, and fewer dimensions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index import Index
from revela_rag.index.checks.sizes import index_parts
from revela_rag.index.rotation import ROTATION_FILE, Rotation
from revela_rag.parts import MMR

from .support import DIMENSION, FakeEncoder, chunk, chunks, contents, numbers

STORE = "revela_rag.index.stores.faiss_store"
BYTES = {"rabitq": 8 + 8, "int4": 32, "int8": 64, "fp16": 128}  # of 64 dimensions


def texts_like(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Unit vectors with some long directions and some near neighbours, as those of texts."""
    random = np.random.default_rng(seed)
    subjects = np.random.default_rng(9).normal(size=(40, dimension)) / (1 + np.arange(dimension)) ** 0.7
    turn = np.linalg.qr(np.random.default_rng(8).normal(size=(dimension, dimension)))[0]
    rows = (
        subjects[random.integers(40, size=count)]
        + 0.7 * random.normal(size=(count, dimension)) / (1 + np.arange(dimension)) ** 0.7
    )
    rows = rows @ turn
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def nearest(query: np.ndarray, vectors: np.ndarray, k: int = 10) -> list[int]:
    return np.argsort(-(vectors @ query), kind="stable")[:k].tolist()


def found(index: Index, query: np.ndarray, k: int = 10, **options) -> list[int]:
    return numbers(by_vector(index, query, k=k, **options))


def by_vector(index: Index, vector: np.ndarray, **options) -> list:
    return index.search("words", vector=vector, mode="dense", **options)


@pytest.fixture
def small(monkeypatch) -> None:
    """Structures from a hundred vectors on."""
    monkeypatch.setattr(f"{STORE}.LEAST", 100)
    monkeypatch.setattr(f"{STORE}.SEGMENT", 1024)


# -- codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(BYTES))
@pytest.mark.usefixtures("small")
def test_codes_find_what_an_exact_search_finds(path, kind):
    vectors, queries = texts_like(3000, 64), texts_like(50, 64, seed=1)
    encoder = FakeEncoder(dimension=64)
    Index.build(chunks(3000), encoder=encoder, path=path, kind=kind, vectors=vectors).close()
    with Index.open(path, encoder=encoder) as index:
        structure = index._current().vectors._approximate
        assert structure is not None and faiss.downcast_index(structure._index.index).code_size == BYTES[kind]
        hits = [found(index, query) for query in queries]
        truth = [nearest(query, vectors) for query in queries]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(hits, truth, strict=True)]) >= 0.99
        best = by_vector(index, queries[0], k=10)
        exact = vectors[numbers(best)] @ queries[0]
        np.testing.assert_allclose([hit.score for hit in best], exact, atol=1e-6)  # not of the codes
        even = np.arange(0, 3000, 2)
        hits = [found(index, query, filter={"even": True}) for query in queries]
        truth = [even[nearest(query, vectors[even])].tolist() for query in queries]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(hits, truth, strict=True)]) >= 0.99
        some = [3, 500, 2998]
        assert sorted(found(index, queries[0], filter={"number": some})) == some


@pytest.mark.usefixtures("small")
def test_one_bit_is_compared_with_a_query_of_eight(path, encoder):
    Index.build(chunks(200), encoder=encoder, path=path, kind="rabitq").close()
    with Index.open(path, encoder=encoder) as index:
        assert (
            faiss.downcast_index(index._current().vectors._approximate._index.index).qb == 8
        )  # as written: floats take far longer


@pytest.mark.usefixtures("small")
def test_hybrid_search_ranks_as_with_all_vectors(tmp_path, encoder):
    queries = [f"text {number} calls getUser{number}Name" for number in (3, 70, 199)]
    ranked = {}
    for kind in ("flat", "rabitq"):
        with Index.build(chunks(200), encoder=encoder, path=tmp_path / kind, kind=kind) as index:
            hits = index.search_many(queries, k=5, mode="hybrid")
            ranked[kind] = [[(hit.chunk.id, pytest.approx(hit.cosine, abs=1e-6)) for hit in some] for some in hits]
    assert ranked["rabitq"] == ranked["flat"]


# -- dimensions ---------------------------------------------------------------------------------------------------


def test_the_directions_kept_are_those_that_hold_most():
    vectors = texts_like(500, 32)
    rotation = Rotation.fit([vectors[:200], vectors[200:]], 8)
    assert rotation.matrix.shape == (32, 8) and rotation.length == 32
    np.testing.assert_allclose(rotation.matrix.T @ rotation.matrix, np.eye(8), atol=1e-5)
    kept = np.square(vectors @ rotation.matrix).sum()
    singular = np.linalg.svd(vectors, compute_uv=False)
    assert kept == pytest.approx(np.square(singular[:8]).sum(), rel=1e-4)
    assert kept > 1.3 * np.square(vectors[:, :8]).sum(), "more than the first dimensions hold"
    shorter = rotation.apply(vectors)
    assert shorter.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(shorter, axis=1), 1, atol=1e-5)
    full = Rotation.fit([vectors], 31).apply(vectors)
    np.testing.assert_allclose(full @ full.T, vectors @ vectors.T, atol=0.05)


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_an_index_keeps_fewer_dimensions(path, store):
    encoder = FakeEncoder(dimension=64)
    vectors, queries = texts_like(400, 64), texts_like(20, 64, seed=1)
    with Index.build(chunks(400), encoder=encoder, path=path, vectors=vectors, dimensions=24, store=store) as index:
        assert index.dimension == 24 and index.manifest.model_dimension == 64
    with Index.open(path, encoder=encoder, verify=True) as index:
        hits = [found(index, query) for query in queries]
        truth = [nearest(query, vectors) for query in queries]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(hits, truth, strict=True)]) >= 0.8
        rotation = Rotation.fit([vectors], 24)
        shorter, turned = rotation.apply(vectors), rotation.apply(queries)
        assert found(index, queries[0]) == nearest(turned[0], shorter)
        best = by_vector(index, vectors[7], k=1)[0]
        assert numbers([best]) == [7] and best.score == pytest.approx(1, abs=1e-5)
        assert numbers(index.search(chunk(3).text, k=1, mode="lexical")) == [3]
        assert len(index.search(chunk(3).text, k=5, mode="hybrid")) == 5
        diverse = index.search("words", mode="dense", vector=queries[0], k=5, select=MMR(balance=1))
        assert numbers(diverse) == nearest(turned[0], shorter, 5) and diverse[0].score <= 1
        with pytest.raises(IndexMismatchError, match=r"length 24, the index .* has 64"):
            by_vector(index, np.ones(24))
        with pytest.raises(IndexMismatchError, match=r"length 24, the index .* has 64"):
            index.add([chunk(400)], vectors=np.ones((1, 24)))


@pytest.mark.parametrize("options", [{"dimensions": 12}, {"dimensions": 12, "kind": "rabitq"}])
@pytest.mark.usefixtures("small")
def test_writes_end_as_a_new_index_would(path, encoder, options):
    """With the rotation of the first vectors, which stays."""
    index = Index.build(chunks(300), encoder=encoder, path=path, **options)
    first = (path / index.manifest.generation / ROTATION_FILE).read_bytes()
    random = np.random.default_rng(0)
    there = set(range(300))
    for step in range(4):
        gone = set(random.choice(sorted(there), 20, replace=False).tolist())
        new = set(range(300 + 30 * step, 330 + 30 * step))
        index.delete([chunk(number).id for number in gone])
        index.add([chunk(number) for number in sorted(new)])
        there = (there - gone) | new
    report = index.sync([chunk(number) for number in sorted(there)])
    assert not report.changed and report.unchanged == len(there)
    index.sync([chunk(number) for number in sorted(there)[:-5]])
    there -= set(sorted(there)[-5:])
    assert (path / index.manifest.generation / ROTATION_FILE).read_bytes() == first
    rotation = Rotation.read(path / index.manifest.generation, (DIMENSION, 12))
    ids = sorted(there)
    shorter = rotation.apply(encoder._encode([chunk(number).text for number in ids]))
    queries = rotation.apply(encoder._encode([f"query {number}" for number in range(20)]))
    truth = [{ids[place] for place in nearest(query, shorter)} for query in queries]
    hits = index.search_many([f"query {number}" for number in range(20)], k=10, mode="dense")
    shares = [len(set(numbers(some)) & best) / 10 for some, best in zip(hits, truth, strict=True)]
    assert np.mean(shares) >= (0.99 if "kind" in options else 1)
    assert sorted(numbers(index.search("q", k=999, mode="dense"))) == ids
    index.close()


def test_dimensions_are_checked(path, encoder):
    for wrong, message in (
        (0, "dimensions=0 must be a whole number of at least 1"),
        (2.5, "dimensions=2.5 must be"),
        (DIMENSION, f"dimensions={DIMENSION} is not below {DIMENSION}"),
        (20, "dimensions=20 needs at least as many chunks .* there are 10"),
    ):
        with pytest.raises(IndexingError, match=message):
            Index.build(chunks(10), encoder=encoder, path=path, dimensions=wrong)
        assert not path.exists()
    with pytest.raises(IndexingError, match="there are 0"):
        Index.build([], encoder=encoder, path=path, dimensions=4)


def test_an_index_that_is_there_keeps_its_dimensions(path, encoder):
    built: dict = {"path": path, "encoder": encoder}
    documents = [{"id": str(number), "text": f"Text {number} says what there is to say."} for number in range(40)]
    with Index.from_source(documents, dimensions=8, **built) as index:
        assert index.dimension == 8
    with Index.from_source(documents, **built) as index:
        assert index.dimension == 8
    with Index.from_source(documents[:30], dimensions=8, **built) as index:
        assert len(index) == 30 and index.dimension == 8
    with pytest.raises(IndexingError, match=r"keeps 8 dimensions, not 9.*overwrite"):
        Index.from_source(documents, dimensions=9, **built)
    with Index.from_source(documents, overwrite=True, **built) as index:
        assert index.dimension == DIMENSION and index.manifest.model_dimension is None
    with pytest.raises(IndexingError, match=f"keeps {DIMENSION} dimensions, not {DIMENSION}"):
        Index.from_source(documents, dimensions=DIMENSION, **built)


def test_a_damaged_rotation_is_an_error(path, encoder):
    Index.build(chunks(50), encoder=encoder, path=path, dimensions=8).close()
    folder = path / "generation-000001"
    shape, good = (DIMENSION, 8), np.load(folder / ROTATION_FILE)
    for bad in (good[:, :7], good * 2, good.astype(np.float64), np.full_like(good, np.nan)):
        np.save(folder / ROTATION_FILE, bad)
        with pytest.raises(IndexingError, match="missing or damaged"):
            Rotation.read(folder, shape)
    np.save(folder / ROTATION_FILE, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(IndexingError, match="missing or damaged"):
        Rotation.read(folder, shape)
    with pytest.raises(IndexingError, match=r"rotation\.npy"):
        Index.open(path)
    (folder / ROTATION_FILE).unlink()
    with pytest.raises(IndexingError, match=r"rotation\.npy"):
        Index.open(path)


def test_manifests_without_and_with_wrong_dimensions(path, encoder):
    Index.build(chunks(50), encoder=encoder, path=path, dimensions=8).close()
    file = path / "manifest.json"
    said = json.loads(file.read_text())
    for wrong in (8, -1, 10**7, "32", True):
        file.write_text(json.dumps({**said, "model_dimension": wrong}))
        with pytest.raises(IndexingError, match="model_dimension"):
            Index.open(path)


def test_an_index_of_an_earlier_version_opens(path, encoder):
    Index.build(chunks(20), encoder=encoder, path=path).close()
    file = path / "manifest.json"
    said = json.loads(file.read_text())
    del said["model_dimension"]
    file.write_text(json.dumps(said))
    with Index.open(path, encoder=encoder) as index:
        assert index.dimension == index.manifest.query_dimension == DIMENSION
        assert numbers(index.search(chunk(3).text, k=1, mode="dense")) == [3]


def test_what_an_index_takes_is_said_part_by_part(tmp_path, encoder, small):
    parts = {}
    for kind, options in (("flat", {}), ("rabitq", {}), ("fewer", {"dimensions": 8, "kind": "int8"})):
        Index.build(chunks(300), encoder=encoder, path=tmp_path / kind, **{"kind": kind, **options}).close()
        parts[kind] = {part.name: part for part in index_parts(tmp_path / kind)}
        folder = tmp_path / kind / "generation-000001"
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        assert sum(part.disk for part in parts[kind].values()) == size
    assert [list(found) for found in parts.values()] == [
        ["texts", "words", "vectors"],
        ["texts", "words", "vectors", "search"],
        ["texts", "words", "vectors", "search", "rotation"],
    ]
    of_flat, of_rabitq = parts["flat"]["vectors"], parts["rabitq"]["vectors"]
    assert of_flat.memory > 300 * 4 * DIMENSION and of_rabitq.memory == 300 * 24 and of_rabitq.disk == of_flat.disk
    assert 300 * (DIMENSION // 8 + 8) < parts["rabitq"]["search"].memory < 300 * (DIMENSION // 8 + 8 + 16) + 1000
    assert parts["fewer"]["vectors"].disk < 0.5 * of_flat.disk and parts["fewer"]["texts"].memory == 0
    assert "MB on disk" in of_flat.summary()


# -- what may happen ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.usefixtures("small")
def test_read_only_media(path, encoder):
    Index.build(chunks(200), encoder=encoder, path=path, kind="rabitq", dimensions=16).close()
    entries = [path, *path.rglob("*")]
    for entry in entries:
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    try:
        with Index.open(path, encoder=encoder) as index:
            assert numbers(index.search(chunk(5).text, k=1, mode="dense")) == [5]
    finally:
        for entry in entries:
            entry.chmod(0o755 if entry.is_dir() else 0o644)


KILLED = """
import os, sys
from revela_rag.index import Index
from revela_rag.index.writing import writer
from revela_rag.index.stores import approximate, faiss_store
from index.support import FakeEncoder, chunks
faiss_store.LEAST = 100
place, path = sys.argv[1:]
def die(*arguments, **options):
    os._exit(9)
if place == "publish":
    writer.publish = die
else:
    approximate.Approximate.write = die
if place == "build":
    Index.build(chunks(300), encoder=FakeEncoder(), path=path, kind="rabitq", dimensions=16, overwrite=True)
else:
    Index.open(path, encoder=FakeEncoder()).add(chunks(300, 200))
"""


@pytest.mark.parametrize("place", ["structure", "publish", "build"])
@pytest.mark.usefixtures("small")
def test_a_killed_writer_leaves_the_old_generation(path, encoder, place):
    Index.build(chunks(200), encoder=encoder, path=path, kind="rabitq", dimensions=16).close()
    folder = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    dead = subprocess.run([sys.executable, "-c", KILLED, place, str(path)], env=environment, timeout=120)
    assert dead.returncode == 9 and "generation-000002" in contents(path)
    with Index.open(path, encoder=encoder, verify=True) as index:
        assert len(index) == 200 and numbers(index.search(chunk(5).text, k=1, mode="dense")) == [5]
        index.add(chunks(220, 200))
        assert contents(path) == {"manifest.json", index.manifest.generation}
        assert numbers(index.search(chunk(210).text, k=1, mode="dense")) == [210]
