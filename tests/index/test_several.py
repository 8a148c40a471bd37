"""Several indexes searched as one."""

from dataclasses import replace

import numpy as np
import pytest

from revela_rag import Retriever
from revela_rag.errors import IndexingError
from revela_rag.fusion import candidates, fused_scores
from revela_rag.index import Index
from revela_rag.lexical import LexicalIndex
from revela_rag.several import IndexGroup

from .support import FakeEncoder, chunk, chunks

QUERY = "getUser17Name and getUser23Name"


class Shifted(FakeEncoder):
    """Another model: all its texts are alike, with cosines from 0.8 to 1."""

    def _encode(self, texts) -> np.ndarray:
        vectors = super()._encode(texts) + 2.0 * np.eye(1, self.dimension)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build(path, texts, encoder=None, **settings):
    return Index.build(texts, encoder=encoder or FakeEncoder(), path=path, **settings)


@pytest.fixture
def halves(tmp_path):
    """Two indexes of one model, of texts that have no document in common, and one of both."""
    texts = [replace(each, document_id=f"doc-{number}") for number, each in enumerate(chunks(60))]
    return build(tmp_path / "a", texts[:20]), build(tmp_path / "b", texts[20:]), build(tmp_path / "both", texts)


def ids(hits):
    return [hit.chunk.id for hit in hits]


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_two_indexes_of_one_model_find_what_one_of_both_finds(halves, mode):
    *parts, whole = halves
    expected = whole.search(QUERY, k=12, mode=mode)
    found = Retriever.over(parts, k=12, mode=mode).search(QUERY)
    assert ids(found) == ids(expected)
    np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], rtol=0.02)  # mean lengths differ
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    places = {hit.chunk.id: hit.index for hit in found}
    assert set(places.values()) == {str(index.path) for index in parts}
    assert all(parts[0].get([id_]) for id_, place in places.items() if place == str(parts[0].path))


def test_hybrid_search_is_one_fusion_of_all_candidates(halves):
    *parts, whole = halves
    group = IndexGroup(parts)
    found = group.search(QUERY, k=60, mode="hybrid")
    texts = {one.id: one for one in (hit.chunk for hit in whole.search(QUERY, k=60))}
    order = sorted(texts)
    encoder = whole.encoder
    query, vectors = (
        encoder.encode_queries([QUERY])[0],
        encoder.encode_documents([texts[i].embedding_text for i in order]),
    )
    words = LexicalIndex.build(order, [texts[i].embedding_text for i in order]).scores(QUERY)
    steps = [part._current()._load_context().step for part in parts]
    owner = np.array([0 if parts[0].get([i]) else 1 for i in order])
    logits = vectors @ query / np.take(steps, owner)
    expected = fused_scores(logits, words, cosine_step=1.0, share=0.5, core=candidates(logits, words))
    got = {hit.chunk.id: hit.score for hit in found}
    np.testing.assert_allclose([got[i] for i in order], expected, rtol=0.05)
    assert ids(found)[0] == order[int(expected.argmax())]
    assert found[0].cosine == pytest.approx(float(vectors[expected.argmax()] @ query), abs=1e-5)


def test_a_model_whose_cosines_are_all_high_does_not_win_by_that(tmp_path):
    texts = [replace(each, document_id=f"doc-{number}") for number, each in enumerate(chunks(60))]
    low = build(tmp_path / "low", texts[:30])
    high = build(tmp_path / "high", texts[30:], Shifted("e" * 64))
    wanted = texts[7].embedding_text  # FakeEncoder gives a query the vector of the same text
    for mode in ("dense", "hybrid"):
        (best, *others) = Retriever.over([low, high], k=20, mode=mode).search(wanted)
        assert best.chunk.id == texts[7].id and best.index == str(low.path)
        assert best.cosine == pytest.approx(1.0, abs=1e-5)
        assert {hit.index for hit in others} == {str(low.path), str(high.path)}
    raw = max(hit.cosine for hit in high.search(wanted, mode="dense", k=30))
    assert raw > sorted(hit.cosine for hit in low.search(wanted, mode="dense", k=30))[-2], "the cosines do mislead"


def test_a_word_is_worth_the_same_in_every_index(tmp_path):
    common = [chunk(number, text=f"common words {number}") for number in range(30)]
    rare = [chunk(100 + number, text=f"other things {number}") for number in range(30)]
    rare[0] = chunk(100, text="common things here")
    parts = [build(tmp_path / "a", common), build(tmp_path / "b", rare)]
    alone = [index.search("common", mode="lexical", k=1)[0].score for index in parts]
    assert alone[1] > 3 * alone[0], "where it is rare it is worth more"
    hits = IndexGroup(parts).search("common", mode="lexical", k=60)
    assert len(hits) == 31
    by_index = {hit.index: hit.score for hit in reversed(hits)}
    assert by_index[str(parts[1].path)] == pytest.approx(by_index[str(parts[0].path)], rel=0.05)


def test_the_same_chunk_is_shown_once_and_filters_hold(tmp_path):
    texts = chunks(24)
    group = IndexGroup([build(tmp_path / "a", texts), build(tmp_path / "b", texts[:12])])
    hits = group.search("user 3", k=40)
    assert len(hits) == 24 == len(set(ids(hits)))
    python = group.search("user 3", k=40, filter={"language": "python"})
    assert python and {hit.chunk.metadata["language"] for hit in python} == {"python"}
    assert group.search_many(["user 3", "getUser5Name"], k=3) == [
        group.search(q, k=3) for q in ("user 3", "getUser5Name")
    ]
    assert len(group) == 36 and group.search_many([]) == []


def test_what_is_written_is_found(tmp_path):
    index, other = build(tmp_path / "a", chunks(10)), build(tmp_path / "b", [])
    with IndexGroup([index, other]) as group:
        assert group.search("zebra", mode="lexical") == []
        other.add([chunk(99, text="a zebra")])
        (hit,) = group.search("zebra", mode="lexical")
        assert hit.index == str(other.path)
    with pytest.raises(IndexingError, match="closed"):
        index.search("zebra")


def test_reranking_and_selecting(tmp_path):
    parts = [build(tmp_path / "a", chunks(20)), build(tmp_path / "b", [chunk(n) for n in range(50, 70)])]
    group = IndexGroup(parts)
    ranked = group.search("user", k=5, rerank=lambda query, texts: [float("60" in text) for text in texts])
    assert "60" in ranked[0].chunk.text and ranked[0].index == str(parts[1].path)
    assert len(group.search("user", k=5, select="mmr")) == 5
    mixed = IndexGroup([parts[0], build(tmp_path / "c", chunks(5), Shifted("e" * 64))])
    with pytest.raises(IndexingError, match="different models"):
        mixed.search("user", select="mmr")
    covering = mixed.search("getUser3Name text", k=3, select="coverage")
    assert len(covering) == 3 and "getUser3Name" in covering[0].chunk.text


def test_wrong_arguments(tmp_path):
    index = build(tmp_path / "a", chunks(5))
    with pytest.raises(IndexingError, match="at least one"):
        Retriever.over([])
    with pytest.raises(IndexingError, match="given twice"):
        Retriever.over([index, tmp_path / "a"], k=3)
    with pytest.raises(IndexingError, match="is one path"):
        Retriever.over(str(tmp_path / "a"))
    group = IndexGroup([index])
    for wrong, message in (({"k": 0}, "k=0"), ({"mode": "x"}, "mode='x'"), ({"feedback": 3}, "one index")):
        with pytest.raises(IndexingError, match=message):
            group.search("q", **wrong)
    with pytest.raises(IndexingError, match="must be a string"):
        group.search(3)
