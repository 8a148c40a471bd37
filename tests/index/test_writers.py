"""Several writers, and readers that follow them."""

import logging
import threading
import time
from functools import partial

import numpy as np
import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index, SyncReport
from revela_rag.index.writing.generations import writing

from .support import FakeEncoder, chunk, chunks, contents, numbers


class Meanwhile(FakeEncoder):
    """Does something once, in the middle of the embedding."""

    def __init__(self, act) -> None:
        super().__init__()
        self.act = act

    def encode_documents(self, texts, **options):
        act, self.act = self.act, lambda: None
        act()
        return super().encode_documents(texts, **options)


def held(index) -> list[int]:
    return sorted(numbers(index.search("q", k=999, mode="dense")))


def test_others_write_while_a_writer_embeds(built, encoder):
    other = Index.open(built.path, encoder=encoder, lock_timeout=0.5)

    def act():
        assert other.add([chunk(500)]).added == 1
        assert other.delete([chunk(3).id]) == 1

    with Index.open(built.path, encoder=Meanwhile(act)) as index:
        assert index.add(chunks(45)) == SyncReport(added=6, unchanged=39, embedded=6)  # 3 came back
        assert held(index) == [*range(45), 500]


def test_threads_of_one_index_do_not_wait_for_its_embedding(plain):
    deleted = []
    with Index.open(plain.path, encoder=Meanwhile(lambda: thread.start() or thread.join(20))) as index:
        thread = threading.Thread(target=lambda: deleted.append(index.delete([chunk(3).id])))
        index.add([chunk(50)])
        assert deleted == [1] and held(index) == sorted({*range(40), 50} - {3})


@pytest.mark.parametrize("in_memory", [1, 2**20])
def test_what_a_write_brings_wins_whatever_happened_while_it_embedded(path, store, monkeypatch, in_memory):
    """Any change to any chunk, then a sync that was compared with the index before."""
    monkeypatch.setattr("revela_rag.index.writing.staging._IN_MEMORY", in_memory)
    monkeypatch.setattr("revela_rag.index.writing.writer._BATCH", 7)
    random = np.random.default_rng(0)
    wanted = [state(number, 2) for number in range(30)]
    for _ in range(4):
        before, meanwhile = (
            [state(number, int(random.integers(1, 5))) for number in random.choice(40, 20, replace=False).tolist()]
            for _ in range(2)
        )
        with Index.build(before, encoder=FakeEncoder(), path=path, store=store, overwrite=True) as other:
            index = Index.open(path, encoder=Meanwhile(partial(other.sync, meanwhile)))
            index.sync([*wanted, chunk(99)])
            found = {each.id: each for each in index.get([each.id for each in wanted])}
            assert found == {each.id: each for each in wanted} and len(index) == 31
            vectors = FakeEncoder().encode_documents([each.embedding_text for each in wanted])
            for each, vector in zip(wanted, vectors, strict=True):
                (best,) = index.search("", mode="dense", vector=vector, k=1)
                assert best.chunk.id == each.id and best.score == pytest.approx(1, abs=1e-5)
            index.close()
    assert len(contents(path)) == 2


def state(number: int, version: int):
    """One of four states of a chunk: two texts, which differ by the title, with two metadata each."""
    return chunk(number, text=f"text {number}", title=f"title {version // 3}", version=version)


def test_a_writer_in_a_loop_leaves_others_their_turn(plain):
    started, stop = threading.Event(), threading.Event()

    def loop():
        while not stop.is_set():
            with writing(plain.path, timeout=30):
                started.set()
                time.sleep(0.2)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        assert started.wait(10)
        for _ in range(5):
            with writing(plain.path, timeout=1):
                pass
    finally:
        stop.set()
        thread.join()


def test_a_write_to_a_closed_index_is_refused(plain):
    index = Index.open(plain.path, encoder=FakeEncoder())
    index._encoder = Meanwhile(index.close)
    with pytest.raises(IndexingError, match="closed"):
        index.add([chunk(50)])
    assert len(plain) == 40


# -- documents ---------------------------------------------------------------------------------------------------


def test_an_upsert_replaces_documents(built):
    before = held(built)
    new = [chunk(0, text="text 0 says something else"), chunk(4), chunk(101)]  # of doc-0 and doc-1
    report = built.upsert(new)
    gone = [number for number in before if number % 4 in (0, 1) and number != 4]
    assert report == SyncReport(added=2, deleted=len(gone), unchanged=1, embedded=2)
    assert held(built) == sorted([*(set(before) - set(gone)), 0, 101])
    assert built.upsert(new) == SyncReport(unchanged=3)
    vectors = np.eye(2, built.dimension, dtype=np.float32)
    assert built.upsert([chunk(2), chunk(3)], vectors).updated == 2
    assert numbers(built.search("", mode="dense", vector=vectors[1], k=1)) == [3]


def test_deletes_by_document_and_by_filter(built):
    assert built.delete(documents=["doc-0", "doc-9"]) == 10
    assert built.delete(filter={"language": "go", "even": True}) == len(
        [number for number in range(40) if number % 4 and number % 3 == 2 and number % 2 == 0]
    )
    assert built.delete([chunk(1).id], documents=["doc-2"], filter={"number": [1, 3]}) == len({1, 3} | left(2))
    assert held(built) == [number for number in range(40) if number % 4 in (1, 3) and number not in (1, 3)]


def left(document: int) -> set[int]:
    return {n for n in range(40) if n % 4 == document and not (n % 3 == 2 and n % 2 == 0)}


def test_a_delete_that_finds_nothing_says_so(plain, caplog):
    with caplog.at_level(logging.WARNING):
        for what in ({"ids": ["nowhere"]}, {"documents": ["gone.pdf"]}, {"filter": {"language": "cobol"}}):
            caplog.clear()
            assert plain.delete(**what) == 0
            assert str(next(iter(what.values()))) in caplog.text and next(iter(what)) in caplog.text
        caplog.clear()
        assert plain.delete([chunk(1).id, "nowhere"]) == 1 and not caplog.text
        assert plain.delete([]) == 0 and not caplog.text


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"ids": ["doc-1"]}, r"documents=\['doc-1'\]"),
        ({"ids": [chunk(2).id, "doc-1"]}, r"documents=\['doc-1'\]"),
        ({"ids": "doc-1"}, "pass a list"),
        ({"documents": "doc-1"}, "pass a list"),
        ({"filter": {}}, "empty"),
        ({"filter": {"number": {"$gt": [3]}}}, "number"),
        ({"filter": "number"}, "a str"),
    ],
)
def test_a_delete_that_means_something_else_is_refused(plain, what, message):
    with pytest.raises(IndexingError, match=message):
        plain.delete(**what)
    assert len(plain) == 40


# -- following ---------------------------------------------------------------------------------------------------


def test_a_search_takes_up_what_others_wrote(built, encoder):
    with Index.open(built.path, encoder=encoder) as reader:
        for act, expected in (
            (lambda: built.add([chunk(50)]), [*range(40), 50]),
            (lambda: built.delete([chunk(50).id]), [*range(40)]),
            (lambda: built.sync(chunks(60, 50)), [*range(50, 60)]),
        ):
            act()
            assert sorted(numbers(reader.search("q", k=99))) == expected
            assert len(reader) == len(expected)
        built.add([chunk(70)])
        assert reader.get([chunk(70).id]) == [chunk(70)]
        built.add([chunk(71)])
        assert numbers(reader.search("", mode="dense", vector=encoder.encode_documents([chunk(71).text])[0], k=1)) == [
            71
        ]
        built.add([chunk(75)])
        assert "doc-3" in reader.document_ids()


def test_it_can_be_switched_off(plain, encoder):
    for reader in (
        Index.open(plain.path, encoder=encoder, auto_refresh=False),
        Index.build(chunks(3), encoder=encoder, path=plain.path.parent / "own", auto_refresh=False),
    ):
        count = len(reader)
        with Index.open(reader.path, encoder=encoder) as other:
            other.add([chunk(90)])
        assert len(reader.search("q", k=99)) == len(reader) == count
        reader.auto_refresh = True
        assert len(reader.search("q", k=99)) == len(reader) == count + 1


def test_searches_go_on_when_what_is_there_now_cannot_be_taken_up(plain, encoder, caplog):
    with Index.open(plain.path, encoder=encoder) as reader:
        Index.build(chunks(3), encoder=FakeEncoder("0" * 64), path=plain.path, overwrite=True).close()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert held(reader) == [*range(40)]
        assert caplog.text.count("Searches go on") == 1 and "/models/0000" in caplog.text
        Index.build(chunks(5), encoder=encoder, path=plain.path, overwrite=True).close()
        assert held(reader) == [*range(5)]


def test_a_search_costs_one_look_at_the_pointer(plain, monkeypatch):
    from revela_rag.index import serving

    looks = []
    pointer = serving.pointer
    monkeypatch.setattr(serving, "pointer", lambda root: looks.append(root) or pointer(root))
    plain.search("q")
    for mode in ("dense", "hybrid", "lexical"):
        looks.clear()
        plain.search("q", mode=mode)
        assert len(looks) == 1
