"""Hybrid search: the best of each side, with both scores of all of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.evaluation import RetrievalData, evaluate, fused_run, score_run
from revela_rag.fusion import cosine_step, dense_share, fused_scores
from revela_rag.index import Index, facade, snapshot
from revela_rag.index.words import WordIndex
from revela_rag.index.writing import writer
from revela_rag.lexical import LexicalIndex
from revela_rag.retriever import Retriever

from .support import FakeEncoder, chunk, chunks, numbers, vectors_in_context

QUERY = "getUser17Name and user 3"
WORDS = " ".join(["getUser37Name"] * 5)  # of one chunk, which is far from the nearest


def words_of(texts, query):
    """Mean of each chunk's BM25 and its document's."""
    own = LexicalIndex.build(map(str, range(len(texts))), [one.embedding_text for one in texts]).scores(query)
    documents = {}
    for one in texts:
        documents.setdefault(one.document_id, []).append(one.embedding_text)
    around = LexicalIndex.build(documents, ["\n".join(parts) for parts in documents.values()]).scores(query)
    place = {name: i for i, name in enumerate(documents)}
    return (own + around[[place[one.document_id] for one in texts]]) / 2


def expected(encoder, texts, query, keep=lambda chunk: True, depth=100, vector=None):
    """Number and score of every candidate, by hand."""
    vector = encoder._encode([query])[0] if vector is None else vector
    vectors = encoder._encode([chunk.embedding_text for chunk in texts])
    cosines, around = vectors @ vector, vectors_in_context(vectors, [chunk.document_id for chunk in texts]) @ vector
    scores = words_of(texts, query)
    kept = [i for i, chunk in enumerate(texts) if keep(chunk)]
    near = sorted(kept, key=lambda i: -cosines[i])[:depth]
    words = sorted((i for i in kept if scores[i] > 0), key=lambda i: -scores[i])[:depth]
    candidates = list(dict.fromkeys([*near, *words]))
    step = cosine_step(len(vectors), vectors.__getitem__)
    share = dense_share(np.unique([chunk.document_id for chunk in texts], return_inverse=True)[1], vectors.__getitem__)
    fused = fused_scores(around[candidates], scores[candidates], cosine_step=step, share=share)
    order = np.argsort(-fused, kind="stable").tolist()
    return [texts[candidates[i]].metadata["number"] for i in order], fused[order].tolist()


@pytest.mark.parametrize("k", [1, 5, 40, 10_000])
def test_hybrid_scores_every_chunk(built, encoder, k):
    found, scores = expected(encoder, chunks(40), QUERY)
    hits = built.search(QUERY, k=k, mode="hybrid")
    assert numbers(hits) == found[:k] and [hit.rank for hit in hits] == list(range(1, min(k, 40) + 1))
    np.testing.assert_allclose([hit.score for hit in hits], scores[:k], atol=1e-6)


def test_neither_side_ranks_like_both(built):
    both, *sides = (numbers(built.search(WORDS, k=5, mode=mode)) for mode in ("hybrid", "dense", "lexical"))
    assert both not in sides
    hits = built.search(chunk(3).text, k=40, mode="hybrid")
    assert hits[0].chunk == chunk(3) and hits[0].score > 0.5 and sum(hit.score for hit in hits) == pytest.approx(1)


@pytest.mark.parametrize("query", ["", "zebra", "the"])
def test_without_a_word_in_common_cosines_in_context_order(built, encoder, query):
    vectors = encoder._encode([one.embedding_text for one in chunks(40)])
    cosines = vectors_in_context(vectors, [one.document_id for one in chunks(40)]) @ encoder._encode([query])[0]
    assert numbers(built.search(query, k=40, mode="hybrid")) == np.argsort(-cosines).tolist()


def test_the_default_is_hybrid_up_to_a_size(built, monkeypatch):
    assert built.resolve_mode("auto") == "hybrid" and built.resolve_mode("lexical") == "lexical"
    assert built.search(WORDS, k=5) == built.search(WORDS, k=5, mode="hybrid") == Retriever(built).search(WORDS)
    monkeypatch.setattr(facade, "LEXICAL_LIMIT", 39)
    assert built.resolve_mode("auto") == "dense" and built.resolve_mode("hybrid") == "hybrid"
    assert built.search(WORDS, k=5) == built.search(WORDS, k=5, mode="dense") == Retriever(built).search(WORDS)


def test_hits_carry_their_cosines(built, encoder):
    query = encoder.encode_queries([WORDS])[0]
    for mode in ("dense", "hybrid"):
        hits = built.search(WORDS, k=40, mode=mode)
        vectors = encoder._encode([hit.chunk.embedding_text for hit in hits])
        np.testing.assert_allclose([hit.cosine for hit in hits], vectors @ query, atol=1e-5)
    assert {hit.cosine for hit in built.search(WORDS, k=40, mode="lexical")} == {None}
    assert all(hit.cosine == hit.score for hit in built.search("", mode="dense", vector=query, k=5))


def test_a_vector_replaces_the_embedding_but_not_the_words(built, encoder, monkeypatch):
    unit, encoded = encoder.encode_queries(["text 5"])[0], []
    found, scores = expected(encoder, chunks(40), WORDS, vector=unit)
    monkeypatch.setattr(type(encoder), "encode_queries", lambda *args, **kwargs: encoded.append(args))
    near = built.search(WORDS, k=5, mode="dense", vector=3 * unit)
    assert numbers(near) == numbers(built.search("", mode="dense", vector=unit, k=5))
    hits = built.search(WORDS, k=40, vector=3 * unit)
    assert numbers(hits) == found and not encoded
    np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-6)
    with pytest.raises(IndexMismatchError, match="length 3"):
        built.search(WORDS, vector=np.ones(3))


def test_making_the_words_of_many_chunks_anew_is_said(built, monkeypatch, caplog):
    monkeypatch.setattr(writer, "LEXICAL_LIMIT", 39)
    built.add([chunk(41)])  # leaves no lexical index on disk
    monkeypatch.setattr(snapshot, "_QUICK", 38)
    built.search(WORDS)
    assert "lexical index of 41 chunks in memory" in caplog.text and "the next write" in caplog.text


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_what_only_words_find_gets_its_true_cosine(built, encoder, monkeypatch, depth):
    monkeypatch.setattr(snapshot, "DEPTH", depth)
    for query in (QUERY, WORDS, "text 5", "calls user name"):
        found, scores = expected(encoder, chunks(40), query, depth=depth)
        hits = built.search(query, k=depth, mode="hybrid")
        assert numbers(hits) == found[:depth]
        np.testing.assert_allclose([hit.score for hit in hits], scores[:depth], atol=1e-6)
    assert 37 not in numbers(built.search(WORDS, k=depth, mode="dense"))
    assert numbers(built.search(WORDS, k=1, mode="hybrid")) == [37]


def test_a_filter_takes_candidates_of_what_it_leaves(built, encoder):
    found, scores = expected(encoder, chunks(40), QUERY, lambda chunk: chunk.metadata["even"])
    hits = built.search(QUERY, k=40, mode="hybrid", filter={"even": True})
    assert numbers(hits) == found and len(found) == 20
    np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-6)
    assert built.search(QUERY, mode="hybrid", filter={"language": "cobol"}) == []


def test_filters_and_few_candidates(built, encoder, monkeypatch):
    monkeypatch.setattr(snapshot, "DEPTH", 2)
    found, _ = expected(encoder, chunks(40), QUERY, lambda chunk: chunk.metadata["language"] == "go", depth=2)
    assert numbers(built.search(QUERY, k=2, mode="hybrid", filter={"language": "go"})) == found[:2]


@pytest.mark.parametrize("query", [QUERY, WORDS, "which text calls user 28"])
def test_the_first_hits_and_their_scores_do_not_depend_on_k(path, encoder, query):
    with Index.build(chunks(250), encoder=encoder, path=path) as index:
        few, many = (index.search(query, k=k, mode="hybrid") for k in (5, 250))
        assert numbers(few) == numbers(many)[:5]
        assert [hit.score for hit in few] == pytest.approx([hit.score for hit in many[:5]], rel=1e-5)


def test_equal_chunks_keep_their_order(path, encoder, store):
    same = [chunk(number, text="same words", title=f"t{number}") for number in range(4)]
    vectors = np.tile(encoder._encode(["x"]), (4, 1))
    with Index.build(same, encoder=encoder, path=path, store=store, vectors=vectors) as index:
        dense, hybrid = (numbers(index.search("same", k=4, mode=mode)) for mode in ("dense", "hybrid"))
        assert dense == hybrid


def test_changed_indexes(built, encoder, monkeypatch):
    monkeypatch.setattr(snapshot, "DEPTH", 2)
    built.delete([chunk(number).id for number in range(0, 10)])
    built.add(chunks(60, 40))
    left = chunks(60, 10)
    for query in (WORDS, WORDS.replace("37", "55"), WORDS.replace("37", "3")):
        found, scores = expected(encoder, left, query, depth=2)
        hits = built.search(query, k=2, mode="hybrid")
        assert numbers(hits) == found[:2]
        np.testing.assert_allclose([hit.score for hit in hits], scores[:2], atol=1e-6)


@pytest.mark.parametrize("exact_below", [10_000, 10])
def test_both_stores_rank_alike(tmp_path, monkeypatch, exact_below):
    pytest.importorskip("chromadb")
    from revela_rag.index.stores import chroma_store

    monkeypatch.setattr(chroma_store, "EXACT_BELOW", exact_below)  # 10: cosines come from Chroma itself
    monkeypatch.setattr(snapshot, "DEPTH", 5)
    indexes = [
        Index.build(chunks(300), encoder=FakeEncoder(), path=tmp_path / store, store=store)
        for store in ("faiss", "chroma")
    ]
    for query in (QUERY, WORDS, WORDS.replace("37", "250"), "zebra"):
        for filter in (None, {"even": False}):
            one, two = (index.search(query, k=5, mode="hybrid", filter=filter) for index in indexes)
            assert numbers(one) == numbers(two)
            np.testing.assert_allclose([hit.score for hit in one], [hit.score for hit in two], atol=1e-5)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-sq8"])
def test_cosines_are_exact_in_every_kind(path, monkeypatch, kind):
    from revela_rag.index.stores import approximate, faiss_store

    for module in (approximate, faiss_store):
        monkeypatch.setattr(module, "LEAST", 200)
        query, encoder = WORDS.replace("37", "160"), FakeEncoder(dimension=256)
    with Index.build(chunks(400), encoder=encoder, path=path, kind=kind) as index:
        found, scores = expected(encoder, chunks(400), query)
        assert 160 not in numbers(index.search(query, k=100, mode="dense"))
        hits = index.search(query, k=1, mode="hybrid")
        assert numbers(hits) == found[:1] == [160]
        assert hits[0].score == pytest.approx(scores[0], abs=1e-3), "the others are the nearest that were found"


def test_evaluate_measures_what_an_index_does(path, monkeypatch):
    queries = {f"q{i}": f"which text calls user {i} or getUser{3 * i}Name" for i in range(30)}
    one_each = [replace(chunk, id=f"d{i}", document_id=f"d{i}") for i, chunk in enumerate(chunks(150))]
    data = RetrievalData(
        {chunk.id: ("", chunk.text) for chunk in one_each}, queries, {q: {f"d{q[1:]}": 1} for q in queries}, "x"
    )
    monkeypatch.setattr("revela_rag.model.encoder.Encoder", FakeEncoder)  # the model's name is its fingerprint here
    monkeypatch.setattr(FakeEncoder, "max_length", 256)
    measured = evaluate("hybrid:model", data)
    with Index.build(one_each, encoder=FakeEncoder("model"), path=path) as index:
        searched = evaluate(index, data)
        dense = evaluate(Retriever(index, mode="dense"), data)
    assert measured.per_query == searched.per_query
    assert 0 < dense.mean("nDCG@10") < measured.mean("nDCG@10") < 1


@pytest.mark.parametrize("documents", [4, 40, 400])
def test_a_fused_run_finds_what_an_index_does(path, documents):
    several = [replace(one, id=f"c{i}", document_id=f"d{i % documents}") for i, one in enumerate(chunks(400))]
    encoder, queries = FakeEncoder(), {f"q{i}": f"which text calls user {i} or getUser{3 * i}Name" for i in range(20)}
    qrels = {q: {f"d{7 * int(q[1:]) % documents}": 1} for q in queries}
    data = RetrievalData({f"d{i}": ("", "") for i in range(documents)}, queries, qrels, "x")
    texts, owners = [one.embedding_text for one in several], [one.document_id for one in several]
    vectors = encoder.encode_documents(texts), encoder.encode_queries(list(queries.values()))
    words = WordIndex.build(range(400), texts, owners)
    with Index.build(several, encoder=encoder, path=path, vectors=vectors[0]) as index:
        searched = {k: evaluate(index, data, k=k).per_query for k in ((3, 3), (10, 100))}
        near = index.search(queries["q7"], k=150)
    for k, expected in searched.items():
        run = fused_run(vectors[1], vectors[0], queries, owners, words, k=max(k))
        assert score_run(run, qrels, k=k).per_query == expected
    run = fused_run(vectors[1], vectors[0], queries, owners, words, chunk_ids=[one.id for one in several], k=75)
    assert list(run["q7"]) == [hit.chunk.id for hit in near][:75]
    np.testing.assert_allclose(list(run["q7"].values()), [hit.score for hit in near][:75], rtol=1e-4)


def test_an_index_trusts_an_adapted_model_as_far_as_its_record_says(tmp_path, encoder):
    texts = chunks(30)
    encoder.trust = 0.61
    index = Index.build(texts, encoder=encoder, path=tmp_path / "index")
    plain = Index.build(texts, encoder=FakeEncoder(), path=tmp_path / "plain")
    del encoder.trust  # as in an encoder that does not know the model's record
    index.add(chunks(31)[30:])
    for found, trust in ((index, 0.61), (Index.open(index.path, encoder=FakeEncoder()), 0.61), (plain, 0.5)):
        found.search("calls getUser3Name", mode="hybrid")
        assert found._current()._context.trust == trust


@pytest.mark.parametrize("trust", [0, 1, 1.5, -0.5, True, "0.5"])
def test_a_trust_that_is_no_share_is_refused(tmp_path, encoder, trust):
    index = Index.build(chunks(5), encoder=encoder, path=tmp_path / "index")
    file = index.path / "manifest.json"
    said = json.loads(file.read_text())
    said["model"]["trust"] = trust
    file.write_text(json.dumps(said))
    with pytest.raises(IndexingError, match="trust"):
        Index.open(index.path, encoder=encoder)
