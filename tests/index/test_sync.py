from dataclasses import replace

import numpy as np
import pytest

from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index import Index, SyncReport

from .support import DIMENSION, FakeEncoder, chunk, chunks, contents, numbers


def test_sync_embeds_only_what_is_new(built, encoder):
    report = built.sync(chunks(50, 10))
    assert report == SyncReport(added=10, updated=0, deleted=10, unchanged=30, embedded=10)
    assert encoder.embedded == [chunk.text for chunk in chunks(50, 40)]
    assert len(built) == len(built.get([c.id for c in chunks(50, 10)])) == 40
    assert sorted(numbers(built.search("q", k=99))) == list(range(10, 50))
    assert built.get([chunk(3).id]) == []


@pytest.mark.parametrize("exact_below", [0, 10_000])
def test_a_vector_that_the_graph_has_lost_is_found(path, encoder, monkeypatch, exact_below):
    pytest.importorskip("chromadb")
    monkeypatch.setattr("revela_rag.index.stores.chroma_store.EXACT_BELOW", max(exact_below, 1))
    with Index.build(chunks(40), encoder=encoder, path=path, store="chroma") as index:
        collection = index._current().vectors._collection
        original = collection.query

        def query(**options):
            found = original(**options)
            for ids, distances in zip(found["ids"], found["distances"], strict=True):
                if "8" in ids:  # row 8 has no links any more
                    del distances[ids.index("8")], ids[ids.index("8")]
            return found

        monkeypatch.setattr(collection, "query", query)
        assert sorted(numbers(index.search("q", k=99))) == list(range(40))
        some = index.search(chunk(7).text, k=3, filter={"number": [6, 7, 9]})
        assert sorted(numbers(some)) == [6, 7, 9] and some[0].chunk == chunk(7)


def test_sync_of_the_same_writes_nothing(built, encoder):
    before = built.manifest
    for same in (chunks(40), iter(chunks(40)[::-1]), chunks(40) + chunks(40)):
        assert built.sync(same) == SyncReport(unchanged=40)
    assert built.manifest == before and encoder.embedded == []


def test_metadata_alone_is_updated_without_the_model(built, encoder):
    changed = [chunk(0, reviewed="yes"), replace(chunk(1), position=9), *chunks(40, 2)]
    assert built.sync(changed) == SyncReport(updated=2, unchanged=38)
    assert encoder.embedded == []
    assert built.get([chunk(0).id])[0].metadata["reviewed"] == "yes"
    assert built.get([chunk(1).id])[0].position == 9
    assert numbers(built.search("q", filter={"reviewed": "yes"})) == [0]
    built.sync([chunk(0), *changed[1:]])  # and the old value is gone
    assert built.search("q", filter={"reviewed": "yes"}) == []


def test_a_new_title_is_embedded_again(built, encoder):
    retitled = chunk(0, title="A title")
    assert retitled.id == chunk(0).id
    assert built.sync([retitled, *chunks(40, 1)]) == SyncReport(updated=1, unchanged=39, embedded=1)
    assert encoder.embedded == ["A title\n" + chunk(0).text]
    best = built.search(retitled.embedding_text, k=1, mode="dense")[0]
    assert best.chunk == retitled and best.score == pytest.approx(1, abs=1e-5)
    assert numbers(built.search("title", k=1, mode="lexical")) == [0]
    assert len(built.search("q", k=99)) == 40


def test_of_several_with_one_id_the_first_is_kept(path, encoder, store):
    twice = [chunk(1, copy=1), chunk(2), chunk(1, copy=2)]
    with Index.build(twice, encoder=encoder, path=path, store=store) as index:
        assert len(index) == 2 and index.get([chunk(1).id])[0].metadata["copy"] == 1
        assert index.sync(twice) == SyncReport(unchanged=2)


def test_add_and_delete(built, encoder):
    assert built.add(chunks(42, 38)) == SyncReport(added=2, unchanged=2, embedded=2)
    assert len(built) == 42 and numbers(built.search(chunk(41).text, k=1)) == [41]
    assert numbers(built.search("getUser41Name", k=1, mode="lexical")) == [41]
    assert built.delete([chunk(41).id, "unknown", chunk(41).id]) == 1
    assert len(built) == 41 and 41 not in numbers(built.search(chunk(41).text, k=99))
    assert built.search("getUser41Name", k=1, mode="lexical", filter={"number": 41}) == []
    assert built.delete([]) == 0 and built.delete(["unknown"]) == 0
    # a row is never used again: what comes after a delete is found under its own name
    built.add([chunk(77)])
    assert numbers(built.search(chunk(77).text, k=1)) == [77]


def test_deleting_everything_and_starting_again(built):
    assert built.delete([chunk.id for chunk in chunks(40)]) == 40
    assert len(built) == 0 and built.search("q") == []
    assert built.sync(chunks(5)).added == 5
    assert sorted(numbers(built.search("q"))) == [0, 1, 2, 3, 4]


def test_lexical_follows_every_kind_of_write(plain):
    plain.sync([*chunks(40), chunk(99)])
    assert numbers(plain.search("getUser99Name", k=1, mode="lexical")) == [99]
    plain.delete([chunk(99).id])
    assert 99 not in numbers(plain.search("getUser99Name", k=99, mode="lexical"))
    with Index.open(plain.path) as reopened:
        assert 99 not in numbers(reopened.search("getUser99Name", k=99, mode="lexical"))


def test_a_second_reader_takes_up_changes_when_asked(built, encoder):
    with Index.open(built.path, encoder=encoder, auto_refresh=False) as reader:
        before = reader.search("q", k=5)
        built.sync(chunks(80, 40))
        assert reader.search("q", k=5) == before and len(reader) == 40
        assert numbers(reader.search("getUser3Name", k=1, mode="lexical")) == [3]  # loaded after it was replaced
        assert reader.refresh() and not reader.refresh()
        assert min(numbers(reader.search("q", k=99))) == 40


def test_a_stale_index_writes_on_top_of_what_others_wrote(plain, encoder):
    with Index.open(plain.path, encoder=encoder) as other:
        plain.add([chunk(50)])
        other.add([chunk(51)])
        assert len(other) == 42
        plain.delete([chunk(51).id])
        assert len(plain) == 41 and plain.get([chunk(50).id]) == [chunk(50)]


def test_given_vectors_are_used_and_made_unit(path, store):
    encoder = FakeEncoder()
    vectors = np.random.default_rng(0).normal(size=(10, DIMENSION)) * 5
    with Index.build(iter(chunks(10)), encoder=encoder, path=path, store=store, vectors=vectors) as index:
        assert encoder.embedded == []
        hit = index.search("", mode="dense", vector=vectors[4], k=1)[0]
        assert hit.chunk == chunk(4) and hit.score == pytest.approx(1, abs=1e-5)
        index.add([chunk(4), chunk(20)], vectors=-vectors[4:6])
        assert encoder.embedded == [] and len(index) == 11
        assert index.search("", mode="dense", vector=-vectors[4], k=1)[0].chunk == chunk(4)


@pytest.mark.parametrize("count", [9, 11, 0])
def test_the_numbers_of_chunks_and_vectors_must_agree(path, encoder, count):
    with pytest.raises(IndexingError, match="give one each"):
        Index.build(chunks(10), encoder=encoder, path=path, vectors=np.ones((count, DIMENSION)))
    assert not path.exists()


def test_vectors_of_another_kind(plain):
    with pytest.raises(IndexMismatchError, match=f"length 7.*{DIMENSION}"):
        plain.add([chunk(90)], vectors=np.ones((1, 7)))
    with pytest.raises(IndexingError, match="shape"):
        plain.add([chunk(90)], vectors=np.ones(DIMENSION))
    with pytest.raises(IndexingError, match="not finite"):
        plain.add([chunk(90)], vectors=np.full((1, DIMENSION), np.inf))
    assert len(plain) == 40 and contents(plain.path) == {"manifest.json", plain.manifest.generation}


def test_a_model_that_moved_is_recorded_where_it_is_now(plain, path):
    moved = FakeEncoder()
    moved.model_path = "/elsewhere/model"
    with Index.open(path, encoder=moved) as index:
        assert index.sync(chunks(40)) == SyncReport(unchanged=40)
        assert index.manifest.model.name == "/elsewhere/model"
        generation = index.manifest.generation
        index.sync(chunks(40))
        assert index.manifest.generation == generation
    plain.refresh()
    assert plain.manifest.model.name == "/elsewhere/model"


def test_what_is_no_chunk_is_refused(plain):
    with pytest.raises(IndexingError, match="Chunk objects, got str"):
        plain.sync(["a text"])
    with pytest.raises(IndexingError, match=r"metadata of chunk.*doc-0"):
        plain.add([chunk(0, bad=object())])
    assert plain.sync(chunks(40)) == SyncReport(unchanged=40)


def test_lists_are_found_by_each_value_and_follow_every_write(built):
    assert built.sync([chunk(0, tags=["a", "b", 1, True]), *chunks(40, 1)]) == SyncReport(updated=1, unchanged=39)
    for value, count in (("a", 1), ("b", 1), (1, 1), (True, 1), (1.0, 1), ("c", 0), ("1", 0), (False, 0)):
        assert len(built.search("q", filter={"tags": value})) == count, value
    assert numbers(built.search("q", filter={"tags": ["c", "b"], "even": True})) == [0]
    assert built.get([chunk(0).id])[0].metadata["tags"] == ["a", "b", 1, True]
    assert built.sync([chunk(0, tags=["a", "b", 1, True]), *chunks(40, 1)]) == SyncReport(unchanged=40)
    built.sync([chunk(0, tags=["b", "a"]), chunk(1, tags=["z"] * 101), *chunks(40, 2)])
    assert built.search("q", filter={"tags": 1}) == built.search("q", filter={"tags": "z"}) == []
    assert len(built.search("q", filter={"tags": ["a", "b"]})) == 1
    built.delete([chunk(0).id])
    assert built.search("q", filter={"tags": ["a", "b"]}) == []


def test_documents_that_are_to_be_kept_stay(built, encoder):
    mine = [made for made in chunks(40) if made.document_id != "doc-1" and made.id != chunk(2).id]
    report = built.sync(mine, keep={"doc-1", "doc-9"}.__contains__)
    assert report == SyncReport(deleted=1, unchanged=29, kept=10)
    assert report.summary() == "0 added, 0 updated, 1 deleted, 10 kept, 29 unchanged (0 embedded)"
    assert len(built) == 39 and sorted(built.document_ids()) == ["doc-0", "doc-1", "doc-2", "doc-3"]
    assert built.sync(mine) == SyncReport(deleted=10, unchanged=29)
    assert sorted(built.document_ids()) == ["doc-0", "doc-2", "doc-3"]


def test_odd_metadata_is_kept_and_stays_unchanged(path, encoder):
    odd = chunk(
        1,
        nothing=None,
        list=[1, 2],
        nested={"a": 1},
        nan=float("nan"),
        huge=10**30,
        beyond=10**400,
        bad="\ud800",
        **{"": "e"},
    )
    with Index.build([odd], encoder=encoder, path=path) as index:
        assert index.sync([odd]) == SyncReport(unchanged=1)
        assert index.get([odd.id])[0].metadata["list"] == [1, 2]
        assert numbers(index.search("q", filter={"": "e"})) == [1]


def test_lone_surrogates_do_not_stop_a_build(path, encoder):
    odd = chunk(1, text="broken \ud800 text")
    encoder.encode_documents = lambda texts, **_: np.ones((len(texts), DIMENSION), dtype=np.float32)
    with Index.build([odd], encoder=encoder, path=path) as index:
        assert index.search("", mode="dense", vector=np.ones(DIMENSION))[0].chunk.text == "broken ? text"
        assert index.sync([odd]) == SyncReport(unchanged=1)


def test_memory_holds_one_batch_of_chunks(path, encoder, monkeypatch):
    monkeypatch.setattr("revela_rag.index.writing.writer._BATCH", 8)
    taken = [0]

    def source():
        for item in chunks(100):
            taken[0] += 1
            yield item

    sizes, original = [], encoder.encode_documents

    def encode(texts, **options):
        sizes.append((len(texts), taken[0]))
        return original(texts, **options)

    encoder.encode_documents = encode
    Index.build(source(), encoder=encoder, path=path).close()
    assert sizes[:3] == [(8, 8), (8, 16), (8, 24)] and sum(size for size, _ in sizes) == 100


def test_progress_is_drawn_on_request(path, encoder, capsys):
    Index.build(chunks(10), encoder=encoder, path=path, show_progress=True).close()
    assert "10/10" in capsys.readouterr().err
    Index.build(chunks(10), encoder=encoder, path=path, overwrite=True).close()
    assert capsys.readouterr().err == ""
