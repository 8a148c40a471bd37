"""BM25 after add, upsert and delete: what an index built anew of the same chunks says, without reading them again."""

import random
from dataclasses import replace

import numpy as np
import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index, words
from revela_rag.index.words import WordIndex

from .support import FakeEncoder, chunk, chunks

QUERIES = ["getUser17Name and user 3", "which text calls 45", "brand new words", "text calls text"]


def told(index, mode):
    return [{hit.chunk.id: hit.score for hit in index.search(query, k=500, mode=mode)} for query in QUERIES]


def assert_as_built_anew(indexes, held, folder):
    with Index.build(held.values(), encoder=FakeEncoder(), path=folder, overwrite=True) as anew:
        for mode in ("lexical", "hybrid"):
            expected = told(anew, mode)
            for index in indexes:
                for one, wanted in zip(told(index, mode), expected, strict=True):
                    assert one.keys() == wanted.keys()
                    assert one == pytest.approx(wanted, abs=1e-6)


def segments(index):
    return sorted(path.name for path in (index.path / index.manifest.generation / "lexical").iterdir())


@pytest.fixture
def no_reading(monkeypatch):
    """No lexical index is made of all texts."""

    def refuse(*parts):
        raise AssertionError("the words of all chunks were read again")

    monkeypatch.setattr(WordIndex, "build", refuse)


def new_words(number):
    return chunk(number, text=f"brand new words of {number} that call getUser17Name")


WRITES = {
    "add": lambda index, held: (index.add([new_words(50)]), held.update(a=new_words(50))),
    "add twice": lambda index, held: [(index.add([one]), held.update({one.id: one})) for one in chunks(48, 45)],
    "delete": lambda index, held: (index.delete([chunk(17).id]), held.pop(chunk(17).id)),
    "delete a document": lambda index, held: (
        index.delete(documents=["doc-1"]),
        [held.pop(id_) for id_ in [id_ for id_, one in held.items() if one.document_id == "doc-1"]],
    ),
    "upsert": lambda index, held: (
        index.upsert([new_words(2), chunk(6)]),
        [held.pop(id_) for id_ in [id_ for id_, one in held.items() if one.document_id == "doc-2"]],
        held.update({one.id: one for one in (new_words(2), chunk(6))}),
    ),
    "another title": lambda index, held: (
        index.add([replace(chunk(3), title="Brand new words")]),
        held.update({chunk(3).id: replace(chunk(3), title="Brand new words")}),
    ),
    "another document": lambda index, held: (
        index.add([replace(chunk(3), document_id="elsewhere")]),
        held.update({chunk(3).id: replace(chunk(3), document_id="elsewhere")}),
    ),
    "sync": lambda index, held: (
        index.sync(chunks(60, 20)),
        held.clear(),
        held.update({one.id: one for one in chunks(60, 20)}),
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_followed_by_every_reader(built, tmp_path, write, request):
    held = {one.id: one for one in chunks(40)}
    with Index.open(built.path, encoder=FakeEncoder()) as beside:
        for index in (built, beside):
            told(index, "hybrid")
        patch = pytest.MonkeyPatch()
        with patch.context() as patched:
            patched.setattr(WordIndex, "build", lambda *parts: pytest.fail("all words were read again"))
            WRITES[write](built, held)
            with Index.open(built.path, encoder=FakeEncoder()) as later:
                assert_as_built_anew([built, beside, later], held, tmp_path / "anew")


def test_any_number_of_writes_in_any_order(plain, tmp_path, no_reading):
    random.seed(0)
    held = {one.id: one for one in chunks(40)}
    for step in range(60):
        kind = random.choice(["add", "add", "delete", "title", "document"])
        some = random.sample(sorted(held), 3)
        if kind == "add":
            new = chunks(100 + 4 * step, 97 + 4 * step)
            plain.add(new)
            held.update({one.id: one for one in new})
        elif kind == "delete":
            plain.delete(some)
            for id_ in some:
                del held[id_]
        else:
            change = {"title": f"title {step}"} if kind == "title" else {"document_id": f"doc-{step % 7}"}
            changed = [replace(held[id_], **change) for id_ in some]
            plain.add(changed)
            held.update({one.id: one for one in changed})
        assert len(segments(plain)) <= 10
        if step % 10 == 9:
            with Index.open(plain.path, encoder=FakeEncoder()) as later:
                assert_as_built_anew([plain, later], held, tmp_path / "anew")


def test_a_small_write_leaves_what_is_there_and_a_large_one_merges(plain):
    (first,) = segments(plain)
    plain.add([new_words(50)])
    assert segments(plain)[0] == first and len(segments(plain)) == 2
    plain.delete([chunk(1).id])
    assert len(segments(plain)) == 2
    plain.add(chunks(80, 60))
    (merged,) = segments(plain)
    assert merged > first
    plain.delete([one.id for one in chunks(30)])
    assert len(segments(plain)) == 1 and segments(plain) != [merged]


def test_many_small_writes_are_merged_beside_the_large_one(path, encoder, monkeypatch):
    monkeypatch.setattr(words, "_SMALL", 3)
    with Index.build(chunks(200), encoder=encoder, path=path) as index:
        (first,) = segments(index)
        counts = []
        for number in range(300, 312):
            index.add([chunk(number)])
            counts.append(len(segments(index)))
        assert segments(index)[0] == first and counts == [2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3, 4]


def test_words_that_nothing_holds_are_forgotten_when_segments_merge(plain):
    plain.add([chunk(50, text="zebra zebra")])
    plain.delete([chunk(50, text="zebra zebra").id])
    plain.add(chunks(80, 60))
    folder = plain.path / plain.manifest.generation / "lexical" / segments(plain)[0]
    assert "zebra" not in (folder / "terms.json").read_text() and "user" in (folder / "terms.json").read_text()


def test_all_chunks_may_go_and_others_come(plain, tmp_path, no_reading):
    told(plain, "hybrid")
    plain.sync([])
    assert told(plain, "hybrid") == [{}] * len(QUERIES) and len(segments(plain)) == 1
    plain.add(chunks(60, 50))
    assert_as_built_anew([plain], {one.id: one for one in chunks(60, 50)}, tmp_path / "anew")


def test_the_search_after_a_write_waits_for_nothing(plain, monkeypatch):
    told(plain, "hybrid")
    read = []
    load = words._Segment.load
    monkeypatch.setattr(words._Segment, "load", lambda folder: read.append(folder.name) or load(folder))
    plain.add([new_words(50)])
    assert read == segments(plain)[1:], "of the two segments only the new one"
    told(plain, "hybrid")
    assert len(read) == 1


@pytest.mark.parametrize("write", ["add", "delete", "another title"])
def test_the_first_write_to_an_index_without_words_of_this_version_makes_them(plain, tmp_path, write, monkeypatch):
    """As earlier versions left it: scores in one folder, none after add and delete."""
    folder = plain.path / plain.manifest.generation / "lexical"
    (old,) = folder.iterdir()
    for file in old.iterdir():
        file.rename(folder / file.name)
    old.rmdir()
    manifest = (plain.path / "manifest.json").read_text().replace(f"lexical/{old.name}/", "lexical/")
    (plain.path / "manifest.json").write_text(manifest)
    held = {one.id: one for one in chunks(40)}
    with Index.open(plain.path, encoder=FakeEncoder()) as index:
        assert_as_built_anew([index], held, tmp_path / "anew")
        WRITES[write](index, held)
        monkeypatch.setattr(WordIndex, "build", lambda *parts: pytest.fail("all words were read again"))
        with Index.open(plain.path, encoder=FakeEncoder()) as later:
            assert len(segments(later)) == 1
            monkeypatch.undo()
            assert_as_built_anew([index, later], held, tmp_path / "anew")


@pytest.mark.parametrize("rows", [np.arange(39), np.arange(40.0), np.arange(40).reshape(2, 20)])
def test_rows_that_do_not_fit_are_refused(plain, rows):
    folder = plain.path / plain.manifest.generation / "lexical"
    np.save(folder / segments(plain)[0] / "rows.npy", rows)
    with pytest.raises(IndexingError, match=r"rows\.npy"):
        WordIndex.load(folder, np.arange(1, 41), ["d"] * 40)


def test_words_that_lack_a_row_are_not_used(plain):
    folder = plain.path / plain.manifest.generation / "lexical"
    with pytest.raises(IndexingError, match="41 chunks"):
        WordIndex.load(folder, np.arange(1, 42), ["d"] * 41)
