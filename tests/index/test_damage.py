"""Indexes that are missing, damaged or hostile."""

import hashlib
import json
from pathlib import Path

import pytest

from revela_rag.errors import IndexingError, ModelError
from revela_rag.index import Index
from revela_rag.index.stores.faiss_store import FaissStore
from revela_rag.index.texts import TextStore

from .support import DIMENSION, chunks

FILES = ["vectors-000001.faiss", "texts.sqlite", "lexical/*/counts.npy", "lexical/*/rows.npy", "lexical/*/terms.json"]


def edit(path: Path, **changes) -> None:
    file = path / "manifest.json"
    data = json.loads(file.read_text())
    for key, value in changes.items():
        place, keys = data, key.split("__")
        for step in keys[:-1]:
            place = place[step]
        place[keys[-1]] = value
    file.write_text(json.dumps(data))


def test_what_is_no_index_comes_with_a_remedy(tmp_path):
    with pytest.raises(IndexingError, match=r"is not an index.*revela index SOURCE"):
        Index.open(tmp_path)
    with pytest.raises(IndexingError, match="is not an index"):
        Index.open(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexingError, match="is not an index"):
        Index.open(tmp_path / "file")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["truncate", "flip", "empty", "remove", "directory"])
def test_damaged_files_are_noticed(plain, name, how):
    (file,) = (plain.path / plain.manifest.generation).glob(name)
    data = bytearray(file.read_bytes())
    if how == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif how == "flip":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif how == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        if how == "directory":
            file.mkdir()
    with pytest.raises(IndexingError, match=Path(name).name):
        Index.open(plain.path)


@pytest.mark.parametrize("name", ["vectors-000001.faiss", "texts.sqlite"])
def test_damage_that_hashes_do_not_show_is_still_an_error(plain, name):
    """Large files are not hashed on every open; the readers behind must not crash either."""
    file = plain.path / plain.manifest.generation / name
    whole = file.read_bytes()
    edit(plain.path, files={})
    damages = [whole[: len(whole) * part // 10] for part in range(10)]
    damages += [
        b"\xff" * 64 + whole[64:],
        b"\x00" * len(whole),
        b"not what it was",
        whole[:4] + b"\xff" * 40 + whole[44:],
    ]
    for damaged in damages:
        file.write_bytes(damaged)
        with pytest.raises(IndexingError):
            index = Index.open(plain.path)
            index.get([chunk.id for chunk in chunks(40)])  # a page that is read late
            index.search("getUser", mode="lexical", filter={"even": True})


def test_verify_hashes_large_files_too(plain, monkeypatch):
    monkeypatch.setattr("revela_rag.index.manifest._HASHED_ALWAYS", 100)
    file = plain.path / plain.manifest.generation / "vectors-000001.faiss"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # a vector, not the row that it is of: that is checked before FAISS reads the file
    file.write_bytes(data)
    Index.open(plain.path).close()
    with pytest.raises(IndexingError, match="sha256"):
        Index.open(plain.path, verify=True)


def test_a_damaged_chroma_store_is_an_error(path, encoder):
    pytest.importorskip("chromadb")
    Index.build(chunks(40), encoder=encoder, path=path, store="chroma").close()
    (file,) = path.glob("generation-000001/chroma-*/chroma.sqlite3")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(IndexingError, match="chroma"):
        Index.open(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '{"format": "x"}', "[" * 100_000, "\xff"])
def test_manifests_that_are_none(plain, content):
    (plain.path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(IndexingError, match=r"manifest\.json"):
        Index.open(plain.path)


@pytest.mark.parametrize(
    "change",
    [
        {"generation": "../elsewhere"},
        {"generation": "/etc"},
        {"generation": "generation-000001/../../x"},
        {"generation": 7},
        {"files": {"../../../etc/passwd": {"size": 1, "sha256": "0"}}},
        {"files": {"/etc/passwd": {"size": 1, "sha256": "0"}}},
        {"files": {"..\\x": {"size": 1, "sha256": "0"}}},
        {"files": {"": {"size": 1, "sha256": "0"}}},
        {"files": ["a"]},
        {"files": {"texts.sqlite": 3}},
        {"files": {"texts.sqlite": {"size": "9", "sha256": 1}}},
        {"store": "../evil"},
        {"store": None},
        {"dimension": "32"},
        {"dimension": 0},
        {"dimension": -1},
        {"dimension": True},
        {"dimension": 10**12},
        {"dimension": 33},
        {"count": -1},
        {"count": 39},
        {"version": 1},
        {"kind": "pq"},
        {"model": "m"},
        {"model__fingerprint": None},
        {"model__max_length": "x"},
    ],
    ids=str,
)
def test_hostile_manifests(plain, change):
    edit(plain.path, **change)
    with pytest.raises(IndexingError):
        Index.open(plain.path)


@pytest.mark.parametrize("name", ["../outside", "/outside", "..\\outside", "a/../../outside", "c:outside", ""])
def test_a_manifest_names_no_file_outside_the_index(plain, name):
    """Whatever lies there, of the right size and digest too."""
    target = plain.path.parent / "outside"
    target.write_bytes(b"x")
    entry = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    manifest = json.loads((plain.path / "manifest.json").read_text())
    edit(plain.path, files={**manifest["files"], name: entry})
    with pytest.raises(IndexingError, match="outside the index"):
        Index.open(plain.path)


def test_a_damaged_index_is_replaced_on_request(plain, encoder):
    (plain.path / "manifest.json").write_text("{")
    with pytest.raises(IndexingError, match=r"manifest\.json"):
        Index.build(chunks(3), encoder=encoder, path=plain.path)
    with Index.build(chunks(3), encoder=encoder, path=plain.path, overwrite=True) as index:
        assert len(index) == 3 and index.manifest.generation == "generation-000002"


def test_writing_to_a_damaged_index_is_refused(plain):
    file = plain.path / plain.manifest.generation / "texts.sqlite"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(IndexingError, match=r"texts\.sqlite"):
        plain.sync(chunks(50))
    assert (plain.path / "generation-000001").is_dir() and not (plain.path / "generation-000002").exists()


def test_a_model_that_is_gone_is_named_with_a_remedy(plain):
    with Index.open(plain.path) as index:
        assert len(index.search("", mode="dense", vector=[1.0] * DIMENSION)) == 10  # needs no model
        with pytest.raises(ModelError, match=r"/models/ffff.*encoder=Encoder"):
            index.search("q")


def test_a_model_that_only_was_in_memory(path, encoder):
    encoder.model_path = ""
    Index.build(chunks(3), encoder=encoder, path=path).close()
    with pytest.raises(ModelError, match="only in memory"):
        Index.open(path).search("q")


def test_an_unknown_store(path, encoder):
    with pytest.raises(IndexingError, match="store='pinecone'"):
        Index.build([], encoder=encoder, path=path, store="pinecone")
    assert not path.exists()


def test_the_stores_open_only_what_fits(tmp_path):
    with pytest.raises(IndexingError, match="holds 0 vectors, the manifest says 1"):
        FaissStore.open(tmp_path, dimension=3, count=1)
    with pytest.raises(IndexingError, match="missing or damaged"):
        TextStore.open(tmp_path / "texts.sqlite")
