"""An index stays the one that was opened, wherever the process goes and whatever comes to lie in its place."""

import json

import pytest

from revela_rag.errors import IndexMismatchError
from revela_rag.index import Index
from revela_rag.retriever import Retriever

from .support import FakeEncoder, chunk, chunks


@pytest.fixture
def tenants(tmp_path, encoder, store, monkeypatch):
    """Two folders with an index of one name; the process stands in the first."""
    for name, start in (("acme", 0), ("globex", 100)):
        Index.build(chunks(start + 4, start), encoder=encoder, path=tmp_path / name / "idx", store=store).close()
    monkeypatch.chdir(tmp_path / "acme")
    return tmp_path


def test_a_relative_path_stays_what_it_was_in_another_directory(tenants, encoder, monkeypatch):
    with Index.open("idx", encoder=encoder) as index, Index.open("../globex/idx", encoder=encoder) as other:
        retriever = Retriever("idx", mode="lexical")
        built = Index.build(chunks(2), encoder=encoder, path="new")
        other.add([chunk(200)])
        monkeypatch.chdir(tenants / "globex")
        assert index.refresh() is False and retriever.index.refresh() is False
        index.add([chunk(4)])
        built.add([chunk(2)])
        assert sorted(hit.chunk.metadata["number"] for hit in index.search("q", k=99)) == [0, 1, 2, 3, 4]
        assert index.path == tenants / "acme" / "idx"
        assert other.refresh() is False and len(other) == 5
        assert not (tenants / "globex" / "new").exists()


@pytest.mark.parametrize("act", ["refresh", "add", "sync", "delete"])
def test_an_index_put_in_the_place_of_another_is_refused(tenants, encoder, act):
    with Index.open("idx", encoder=encoder) as index:
        (tenants / "acme" / "idx").rename(tenants / "acme" / "old")
        (tenants / "globex" / "idx").rename(tenants / "acme" / "idx")
        calls = {"add": [chunk(7)], "sync": chunks(9), "delete": [chunk(100).id]}
        with pytest.raises(IndexMismatchError, match="another index"):
            getattr(index, act)(*([calls[act]] if act in calls else []))
        assert sorted(hit.chunk.metadata["number"] for hit in index.search("q", k=99, mode="dense")) == [0, 1, 2, 3]
    with Index.open("idx", encoder=encoder) as index:
        assert sorted(hit.chunk.metadata["number"] for hit in index.search("q", k=99)) == [100, 101, 102, 103]


def test_the_identity_is_kept_by_every_write_and_told_from_all_others(plain, encoder, tmp_path):
    identity = plain.manifest.identity
    assert len(identity) == 32
    plain.add([chunk(50)])
    plain.delete([chunk(1).id])
    plain.sync(chunks(3))
    assert plain.manifest.identity == identity
    with Index.build(chunks(2), encoder=encoder, path=plain.path, overwrite=True) as replaced:
        assert replaced.manifest.identity == identity
    assert plain.refresh() and len(plain) == 2
    with Index.build(chunks(2), encoder=encoder, path=tmp_path / "other") as other:
        assert other.manifest.identity != identity


def test_an_index_of_an_earlier_version_gets_one_when_it_is_written(plain):
    file = plain.path / "manifest.json"
    data = json.loads(file.read_text())
    del data["identity"]
    file.write_text(json.dumps(data))
    with Index.open(plain.path, encoder=FakeEncoder()) as old, Index.open(plain.path, encoder=FakeEncoder()) as reader:
        assert old.manifest.identity == ""
        old.add([chunk(50)])
        assert len(old.manifest.identity) == 32
        assert reader.refresh() and reader.manifest.identity == old.manifest.identity
        reader.add([chunk(51)])
