from __future__ import annotations

import asyncio
import threading
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from filelock import FileLock
from integration_data import PROMPTS, TEXTS
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from langchain_revela import RevelaEmbeddings, RevelaRetriever
from revela_rag.corpus import load_corpus
from revela_rag.errors import CorpusError, IndexingError, IndexMismatchError, ModelError
from revela_rag.index import Index, SyncReport
from revela_rag.model.encoder import Encoder

QUERY = "when is the tax due?"


def by_hand(plain, texts: list[str], role: str) -> np.ndarray:
    return plain.encode([PROMPTS[role] + text for text in texts], normalize_embeddings=True)


def test_prompts_are_applied_to_both_roles(model_path, plain):
    embeddings = RevelaEmbeddings(model=model_path, device="cpu")
    texts = list(TEXTS.values())
    np.testing.assert_allclose(embeddings.embed_documents(texts), by_hand(plain, texts, "document"), atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_query(QUERY), by_hand(plain, [QUERY], "query")[0], atol=1e-5)
    assert np.abs(np.subtract(embeddings.embed_query(QUERY), embeddings.embed_documents([QUERY])[0])).max() > 1e-3


def test_vectors_have_length_one_and_newlines_are_kept(model_path):
    embeddings = RevelaEmbeddings(model=model_path, device="cpu")
    vectors = embeddings.embed_documents(list(TEXTS.values()))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embeddings.embed_documents([]) == []


def test_texts_come_in_any_sequence(model_path):
    embeddings = RevelaEmbeddings(model=model_path, device="cpu")
    texts = list(TEXTS.values())
    expected = embeddings.embed_documents(texts)
    for given in (np.array(texts), np.array(texts, dtype=object), tuple(texts), iter(texts), Column(texts)):
        assert embeddings.embed_documents(given) == expected
    for empty in (np.array([]), (), iter([]), Column([])):
        assert embeddings.embed_documents(empty) == []
    for one in (embeddings, embeddings.cached(InMemoryByteStore())):
        with pytest.raises(TypeError, match="one string"):
            one.embed_documents("a text")


class Column(list):
    """Like a pandas Series, it has no truth value."""

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a Series is ambiguous.")


@pytest.mark.parametrize("first", ["query", "document"])
async def test_a_cache_keeps_roles_and_models_apart(first, model_path, other_model_path, monkeypatch):
    store = InMemoryByteStore()
    bare, other = (RevelaEmbeddings(model=path, device="cpu") for path in (model_path, other_model_path))
    cached = bare.cached(store)
    both = {"query": cached.embed_query, "document": lambda text: cached.embed_documents([text])[0]}
    for role in (first, *both):  # whichever comes first, a text has its two vectors
        expected = bare.embed_query(QUERY) if role == "query" else bare.embed_documents([QUERY])[0]
        assert both[role](QUERY) == expected
    assert other.cached(store).embed_query(QUERY) == other.embed_query(QUERY) != bare.embed_query(QUERY)
    assert len(list(store.yield_keys())) == 3
    texts = [QUERY, "new", QUERY, "new"]
    expected = bare.embed_documents(["new"])[0]
    asked = []
    encode = bare.encoder.encode_documents
    monkeypatch.setattr(bare.encoder, "encode_documents", lambda texts: asked.append(list(texts)) or encode(texts))
    found = await cached.aembed_documents(np.array(texts))
    assert asked == [["new"]] and found[1] == found[3] == expected and found[0] == found[2]
    assert await cached.aembed_query(QUERY) == cached.embed_query(QUERY)
    before = len(list(store.yield_keys()))
    assert bare.cached(store, queries=False).embed_query("unseen") == bare.embed_query("unseen")
    assert len(list(store.yield_keys())) == before


def test_a_namespace_names_the_role(model_path):
    embeddings = RevelaEmbeddings(model=model_path, device="cpu")
    assert embeddings.namespace() == embeddings.namespace("document") != embeddings.namespace("query")
    assert embeddings.fingerprint in embeddings.namespace("query")
    with pytest.raises(ModelError, match="role='passage'"):
        embeddings.namespace("passage")


async def test_async_embeddings_equal_sync_ones_and_leave_the_loop(encoder, monkeypatch):
    embeddings = RevelaEmbeddings.from_encoder(encoder)
    threads = []
    encode = encoder.encode_queries
    monkeypatch.setattr(encoder, "encode_queries", lambda texts: threads.append(threading.get_ident()) or encode(texts))
    vector = await embeddings.aembed_query(QUERY)
    assert threads and threading.get_ident() not in threads
    assert vector == embeddings.embed_query(QUERY)
    assert await embeddings.aembed_documents([QUERY]) == embeddings.embed_documents([QUERY])


def test_embeddings_work_in_a_vector_store(model_path):
    store = InMemoryVectorStore(RevelaEmbeddings(model=model_path, device="cpu"))
    store.add_documents([Document(page_content=text, id=source) for source, text in TEXTS.items()])
    assert len(store.similarity_search(QUERY, k=2)) == 2


def test_a_model_that_does_not_exist_is_named(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(ModelError, match="nowhere"):
        RevelaEmbeddings(model=missing).embed_query("x")


def test_embeddings_refuse_options_they_do_not_know(model_path):
    with pytest.raises(TypeError, match="model_kwargs"):
        RevelaEmbeddings(model=model_path, model_kwargs={})


def test_documents_equal_the_hits_of_the_index(index):
    documents = RevelaRetriever(index=index, k=4, with_scores=True).invoke(QUERY)
    hits = index.search(QUERY, k=4)
    assert [document.id for document in documents] == [hit.chunk.id for hit in hits]
    assert [document.metadata["score"] for document in documents] == [hit.score for hit in hits]
    assert [document.metadata["rank"] for document in documents] == [hit.rank for hit in hits]
    assert [document.metadata["cosine"] for document in documents] == [hit.cosine for hit in hits]
    lexical = RevelaRetriever(index=index, search_type="lexical", with_scores=True).invoke("password")[0]
    assert "cosine" not in lexical.metadata
    first = documents[0]
    assert first.page_content == hits[0].chunk.text
    assert first.metadata["source"] == hits[0].chunk.document_id
    assert first.metadata["lines"] == 3


def test_scores_are_cosines_of_prompted_vectors(index, plain):
    query = by_hand(plain, [QUERY], "query")[0]
    cosines = dict(zip(TEXTS, by_hand(plain, list(TEXTS.values()), "document") @ query, strict=True))
    documents = RevelaRetriever(index=index, k=len(TEXTS), search_type="dense", with_scores=True).invoke(QUERY)
    assert len(documents) == len(TEXTS)
    for document in documents:
        assert document.metadata["score"] == pytest.approx(cosines[document.metadata["source"]], abs=1e-4)


def test_options_of_a_call_win_over_search_kwargs_and_those_over_fields(index):
    retriever = RevelaRetriever(index=index, k=1, search_kwargs={"k": 2})
    assert len(retriever.invoke(QUERY)) == 2
    assert len(retriever.invoke(QUERY, k=3)) == 3


def test_filter_comes_before_the_best_k(index):
    for source in TEXTS:
        found = RevelaRetriever(index=index, k=1, filter={"source": source}).invoke(QUERY)
        assert [document.metadata["source"] for document in found] == [source]
    retriever = RevelaRetriever(index=index, k=6, search_kwargs={"filter": {"team": "platform"}})
    assert {document.metadata["source"] for document in retriever.invoke(QUERY)} == {"cache.py", "retry.py"}
    assert len(retriever.invoke(QUERY, filter={"kind": "prose"})) == 4
    assert len(retriever.invoke(QUERY, filter={})) == 6


def test_what_is_set_later_counts(faiss_index):
    retriever = RevelaRetriever(index=faiss_index)
    retriever.k, retriever.filter, retriever.search_type = 1, {"team": "platform"}, "lexical"
    assert [document.metadata["source"] for document in retriever.invoke("cache")] == ["cache.py"]
    retriever.search_kwargs["k"] = 2
    assert len(retriever.invoke("call the cache again")) == 2
    for field, value in {"k": 0, "search_type": "near", "index": str(faiss_index.path), "filters": {}}.items():
        with pytest.raises(ValidationError, match=field):
            setattr(retriever, field, value)
    before = retriever.model_dump()
    for field, value, message in (
        ("search_kwargs", {"filters": {"team": "people"}}, "filters"),
        ("search_kwargs", {"k": 0}, "k=0"),
        ("search_kwargs", {"search_type": "near"}, "near"),
        ("search_kwargs", {"filter": {"lines": {"$gt": [2]}}}, "lines"),
        ("filter", {"lines": {"$gt": [2]}}, "lines"),
    ):
        with pytest.raises(IndexingError, match=message):
            setattr(retriever, field, value)
    assert retriever.model_dump() == before
    retriever.search_kwargs["filters"] = {"team": "people"}
    with pytest.raises(IndexingError, match="filters"):
        retriever.invoke("cache")


def test_lexical_and_hybrid_search(index):
    assert RevelaRetriever(index=index, search_type="lexical").invoke("password")[0].metadata["source"] == "login.md"
    retriever = RevelaRetriever(index=index, k=6)
    hybrid = retriever.invoke("password", search_type="hybrid")
    assert [d.id for d in hybrid] == [hit.chunk.id for hit in index.search("password", k=6, mode="hybrid")]


async def test_many_queries_at_once_give_what_they_give_in_turn(index):
    retriever = RevelaRetriever(index=index, k=3, with_scores=True)
    queries = [f"{text} {number}" for number, text in enumerate([*TEXTS.values()] * 4)][:20]
    at_once = await asyncio.gather(*(retriever.ainvoke(query) for query in queries))
    for query, documents in zip(queries, at_once, strict=True):
        expected = retriever.invoke(query)
        assert [document.id for document in documents] == [document.id for document in expected]
        np.testing.assert_allclose(
            [document.metadata["score"] for document in documents],
            [document.metadata["score"] for document in expected],
            atol=1e-5,
        )


async def test_async_search_takes_k_and_leaves_the_loop(index, monkeypatch):
    threads = []
    search = type(index).search
    monkeypatch.setattr(
        type(index),
        "search",
        lambda *args, **kwargs: threads.append(threading.get_ident()) or search(*args, **kwargs),
    )
    found = await RevelaRetriever(index=index).ainvoke(QUERY, k=2, filter={"team": "people"})
    assert len(found) == 2
    assert threads and threading.get_ident() not in threads


def test_a_chain_runs(index):
    seen = []

    def join(documents: list[Document]) -> str:
        seen.extend(documents)
        return "\n".join(document.page_content for document in documents)

    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    inputs = {"context": RevelaRetriever(index=index, k=2) | join, "question": RunnablePassthrough()}
    chain = inputs | prompt | FakeListChatModel(responses=["the tenth day"]) | StrOutputParser()
    assert chain.invoke(QUERY) == "the tenth day"
    assert len(seen) == 2


def test_fields_can_be_configured_at_run_time(index):
    retriever = RevelaRetriever(index=index, k=1).configurable_fields(k=ConfigurableField(id="k"))
    assert len(retriever.invoke(QUERY, config={"configurable": {"k": 3}})) == 3
    assert len(retriever.invoke(QUERY)) == 1


def test_an_index_on_disk_is_opened_without_pickle(faiss_index, no_pickle):
    documents = RevelaRetriever(index=faiss_index.path, k=2).invoke(QUERY)
    assert [d.id for d in documents] == [hit.chunk.id for hit in faiss_index.search(QUERY, k=2)]


def test_another_model_is_refused(faiss_index, other_model_path):
    with pytest.raises(IndexMismatchError):
        RevelaRetriever(index=faiss_index.path, model=other_model_path)


def test_bad_input_is_named(index, tmp_path):
    with pytest.raises(IndexingError, match="nothing-here"):
        RevelaRetriever(index=tmp_path / "nothing-here")
    with pytest.raises(IndexingError, match="top_k"):
        RevelaRetriever(index=index, search_kwargs={"top_k": 3})
    with pytest.raises(ValueError, match="search_typ"):
        RevelaRetriever(index=index, search_typ="hybrid")
    with pytest.raises(IndexingError, match="model is for an index given as a directory"):
        RevelaRetriever(index=index, model="x")
    with pytest.raises(ValidationError):
        RevelaRetriever(index=index, k=0)
    with pytest.raises(ValidationError):
        RevelaRetriever(index=index, search_type="near")
    with pytest.raises(TypeError, match="top_k"):
        RevelaRetriever(index=index).invoke(QUERY, top_k=3)
    with pytest.raises(IndexingError, match="k=0"):
        RevelaRetriever(index=index).invoke(QUERY, k=0)


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_metadata_of_the_user_wins_over_computed(store, encoder, tmp_path):
    own = {"kind": "invoice", "document_id": "42", "title": "Inv", "score": 7, "rank": "A", "cosine": "c"}
    own |= {"start_line": 99, "language": "en", "tags": ["a", "b"], "price": 19.9}
    given = own | {"price": Decimal("19.90"), "when": date(2024, 1, 1), "none": None}
    documents = [
        Document(page_content="The invoice of March is due.", metadata=given),
        Document(page_content="def f(x):\n    return x + 1\n", metadata={"language": "en"}),
        Document(page_content="Trains are booked by the office.", metadata={"source": "travel.md", "tags": "a"}),
    ]
    path = tmp_path / "index"
    RevelaRetriever.from_documents(documents, model=encoder, path=path, store=store).index.close()
    retriever = RevelaRetriever(index=path, model=encoder, k=9, with_scores=True)
    invoice = retriever.invoke("invoice", search_type="lexical")[0]
    assert invoice.metadata == own | {"when": "2024-01-01", "source": "item-0", "end_line": 1}
    (hit,) = retriever.index.search("invoice", mode="lexical")
    assert (hit.chunk.kind, hit.chunk.document_id, hit.rank) == ("prose", "item-0", 1)

    def count(**filter):
        return len(retriever.invoke("x", filter=filter))

    for key, value in given.items():
        if key not in ("none", "tags", "language"):
            assert count(**{key: value}) == 1, key
    assert (count(language="en"), count(tags="a"), count(tags="b"), count(tags=["b", "c"])) == (2, 2, 1, 1)
    assert (count(kind="prose"), count(kind="code"), count(kind=["prose", "invoice"])) == (1, 1, 2)
    assert (count(document_id="item-0"), count(document_id="item-1")) == (0, 1)
    assert retriever.index.sync(load_corpus(documents).chunks) == SyncReport(unchanged=3)


def test_pieces_of_one_source_are_embedded_once_however_many_come_before(encoder, tmp_path):
    pieces = [Document(page_content=f"Rule {n} of the book.", metadata={"source": "book.pdf"}) for n in range(20)]
    index = RevelaRetriever.from_documents(pieces[5:], model=encoder, path=tmp_path / "index").index
    report = index.sync(load_corpus(pieces, deduplicate=False).chunks)
    assert report == SyncReport(added=5, unchanged=15, embedded=5)


def test_pieces_are_added_replaced_and_deleted_by_their_text(encoder, tmp_path):
    def read(*numbers):
        pieces = [Document(page_content=f"Rule {n} of the book.", metadata={"source": "book.pdf"}) for n in numbers]
        return load_corpus(pieces, deduplicate=False).chunks

    with Index.build(read(0, 1, 2, 3), encoder=encoder, path=tmp_path / "index") as index:
        assert index.add(read(3)) == SyncReport(unchanged=1) and index.add(read(2, 1, 0)) == SyncReport(unchanged=3)
        assert index.delete([chunk.id for chunk in read(2)]) == 1
        assert index.add(read(4, 0)).added == 1
        found = index.search("rule", k=9, filter={"document_id": "book.pdf"})
        assert sorted(hit.chunk.text for hit in found) == [f"Rule {n} of the book." for n in (0, 1, 3, 4)]


async def test_a_passage_is_equal_whichever_query_found_it(index):
    retriever = RevelaRetriever(index=index, k=len(TEXTS))
    lists = [retriever.invoke(query) for query in (QUERY, "password", "days of leave")]
    merged = [document for documents in lists for document in documents]
    # as MultiQueryRetriever and MergerRetriever do it
    unique = [document for place, document in enumerate(merged) if document not in merged[:place]]
    assert len(unique) == len(TEXTS)
    for found in (retriever.invoke(QUERY, with_scores=True), await retriever.ainvoke(QUERY, with_scores=True)):
        assert [document.metadata["rank"] for document in found] == [1, 2, 3, 4, 5, 6]
    assert not {"score", "rank", "cosine"} & set(lists[0][0].metadata)


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_a_document_keeps_its_id(store, encoder, tmp_path):
    long = " ".join(f"Rule {number} of the house is to close door {number} at night." for number in range(40))
    documents = [Document(id="b", page_content=long), Document(page_content="Trains are booked by the office.")]
    same = [Document(id="a", page_content=f"The {word} version of the rule.") for word in ("first", "second")]
    documents = same + documents
    path = tmp_path / "index"
    RevelaRetriever.from_documents(documents, model=encoder, path=path, store=store).index.close()
    retriever = RevelaRetriever(index=path, model=encoder, k=99)
    found = retriever.invoke("rule")
    chunk_ids = {hit.chunk.id for hit in retriever.index.search("rule", k=99)}
    ids = {document.page_content: document.id for document in found}
    assert [ids[document.page_content] for document in documents[:2]] == ["a", "a"]
    pieces = [document for document in found if document.metadata["document_id"] == "b"]
    assert len({document.id for document in pieces}) == len(pieces) > 1  # one id would not tell them apart
    assert {document.id for document in found} - {"a"} < chunk_ids
    assert [chunk.text for chunk in retriever.index.get(["a", pieces[0].id, "z"])] == [
        *(document.page_content for document in documents[:2]),
        pieces[0].page_content,
    ]


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_from_documents_keeps_metadata(store, encoder, tmp_path):
    documents = [Document(page_content=text, metadata={"source": name}) for name, text in TEXTS.items()]
    retriever = RevelaRetriever.from_documents(documents, model=encoder, path=tmp_path / "index", store=store, k=6)
    found = retriever.invoke(QUERY)
    assert {document.metadata["source"] for document in found} == set(TEXTS)
    assert retriever.index.store == store


class Unused(Encoder):
    """A model that must not be asked."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_from_no_documents_is_an_empty_index(store, encoder, tmp_path):
    retriever = RevelaRetriever.from_documents(iter([]), model=encoder, path=tmp_path / "index", store=store)
    assert retriever.invoke(QUERY) == [] and retriever.invoke(QUERY, filter={"team": "people"}) == []
    retriever.index.add(load_corpus([Document(page_content=TEXTS["tax.md"])]).chunks)
    assert [document.page_content for document in retriever.invoke(QUERY)] == [TEXTS["tax.md"]]
    with pytest.raises(CorpusError, match="No usable text"):
        RevelaRetriever.from_documents([Document(page_content=" ")], model=encoder, path=tmp_path / "other")


def test_an_index_is_opened_as_told(faiss_index, encoder, tmp_path):
    path = tmp_path / "index"
    documents = [Document(page_content=TEXTS["tax.md"])]
    settings = {"lock_timeout": 0.05, "auto_refresh": False}
    built = RevelaRetriever.from_documents(documents, model=encoder, path=path, **settings)
    opened = RevelaRetriever(index=path, model=encoder, **settings)
    with FileLock(path / ".lock"):
        for retriever in (built, opened):
            assert retriever.index.auto_refresh is False
            with pytest.raises(IndexingError, match=r"0\.05 s.*lock_timeout"):
                retriever.index.delete(["x"])
    for setting, value in settings.items():
        with pytest.raises(IndexingError, match=f"{setting} is for an index given as a directory"):
            RevelaRetriever(index=faiss_index, **{setting: value})


def test_from_documents_can_be_run_again_and_checks_its_arguments_first(encoder, tmp_path):
    documents, path = [Document(page_content=text) for text in TEXTS.values()], tmp_path / "index"
    for wrong, message in (
        ({"top_k": 2}, "top_k: no field"),
        ({"index": None}, "index: no field"),
        ({"k": 0}, "greater than or equal to 1"),
        ({"search_type": "near"}, "search_type"),
        ({"search_kwargs": {"k": 3, "fetch_k": 20}}, "fetch_k"),
        ({"search_kwargs": {"k": 0}}, "k=0"),
        ({"search_kwargs": {"search_type": "near"}}, "near"),
        ({"search_kwargs": {"filter": {"year": {"$gtt": 2020}}}}, "year"),
        ({"filter": {"year": {"$gt": True}}}, "year"),
        ({"filter": "year"}, "filter"),
        ({"with_scores": "maybe"}, "with_scores"),
        ({"store": "pinecone"}, "pinecone"),
        ({"max_words": 3}, "max_words"),
        ({"model": "./nowhere"}, "nowhere"),
    ):
        with pytest.raises((IndexingError, ValueError), match=message):
            RevelaRetriever.from_documents(documents, **{"model": Unused(), "path": path, **wrong})
        assert not path.exists()
    for _ in range(2):
        retriever = RevelaRetriever.from_documents(documents, model=encoder, path=path, overwrite=True, k=2)
        assert len(retriever.invoke(QUERY)) == 2


def test_from_documents_keeps_equal_texts(encoder, tmp_path):
    documents = [Document(page_content=TEXTS["login.md"], metadata={"tenant": name}) for name in ("acme", "globex")]
    retriever = RevelaRetriever.from_documents(documents, model=encoder, path=tmp_path / "index")
    for name in ("acme", "globex"):
        (found,) = retriever.invoke("password", filter={"tenant": name})
        assert found.metadata["tenant"] == name
