"""The LangChain vector store: writing, searching, filters, the indexing API, and every search type."""

from __future__ import annotations

import asyncio
import gc
import threading
from datetime import date

import numpy as np
import pytest
from integration_data import TEXTS
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.example_selectors import SemanticSimilarityExampleSelector
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.stores import InMemoryByteStore
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from langchain_revela import RevelaEmbeddings, RevelaRetriever, RevelaTranslator, RevelaVectorStore
from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index.filters import parse_filter

QUERY = "how many days of leave"


@pytest.fixture
def documents():
    return [
        Document(id=name, page_content=text, metadata={"source": name, "words": len(text.split()), "file": {"n": n}})
        for n, (name, text) in enumerate(TEXTS.items())
    ]


@pytest.fixture(params=["faiss", "chroma"])
def store(request, encoder, documents, tmp_path):
    made = RevelaVectorStore(tmp_path / "index", embedding=encoder, store=request.param)
    made.add_documents(documents)
    yield made
    made.index.close()


@pytest.fixture
def plain_store(encoder, documents, tmp_path):
    made = RevelaVectorStore(tmp_path / "index", embedding=encoder)
    made.add_documents(documents)
    yield made
    made.index.close()


def names(documents):
    return [document.id for document in documents]


def test_documents_come_back_equal_and_scores_are_cosines(store, encoder, documents):
    vector = encoder.encode_queries([QUERY])[0]
    expected = encoder.encode_documents(list(TEXTS.values())) @ vector
    found = store.similarity_search_with_score(QUERY, k=6)
    assert [document for document, _ in found] == [documents[place] for place in np.argsort(-expected)]
    np.testing.assert_allclose([score for _, score in found], np.sort(expected)[::-1], atol=1e-5)
    relevant = store.similarity_search_with_relevance_scores(QUERY, k=6)
    np.testing.assert_allclose([score for _, score in relevant], (1 + np.sort(expected)[::-1]) / 2, atol=1e-5)
    assert store.similarity_search(QUERY, k=6) == [document for document, _ in found]
    assert store.similarity_search_by_vector((3 * vector).tolist(), k=6) == [document for document, _ in found]
    assert len(store.similarity_search(QUERY)) == 4 and len(store) == 6


def test_hybrid_is_that_of_the_index(store):
    found = store.similarity_search_with_score("password", k=3, mode="hybrid")
    hits = store.index.search("password", k=3, mode="hybrid")
    assert names(document for document, _ in found) == [hit.chunk.id for hit in hits] and found[0][0].id == "login.md"
    assert [score for _, score in found] == [hit.cosine for hit in hits]
    assert store.search("password", "hybrid", k=3) == [document for document, _ in found]


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_diverse_searches_choose_as_langchain_does(store, encoder, balance):
    vector, vectors = encoder.encode_queries([QUERY])[0], encoder.encode_documents(list(TEXTS.values()))
    near = np.argsort(-(vectors @ vector))[:5]
    chosen = maximal_marginal_relevance(vector, list(vectors[near]), lambda_mult=balance, k=3)
    expected = [list(TEXTS)[near[place]] for place in chosen]
    assert names(store.max_marginal_relevance_search(QUERY, k=3, fetch_k=5, lambda_mult=balance)) == expected
    by_vector = store.max_marginal_relevance_search_by_vector(vector.tolist(), k=3, fetch_k=5, lambda_mult=balance)
    assert names(by_vector) == expected
    few = store.max_marginal_relevance_search(QUERY, k=9, filter={"file.n": {"$lt": 2}})
    assert sorted(names(few)) == ["cache.py", "retry.py"]
    assert store.max_marginal_relevance_search(QUERY, filter={"file.n": 99}) == []


def test_adding_replaces_by_id_and_makes_ids(store):
    assert store.add_documents([Document(id="tax.md", page_content="Taxes are low.", metadata={"a": None})]) == [
        "tax.md"
    ]
    assert len(store) == 6
    assert store.get_by_ids(["tax.md", "nowhere", "cache.py"])[0] == Document(
        id="tax.md", page_content="Taxes are low.", metadata={"a": None}
    )
    ids = store.add_texts(["one", "one", "two"], [{}, {"b": 1}, {}], ids=[None, None, "x"])
    assert len(set(ids)) == 3 and ids[2] == "x" and len(store) == 9
    assert store.add_texts(["first", "last"], ids=["x", "x"]) == ["x", "x"]
    assert store.get_by_ids(["x"])[0].page_content == "last"
    assert store.upsert([Document(id="y", page_content="up")]) == {"succeeded": ["y"], "failed": []}
    assert store.add_texts([]) == []


def test_a_document_that_a_retriever_indexed_is_replaced(encoder, tmp_path):
    retriever = RevelaRetriever.from_documents(
        [Document(id="own", page_content="# Old\n\nAn old text.")], model=encoder, path=tmp_path / "index"
    )
    store = RevelaVectorStore(retriever.index)
    assert names(store.similarity_search("text")) == names(store.get_by_ids(["own"])) == ["own"]
    store.add_documents([Document(id="own", page_content="A new text.")])
    assert store.similarity_search("text") == [Document(id="own", page_content="A new text.")]


def test_deletes(store, caplog):
    assert store.delete(["tax.md", "nowhere"]) and store.delete(["nowhere"]) and store.delete([])
    assert store.delete(filter={"words": {"$lt": 9}}) is True
    left = names(store.similarity_search(QUERY, k=9))
    assert "tax.md" not in left and all(len(TEXTS[name].split()) >= 9 for name in left)
    for wrong in ({}, {"filter": {}}, {"filter": {"a": {"$bad": 1}}}, {"ids": ["a"], "filters": {}}):
        with pytest.raises(IndexingError):
            store.delete(**wrong)
    assert names(store.similarity_search(QUERY, k=9)) == left


def test_filters_come_before_the_best_k(store):
    for name in TEXTS:
        for filter in ({"source": {"$eq": name}}, lambda metadata, name=name: metadata["source"] == name):
            assert names(store.similarity_search(QUERY, k=1, filter=filter)) == [name]
    assert len(store.similarity_search_by_vector([1.0] * 32, k=9, filter={"file.n": [1, 2]})) == 2


def test_metadata_that_json_cannot_hold(plain_store, caplog):
    given = {"day": date(2024, 1, 2), "raw": b"x", "nan": float("nan"), "list": list(range(300)), "none": None}
    (id_,) = plain_store.add_texts(["x"], [given])
    assert plain_store.get_by_ids([id_])[0].metadata == {"day": "2024-01-02", "list": list(range(300)), "none": None}
    assert "'nan' of 1" in caplog.text and "'raw' of 1" in caplog.text
    assert names(plain_store.similarity_search("x", filter={"day": {"$lt": date(2024, 1, 3)}})) == [id_]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: store.similarity_search("q", filters={"a": 1}), "filters"),
        (lambda store: store.similarity_search("q", k=0), "k=0"),
        (lambda store: store.similarity_search("q", filter={"a": {"$in": "b"}}), "list of values"),
        (lambda store: store.similarity_search("q", mode="fuzzy"), "fuzzy"),
        (lambda store: store.max_marginal_relevance_search("q", fetch_k=0), "fetch_k=0"),
        (lambda store: store.max_marginal_relevance_search("q", lambda_mult=2), "balance=2"),
        (lambda store: store.add_texts("text"), "one string"),
        (lambda store: store.add_texts(["a"], ids=["b", "c"]), "1 texts and 2 ids"),
        (lambda store: store.add_texts(["a"], [{}, {}]), "1 texts and 2 metadatas"),
        (lambda store: store.add_texts(["a"], namespace="b"), "namespace"),
        (lambda store: store.as_retriever(search_kwargs={"fetch_k": 3}), "fetch_k"),
        (lambda store: store.as_retriever(search_kwargs={"k": -1}), "k=-1"),
        (lambda store: store.as_retriever(search_kwargs={"filter": {"a": {}}}), "no operator"),
        (lambda store: store.as_retriever(search_type="fuzzy"), "fuzzy"),
        (lambda store: store.as_retriever(search_type="similarity_score_threshold"), "score_threshold"),
        (lambda store: RevelaVectorStore(store.index.path.parent / "other"), "give embedding"),
        (lambda store: RevelaVectorStore(store.index, lock_timeout=3.0), "lock_timeout"),
        (
            lambda store: RevelaVectorStore.from_texts(["a"], store.index.encoder, path=store.index.path),
            "already an index",
        ),
    ],
)
def test_what_is_wrong_is_said(plain_store, call, message):
    with pytest.raises((IndexingError, ValueError), match=message):
        call(plain_store)
    assert len(plain_store) == 6


def test_every_search_type_of_the_retriever(store):
    def ask(search_type, **search_kwargs):
        return names(store.as_retriever(search_type=search_type, search_kwargs=search_kwargs).invoke(QUERY))

    filter = {"file.n": {"$gte": 2}}
    assert ask("similarity", k=3, filter=filter) == names(store.similarity_search(QUERY, 3, filter))
    assert ask("mmr", k=3, lambda_mult=0.1) == names(store.max_marginal_relevance_search(QUERY, 3, lambda_mult=0.1))
    assert ask("hybrid", k=3, filter=filter) == names(store.similarity_search(QUERY, 3, filter, mode="hybrid"))
    scored = store.similarity_search_with_relevance_scores(QUERY, k=6)
    cut = (scored[1][1] + scored[2][1]) / 2
    assert ask("similarity_score_threshold", k=6, score_threshold=cut) == names(document for document, _ in scored[:2])
    retriever = store.as_retriever(tags=["mine"])
    assert retriever.tags[0] == "mine" and retriever.invoke(QUERY, k=1) == store.similarity_search(QUERY, k=1)


async def test_async_gives_the_same_and_leaves_the_loop_free(store, monkeypatch):
    for search_type in ("similarity", "mmr", "hybrid"):
        retriever = store.as_retriever(search_type=search_type)
        assert await retriever.ainvoke(QUERY) == retriever.invoke(QUERY)
    vector = [1.0] * 32
    assert await store.asimilarity_search_by_vector(vector, k=2) == store.similarity_search_by_vector(vector, k=2)
    assert await store.asimilarity_search_with_relevance_scores(QUERY) == store.similarity_search_with_relevance_scores(
        QUERY
    )
    assert await store.amax_marginal_relevance_search(QUERY) == store.max_marginal_relevance_search(QUERY)
    assert await store.asearch(QUERY, "hybrid", k=2) == store.search(QUERY, "hybrid", k=2)
    (id_,) = await store.aadd_texts(["new"])
    assert names(await store.aget_by_ids([id_])) == [id_] and await store.adelete([id_])
    main, seen = threading.get_ident(), []
    search = store.index.search
    monkeypatch.setattr(store.index, "search", lambda *a, **k: seen.append(threading.get_ident()) or search(*a, **k))
    await asyncio.gather(*(store.asimilarity_search(QUERY) for _ in range(3)))
    assert len(seen) == 3 and main not in seen


def test_an_index_is_opened_again_and_another_model_refused(plain_store, encoder, other_model_path, no_pickle):
    again = RevelaVectorStore(str(plain_store.index.path), embedding=RevelaEmbeddings.from_encoder(encoder))
    assert again.similarity_search(QUERY) == plain_store.similarity_search(QUERY)
    again.add_texts(["seen by the other"], ids=["late"])
    assert names(plain_store.get_by_ids(["late"])) == ["late"]
    with pytest.raises(IndexMismatchError):
        RevelaVectorStore(plain_store.index.path, embedding=other_model_path)
    assert isinstance(plain_store.embeddings, RevelaEmbeddings) and plain_store.embeddings.encoder is encoder


def test_from_texts_and_from_documents(encoder, documents, tmp_path):
    embeddings = RevelaEmbeddings.from_encoder(encoder)
    kept = RevelaVectorStore.from_documents(documents, embeddings, path=tmp_path / "kept")
    assert kept.get_by_ids(["tax.md"]) == [documents[2]] and kept.embeddings is embeddings
    passing = RevelaVectorStore.from_texts(["a", "b"], embeddings, [{"n": 1}, {"n": 2}])
    path = passing.index.path
    assert len(passing.similarity_search("a", filter={"n": 2})) == 1 and path.exists()
    passing.index.close()
    del passing
    gc.collect()
    assert not path.exists()
    again = RevelaVectorStore.from_texts(["c"], embeddings, path=tmp_path / "kept", overwrite=True, store="chroma")
    assert len(again) == 1 and again.index.store == "chroma"


def test_embeddings_of_others(documents, tmp_path):
    fake = DeterministicFakeEmbedding(size=8)
    store = RevelaVectorStore.from_documents(documents, fake, path=tmp_path / "index")
    assert store.embeddings is fake
    assert names(store.similarity_search(TEXTS["tax.md"], k=1)) == ["tax.md"]
    store.index.close()
    again = RevelaVectorStore(tmp_path / "index", embedding=DeterministicFakeEmbedding(size=8))
    assert names(again.similarity_search(TEXTS["tax.md"], k=1, mode="hybrid")) == ["tax.md"]
    with pytest.raises(IndexMismatchError):
        RevelaVectorStore(tmp_path / "index", embedding=DeterministicFakeEmbedding(size=9))
    again.index.close()


def test_cached_embeddings_are_those_of_their_model(encoder, plain_store):
    cached = RevelaEmbeddings.from_encoder(encoder).cached(InMemoryByteStore())
    assert RevelaVectorStore(plain_store.index.path, embedding=cached).embeddings is cached


def test_examples_are_selected(encoder):
    examples = [{"input": "happy", "output": "sad"}, {"input": "tall", "output": "short"}]
    embeddings = RevelaEmbeddings.from_encoder(encoder)
    selector = SemanticSimilarityExampleSelector.from_examples(examples, embeddings, RevelaVectorStore, k=1)
    assert len(selector.select_examples({"input": "tall"})) == 1
    selector.add_example({"input": "new", "output": "old"})
    assert len(selector.vectorstore) == 3


@pytest.mark.parametrize("cleanup", ["incremental", "full", "scoped_full"])
def test_the_indexing_api(store, documents, cleanup):
    manager = InMemoryRecordManager(namespace="revela")
    manager.create_schema()
    store.delete(names(documents))
    options = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256"}

    def run(given):
        return tuple(index(given, manager, store, **options).values())

    assert run(documents) == (6, 0, 0, 0) and run(documents) == (0, 0, 6, 0)
    changed = [documents[0], Document(page_content="Trains only.", metadata=documents[4].metadata)]
    expected = (1, 0, 1, 5) if cleanup == "full" else (1, 0, 1, 1)
    assert run(changed) == expected
    assert len(store) == 6 + 1 - expected[3]
    assert names(store.similarity_search("x", k=9, filter={"source": "travel.md"})) != ["travel.md"]
    index([], manager, store, cleanup="full", key_encoder="sha256")
    assert len(store) == 0


async def test_the_indexing_api_async(store, documents):
    manager = InMemoryRecordManager(namespace="revela")
    store.delete(names(documents))
    for expected in ((6, 0), (0, 6)):
        done = await aindex(
            documents, manager, store, cleanup="incremental", source_id_key="source", key_encoder="sha256"
        )
        assert (done["num_added"], done["num_skipped"]) == expected
    assert len(store) == 6


def test_structured_queries_are_translated():
    translator = RevelaTranslator()

    def compare(comparator, value):
        return Comparison(comparator=comparator, attribute="a", value=value)

    either = Operation(operator=Operator.OR, arguments=[compare(Comparator.EQ, 1), compare(Comparator.GTE, 2.5)])
    late = compare(Comparator.LT, {"type": "date", "date": "2024-01-31"})
    whole = Operation(operator=Operator.AND, arguments=[either, Operation(operator=Operator.NOT, arguments=[late])])
    query, options = translator.visit_structured_query(StructuredQuery(query="q", filter=whole, limit=None))
    assert query == "q" and options == {
        "filter": {
            "$and": [
                {"$or": [{"a": {"$eq": 1}}, {"a": {"$gte": 2.5}}]},
                {"$not": {"a": {"$lt": "2024-01-31"}}},
            ]
        }
    }
    assert compare(Comparator.IN, "x").accept(translator) == {"a": {"$in": ["x"]}}
    assert compare(Comparator.NE, ["x", "y"]).accept(translator) == {"a": {"$nin": ["x", "y"]}}
    assert compare(Comparator.CONTAIN, ["x", "y"]).accept(translator) == {
        "$and": [{"a": {"$contains": "x"}}, {"a": {"$contains": "y"}}]
    }
    for comparator in translator.allowed_comparators:
        assert parse_filter(compare(comparator, "x").accept(translator)) is not None
    with pytest.raises(ValueError, match="disallowed"):
        compare(Comparator.LIKE, "x").accept(translator)
    assert translator.visit_structured_query(StructuredQuery(query="q", filter=None)) == ("q", {})
