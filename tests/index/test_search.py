import threading

import numpy as np
import pytest

from revela_rag.corpus.types import Chunk, Part
from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index import Hit, Index

from .support import DIMENSION, FakeEncoder, chunk, chunks, numbers


def expected(encoder, query, k, keep=lambda chunk: True):
    """Cosine by hand."""
    kept = [chunk for chunk in chunks(40) if keep(chunk)]
    if not kept:
        return [], []
    vectors = np.array([encoder._encode([chunk.embedding_text])[0] for chunk in kept])
    scores = vectors @ encoder._encode([query])[0]
    order = np.argsort(-scores)[:k]
    return [kept[place].metadata["number"] for place in order], scores[order]


def test_dense_search_is_cosine_best_first(built, encoder):
    hits = built.search("any question", k=7, mode="dense")
    found, scores = expected(encoder, "any question", 7)
    assert numbers(hits) == found and [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-5)
    best = built.search(chunk(3).text, k=1, mode="dense")[0]
    assert best.chunk == chunk(3) and best.score == pytest.approx(1, abs=1e-5) and best.score <= 1


def test_both_stores_find_the_same(tmp_path, encoder):
    pytest.importorskip("chromadb")
    one = Index.build(chunks(300), encoder=encoder, path=tmp_path / "f")
    two = Index.build(chunks(300), encoder=encoder, path=tmp_path / "c", store="chroma")
    for filter in (None, {"language": "go"}, {"even": True, "language": ["go", "java"]}):
        for query in ("first", "second", "third"):
            left, right = (index.search(query, k=12, filter=filter, mode="dense") for index in (one, two))
            assert numbers(left) == numbers(right)
            np.testing.assert_allclose([h.score for h in left], [h.score for h in right], atol=1e-5)
    opposite = -encoder._encode([chunk(5).text])[0]
    for index in (one, two):
        last = index.search("", mode="dense", vector=opposite, k=300)[-1]
        assert last.chunk == chunk(5) and last.score == pytest.approx(-1, abs=1e-5)


def test_everything_about_a_chunk_comes_back(path, encoder, store):
    whole = Chunk(
        id="an id' \" ;--",
        text="line one\n\tline two \u0000 日本語 \U0001f600",
        document_id="src/a b.py",
        position=7,
        kind="code",
        title="module.Class",
        parts=(Part("docstring", "What it does"), Part("body", "return 1")),
        metadata={"path": "src/a b.py", "line": 3, "score": 0.5, "test": True, 'it\'s "quoted"': "x"},
    )
    Index.build([whole], encoder=encoder, path=path, store=store).close()
    with Index.open(path, encoder=encoder) as index:
        assert index.get([whole.id]) == [whole] == [hit.chunk for hit in index.search("q")]
        assert type(index.get([whole.id])[0].metadata["test"]) is bool


def test_more_than_there_is(built):
    assert len(built.search("q", k=10_000)) == 40
    assert built.search("q", k=5, filter={"language": "cobol"}) == []


def test_an_empty_index(path, encoder, store):
    with Index.build([], encoder=encoder, path=path, store=store) as index:
        assert len(index) == 0
        for mode in ("dense", "lexical", "hybrid"):
            assert index.search("q", mode=mode) == []
        assert index.search("", mode="dense", vector=np.ones(DIMENSION)) == []
        index.sync(chunks(3))
        assert len(index.search("q")) == 3
        index.sync([])
        assert len(index) == 0 and index.search("q") == []


def test_many_queries_at_once_equal_one_by_one(built):
    queries = ["a", "b", "getUser7Name"]
    for mode in ("dense", "lexical", "hybrid"):
        together = built.search_many(queries, k=4, mode=mode)
        assert together == [built.search(query, k=4, mode=mode) for query in queries]
    assert built.search_many([]) == []


def test_lexical_search_splits_identifiers_and_needs_no_model(path, encoder):
    Index.build(chunks(40), encoder=encoder, path=path).close()
    index = Index.open(path)  # the model's path does not exist
    for query in ("getUser17Name", "get_user_17_name", "user 17"):
        assert numbers(index.search(query, k=1, mode="lexical")) == [17]
    assert index.search("", mode="lexical") == [] == index.search("zebra", mode="lexical")
    assert 17 not in numbers(index.search("getUser17Name", k=40, mode="lexical", filter={"even": True}))


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_filters_come_before_top_k(built, mode):
    # each of these is rare among the best of all, so filtering afterwards would find fewer than three
    hits = built.search("text getUser1Name", k=3, mode=mode, filter={"number": [30, 33, 36]})
    assert sorted(numbers(hits)) == [30, 33, 36]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same chunks in both stores; only read."""
    pytest.importorskip("chromadb")
    root = tmp_path_factory.mktemp("both")
    return [
        Index.build(chunks(40), encoder=FakeEncoder(), path=root / store, store=store) for store in ("faiss", "chroma")
    ]


@pytest.mark.parametrize(
    ("filter", "keep"),
    [
        ({}, lambda c: True),
        ({"language": "go"}, lambda c: c.metadata["language"] == "go"),
        ({"language": ["go", "java"]}, lambda c: c.metadata["language"] != "python"),
        ({"language": ("go",), "even": False}, lambda c: c.metadata["language"] == "go" and not c.metadata["even"]),
        ({"number": 1}, lambda c: c.metadata["number"] == 1),
        ({"number": 1.0}, lambda c: c.metadata["number"] == 1),
        ({"number": True}, lambda c: False),
        ({"number": "1"}, lambda c: False),
        ({"even": 1}, lambda c: False),
        ({"even": True}, lambda c: c.metadata["even"]),
        ({"language": []}, lambda c: False),
        ({"missing": "x"}, lambda c: False),
        ({"document_id": "doc-2"}, lambda c: c.document_id == "doc-2"),
        ({"document_id": ("doc-1", "doc-2"), "kind": "code"}, lambda c: c.document_id == "doc-1"),
        ({"kind": "prose"}, lambda c: c.kind == "prose"),
        ({"language": "go' OR 1=1 --"}, lambda c: False),
        ({"x' OR '1'='1": "x"}, lambda c: False),
        ({'"; DROP TABLE chunks; --': "x"}, lambda c: False),
        ({"language": "\ud800"}, lambda c: False),
        ({"number": 10**30}, lambda c: False),
        ({"number": 10**400}, lambda c: False),
        ({"number": [-(10**400), 3]}, lambda c: c.metadata["number"] == 3),
        ({"kind": 10**400}, lambda c: False),
    ],
    ids=lambda value: "" if callable(value) else str(value)[:60],
)
def test_filters(both, encoder, filter, keep):
    found, scores = expected(encoder, "question", 40, keep)
    for index in both:
        hits = index.search("question", k=40, filter=filter, mode="dense")
        assert numbers(hits) == found
        np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-5)
        assert len(index.search("question", k=100)) == 40


@pytest.mark.parametrize(
    "filter", [{"a": None}, {"a": {"$gtt": 3}}, {"a": [1, [2]]}, {3: "x"}, {"a": float("nan")}, {"a": b"x"}], ids=str
)
def test_filters_that_cannot_be_used(plain, filter):
    with pytest.raises(IndexingError, match="filter"):
        plain.search("q", filter=filter)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_k_is_checked(plain, k):
    with pytest.raises(IndexingError, match="k="):
        plain.search("q", k=k)
    with pytest.raises(IndexingError, match="k="):
        plain.search("", mode="dense", vector=np.ones(DIMENSION), k=k)


def test_other_wrong_arguments(plain):
    with pytest.raises(IndexingError, match="mode='fuzzy'"):
        plain.search("q", mode="fuzzy")
    with pytest.raises(IndexingError, match="must be a string"):
        plain.search(None)
    with pytest.raises(IndexingError, match="one string"):
        plain.search_many("q")
    with pytest.raises(IndexingError, match="one string"):
        plain.get("id")
    with pytest.raises(IndexMismatchError, match="length 5"):
        plain.search("", mode="dense", vector=np.ones(5))
    with pytest.raises(IndexingError, match="not finite"):
        plain.search("", mode="dense", vector=np.full(DIMENSION, np.nan))


def test_a_query_vector_of_any_length(plain):
    vector = np.random.default_rng(0).normal(size=DIMENSION)
    one, two = (
        plain.search("", mode="dense", vector=vector),
        plain.search("", mode="dense", vector=(7 * vector).tolist()),
    )
    assert numbers(one) == numbers(two)
    np.testing.assert_allclose([hit.score for hit in one], [hit.score for hit in two], atol=1e-6)


def test_get_keeps_order_and_leaves_out_unknown(built):
    wanted = [chunk(5), chunk(1), chunk(30)]
    assert built.get([wanted[0].id, "unknown", wanted[1].id, wanted[2].id]) == wanted


def test_a_closed_index_says_so(plain):
    assert isinstance(plain.search("q")[0], Hit)
    plain.close()
    plain.close()
    for use in (lambda: plain.search("q"), lambda: plain.sync([]), lambda: len(plain), lambda: plain.get([])):
        with pytest.raises(IndexingError, match="is closed"):
            use()
    assert "closed" in repr(plain)


def test_threads_search_while_one_writes(built):
    stop, failures = threading.Event(), []

    def search() -> None:
        try:
            while not stop.is_set():
                found = numbers(built.search("q", k=100, mode="hybrid"))
                # one write puts in 40..59 and takes out 0..19, so a half-done one would show
                assert set(found) in (set(range(40)), set(range(20, 60)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    built.sync(chunks(60, 20))
    built.sync(chunks(40))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_another_models_query_is_refused(path, encoder):
    Index.build(chunks(5), encoder=encoder, path=path).close()
    with pytest.raises(IndexMismatchError, match=r"/models/ffff.*/models/0000"):
        Index.open(path, encoder=FakeEncoder("0" * 64))
