"""Chunks in the context of their documents."""

import numpy as np
import pytest

from revela_rag import context
from revela_rag.context import DOCUMENT_SHARE, DocumentContext, surroundings
from revela_rag.index.words import WordIndex

from .support import chunk, chunks, numbers, unit, vectors_in_context


def draw(count, dimension=16, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, dimension))).astype(np.float32)


def in_context(vectors, documents, share=DOCUMENT_SHARE):
    """What the context makes of each vector, number by number."""
    rows = np.arange(len(vectors))
    built = DocumentContext.build(rows, documents, vectors.__getitem__, share=share)
    return np.stack([built.cosines(axis, rows, vectors @ axis) for axis in np.eye(vectors.shape[1])], axis=1)


DOCUMENTS = ["a", "b", "a", "alone", "c", "a", "c", "b"]


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_chunk_leans_to_the_mean_of_its_document(monkeypatch, share, batch):
    monkeypatch.setattr(context, "_BATCH", batch)
    vectors = draw(len(DOCUMENTS))
    mixed = in_context(vectors, DOCUMENTS, share=share)
    np.testing.assert_allclose(mixed, vectors_in_context(vectors, DOCUMENTS, share), atol=1e-6)
    np.testing.assert_array_equal(mixed[3], vectors[3])
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-6)


def test_cosines_of_some_rows_need_their_own_cosines_alone():
    vectors, query, rows = draw(8), draw(1, seed=1)[0], np.arange(8) * 3 + 5
    lookup = dict(zip(rows.tolist(), vectors, strict=True))
    built = DocumentContext.build(rows, iter(DOCUMENTS), lambda some: np.stack([lookup[row] for row in some.tolist()]))
    some = rows[[6, 3, 0, 7]]
    own = np.stack([lookup[row] for row in some.tolist()]) @ query
    expected = vectors_in_context(vectors, DOCUMENTS, built.share)[[6, 3, 0, 7]] @ query
    np.testing.assert_allclose(built.cosines(query, some, own), expected, atol=1e-6)
    assert built.cosines(query, rows[:0], own[:0]).shape == (0,)


def test_nothing_and_vectors_that_cancel():
    assert in_context(np.empty((0, 4), dtype=np.float32), []).shape == (0, 4)
    opposed = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    np.testing.assert_allclose(in_context(opposed, ["a", "a"]), opposed)
    np.testing.assert_array_equal(in_context(opposed, ["a", "b"]), opposed)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="2 vectors need as many document ids, got 1"):
        in_context(draw(2), ["a"])
    with pytest.raises(ValueError, match=r"share=1\.5"):
        in_context(draw(2), ["a", "a"], share=1.5)


def test_hybrid_search_finds_a_chunk_by_what_its_document_is_about(plain, encoder):
    """No word in common, so that cosines alone order: in context in hybrid search, as they are in dense search."""
    texts = chunks(40)
    vectors = encoder._encode([one.embedding_text for one in texts])
    query = unit(vectors[::4].mean(axis=0))  # what document 0 is about
    near = vectors_in_context(vectors, [one.document_id for one in texts]) @ query
    hits = plain.search("zebra", vector=query, k=40)
    assert numbers(hits) == np.argsort(-near).tolist()
    assert [hit.cosine for hit in hits] == pytest.approx([float(vectors[n] @ query) for n in numbers(hits)], abs=1e-5)
    assert numbers(plain.search("zebra", vector=query, k=40, mode="dense")) == np.argsort(-(vectors @ query)).tolist()


def test_context_follows_changes(plain, encoder):
    query, left = encoder.encode_queries(["anything"])[0], [one for one in chunks(40) if one.metadata["number"] > 8]
    with_all = {hit.chunk.id: hit.score for hit in plain.search("zebra", vector=query, k=31)}
    plain.delete([chunk(number).id for number in range(9)])
    found = {hit.chunk.id: hit.score for hit in plain.search("zebra", vector=query, k=31)}
    vectors = encoder._encode([one.embedding_text for one in left])
    cosines = vectors_in_context(vectors, [one.document_id for one in left]) @ query
    order = [left[place].id for place in np.argsort(-cosines)]
    assert list(found) == order and found != with_all


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([], []),
        (["a"], ["alone"]),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "b", "b"], ["a", "a", "b", "b"]),
        (["a", "a", "a", "b"], ["alone", "alone", "alone", "b"]),
        (["b", "b", "a", "a", "c"], ["b", "b", "a", "a", "c"]),
    ],
)
def test_a_document_that_holds_most_chunks_surrounds_none(documents, expected):
    found = surroundings(documents)
    assert [name if name in documents else "alone" for name in found] == expected
    assert len({name for name in found if name not in documents}) == expected.count("alone")


def test_the_chunks_of_a_single_document_are_searched_as_they_are():
    rows = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_array_equal(in_context(rows, ["wiki"] * 9), rows)
    texts = [f"word{i} of all" for i in range(9)]
    one, each = (WordIndex.build(range(9), texts, ids) for ids in (["wiki"] * 9, [f"d{i}" for i in range(9)]))
    np.testing.assert_array_equal(one.scores_in_context("word3 all"), each.scores_in_context("word3 all"))
