"""What is Chroma's alone: it writes where it reads, and caches what it has open by path."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from revela_rag.errors import DiskError, IndexingError
from revela_rag.index import Index
from revela_rag.index.stores.chroma_store import ChromaStore

from .support import chunk, chunks, numbers

pytest.importorskip("chromadb")
posix = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


@contextmanager
def read_only(path):
    """Everything below without permission to write, and no rights of root that would override that."""
    everything = [path, *path.rglob("*")]
    for entry in everything:
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        for entry in everything:
            entry.chmod(0o755 if entry.is_dir() else 0o644)


@pytest.fixture
def place(monkeypatch):
    """A folder that everyone may enter, and one for temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "temporary"
        temporary.mkdir()
        Path(folder).chmod(0o755)
        temporary.chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        yield Path(folder)


@posix
def test_an_index_that_cannot_be_written_is_read(place, encoder):
    path, temporary = place / "index", place / "temporary"
    with Index.build(chunks(40), encoder=encoder, path=path, store="chroma") as index:
        expected = index.search("q", k=9)
        assert list(temporary.iterdir()) == []
    with read_only(path):
        with Index.open(path, encoder=encoder, verify=True) as index:
            assert index.search("q", k=9) == expected
            assert len(list(temporary.iterdir())) == 1
            with pytest.raises(DiskError, match="no permission to write"):
                index.add([chunk(50)])
        assert list(temporary.iterdir()) == []  # the private copy is gone
    with Index.open(path, encoder=encoder) as index:
        assert index.search("q", k=9) == expected and list(temporary.iterdir()) == []


@posix
def test_a_private_copy_without_space_says_what_to_do(place, encoder, monkeypatch):
    path = place / "index"
    Index.build(chunks(40), encoder=encoder, path=path, store="chroma").close()
    monkeypatch.setattr(tempfile, "tempdir", str(place / "nowhere"))
    with read_only(path), pytest.raises(DiskError, match=r"generation-000001/chroma.*writable, or set TMPDIR"):
        Index.open(path, encoder=encoder)


@pytest.mark.parametrize("close", [False, True])
def test_an_index_is_built_where_one_was_deleted(path, encoder, close):
    first = Index.build(chunks(40), encoder=encoder, path=path, store="chroma")
    if close:
        first.close()
    shutil.rmtree(path)
    with Index.build(chunks(20), encoder=encoder, path=path, store="chroma") as second:
        assert sorted(numbers(second.search("q", k=99))) == list(range(20))
        second.add(chunks(30))
        assert len(second) == len(second.search("q", k=99)) == 30


def test_an_index_of_an_earlier_version_is_opened_and_changed(path, encoder):
    Index.build(chunks(20), encoder=encoder, path=path, store="chroma").close()
    (data,) = path.glob("generation-000001/chroma-*")
    manifest = path / "manifest.json"
    said = json.loads(manifest.read_text().replace(data.name, "chroma"))
    del said["sha256"]
    manifest.write_text(json.dumps(said))
    data.rename(data.with_name("chroma"))
    with Index.open(path, encoder=encoder, verify=True) as index:
        assert len(index.search("q", k=99)) == 20
        assert index.sync(chunks(21)).added == 1
        assert len(index.search("q", k=99)) == 21


def test_what_chroma_raises_at_the_start_is_said_as_ours(path, encoder, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk is full")

    monkeypatch.setattr("chromadb.api.client.Client.create_collection", fail)
    with pytest.raises(DiskError, match="free some space"):
        Index.build(chunks(3), encoder=encoder, path=path, store="chroma")
    assert not path.exists()


def test_a_store_without_its_folder(tmp_path):
    with pytest.raises(IndexingError, match=r"chroma.*missing"):
        ChromaStore.open(tmp_path, dimension=3, count=1)
