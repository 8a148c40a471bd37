"""The LlamaIndex vector store: what its nodes are, every query mode, and what LlamaIndex builds on it."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import threading
from datetime import date

import numpy as np
import pytest
from integration_data import TEXTS
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from llama_data import QUERY, asked, filled, where, whole_nodes
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
)

from llama_index.embeddings.revela import ModelVector, RevelaEmbedding
from llama_index.retrievers.revela import RevelaRetriever
from llama_index.vector_stores.revela import RevelaVectorStore
from revela_rag import Encoder
from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index import Index


@pytest.fixture
def store(encoder, tmp_path):
    return filled(tmp_path, encoder)


@pytest.fixture(params=["faiss", "chroma"])
def either_store(request, encoder, tmp_path):
    return filled(tmp_path, encoder, store=request.param)


# -- nodes -----------------------------------------------------------------------------------------------------


def test_nodes_come_back_as_they_were(encoder, tmp_path):
    related = {
        NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book", hash="h", metadata={"page": 3}),
        NodeRelationship.CHILD: [RelatedNodeInfo(node_id="x"), RelatedNodeInfo(node_id="y")],
    }
    metadata = {"zeta": 1, "alpha": [1, 2], "source": "mine", "kind": {"a": None}, "none": None}
    given = [
        TextNode(
            id_="text",
            text="Some text.",
            metadata=metadata,
            relationships=related,
            start_char_idx=3,
            end_char_idx=13,
            excluded_llm_metadata_keys=["zeta"],
            excluded_embed_metadata_keys=["alpha"],
            metadata_template="<{key}>{value}",
            text_template="{content} / {metadata_str}",
        ),
        ImageNode(id_="image", text="A cat.", image="aGk=", image_mimetype="image/png"),
        IndexNode(id_="index", text="A table.", index_id="table-1", obj=TextNode(id_="in", text="inner")),
        Document(id_="document", text="A document.", metadata={"b": 1, "a": 2}),
        Node(id_="node", text_resource=MediaResource(text="Spoken."), metadata={"x": 1}),
    ]
    store = RevelaVectorStore(tmp_path / "index", model=encoder)
    assert store.add(given) == ["text", "image", "index", "document", "node"]
    found = store.get_nodes([node.node_id for node in given])
    for node, before in zip(found, given, strict=True):
        assert type(node) is type(before) and node.to_dict() == before.to_dict()
        assert list(node.metadata) == list(before.metadata)
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert node.get_content(mode) == before.get_content(mode)
    assert {node.node_id for node in asked(store, "text", k=9).nodes} == {node.node_id for node in given}
    (seen,) = RevelaRetriever(store.index, mode="lexical", similarity_top_k=1).retrieve("table")
    assert seen.node.to_dict() == given[2].obj.to_dict()  # what the index node stands for


def test_metadata_that_json_cannot_hold_is_counted(store, caplog):
    given = {"day": date(2024, 1, 2), "raw": {1: object()}, "nan": float("nan"), "many": list(range(300))}
    store.add([TextNode(id_="odd", text="x", metadata=given)])
    assert store.get_nodes(["odd"])[0].metadata == {"day": "2024-01-02", "many": list(range(300))}
    assert "'raw' of 1" in caplog.text and "'nan' of 1" in caplog.text


def test_a_node_is_replaced_under_its_id(store):
    node = TextNode(id_="n-tax.md", text="A wholly other text about bread.")
    assert store.add([TextNode(id_="n-tax.md", text="not this"), node]) == ["n-tax.md", "n-tax.md"]
    assert len(store.index) == len(TEXTS) and store.get_nodes(["n-tax.md"])[0].text == node.text
    assert asked(store, "bread", mode="text_search").ids == ["n-tax.md"]
    assert asked(store, "value added tax", mode="text_search").ids == []
    assert store.add([]) == []


def test_deleting(either_store, caplog):
    store = either_store
    store.delete("tax.md")
    store.delete_nodes(["n-login.md", "unknown"])
    store.delete_nodes(["n-leave.md", "n-cache.py"], where("team", "platform"))
    store.delete_nodes([])
    assert {node.node_id for node in store.get_nodes()} == {"n-leave.md", "n-travel.md", "n-retry.py"}
    store.delete_nodes(filters=where("words", 9, ">="))
    left = {node.node_id for node in store.get_nodes()}
    assert left == {f"n-{name}" for name in ("leave.md", "travel.md", "retry.py") if len(TEXTS[name].split()) < 9}
    for arguments in ({}, {"filters": MetadataFilters(filters=[])}):
        with pytest.raises(IndexingError, match=r"clear\(\)"):
            store.delete_nodes(**arguments)
    with caplog.at_level(logging.WARNING):
        store.delete("nowhere")
    assert "Nothing was deleted" in caplog.text
    store.clear()
    assert len(store.index) == 0 and asked(store).ids == []


# -- queries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "own"),
    [
        ("default", "dense"),
        ("hybrid", "hybrid"),
        ("semantic_hybrid", "hybrid"),
        ("text_search", "lexical"),
        ("sparse", "lexical"),
    ],
)
def test_modes_are_those_of_the_index(either_store, mode, own):
    store = either_store
    hits = store.index.search(QUERY, k=4, mode=own, filter={"team": "people"})
    for vector in (None, store.embed_model().get_query_embedding(QUERY)):
        found = asked(store, k=4, mode=mode, filters=where("team", "people"), query_embedding=vector)
        assert found.ids == [hit.chunk.id for hit in hits] == [node.node_id for node in found.nodes]
        expected = [hit.score if hit.cosine is None else hit.cosine for hit in hits]
        assert found.similarities == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_mmr(either_store, encoder, threshold):
    names = list(TEXTS)
    vectors = encoder.encode_documents([node_text(name) for name in names])
    query = encoder.encode_queries([QUERY])[0]
    expected = [names[place] for place in maximal_marginal_relevance(query, vectors, threshold, 4)]
    found = asked(either_store, k=4, mode="mmr", options={"mmr_threshold": threshold})
    assert found.ids == [f"n-{name}" for name in expected]
    cosines = [float(vectors[names.index(name)] @ query) for name in expected]
    assert found.similarities == pytest.approx(cosines, abs=1e-5)
    index = VectorStoreIndex.from_vector_store(either_store, embed_model=either_store.embed_model())
    options = {"vector_store_query_mode": "mmr", "vector_store_kwargs": {"mmr_threshold": threshold}}
    retriever = index.as_retriever(similarity_top_k=4, **options)
    assert [node.node_id for node in retriever.retrieve(QUERY)] == found.ids
    nearest = asked(either_store, k=2, mode="mmr", options={"mmr_threshold": threshold, "mmr_prefetch_k": 2})
    assert set(nearest.ids) == set(asked(either_store, k=2).ids)


def node_text(name: str) -> str:
    return next(node for node in whole_nodes() if node.node_id == f"n-{name}").get_content(MetadataMode.EMBED)


def test_queries_are_restricted_to_documents_and_nodes(store):
    store.add([TextNode(id_="other", text="Leave.", metadata={"document_id": "tax.md"})])
    assert asked(store, k=9, doc_ids=["tax.md", "TRAVEL.md"]).ids == ["n-tax.md"]
    assert set(asked(store, k=9, node_ids=["other", "n-tax.md"], mode="hybrid").ids) == {"other", "n-tax.md"}
    assert asked(store, k=9, node_ids=["other", "n-tax.md"], filters=where("team", "people")).ids == ["n-tax.md"]
    assert asked(store, k=9, node_ids=["nowhere"]).ids == []
    assert len(asked(store, k=9, node_ids=[], doc_ids=[]).ids) == 7


def test_a_query_without_text_lists_what_matches(store):
    found = asked(store, "", k=2, filters=where("team", "people"))
    assert found.ids == ["n-tax.md", "n-leave.md"] and found.similarities is None
    assert asked(store, None, k=9).ids == [f"n-{name}" for name in TEXTS]


def test_alpha_chooses_one_side_and_counts_are_taken(store, caplog):
    for alpha, mode in ((0, "sparse"), (1.0, "default"), (None, "hybrid"), (0.5, "hybrid")):
        found = asked(store, k=6, mode="hybrid", alpha=alpha)
        assert found.ids == asked(store, k=6, mode=mode).ids
    assert caplog.text.count("is passed over") == 1
    assert len(asked(store, k=6, mode="hybrid", hybrid_top_k=2).ids) == 2
    assert len(asked(store, "tax leave", k=6, mode="sparse", sparse_top_k=1).ids) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: asked(store, mode="svm"), "'svm' is not one of 'default'"),
        (lambda store: asked(store, k=0), "similarity_top_k=0"),
        (lambda store: asked(store, options={"mmr_threshold": 1}), "mmr_threshold"),
        (lambda store: asked(store, mode="mmr", options={"mmr_treshold": 1}), "mmr_treshold"),
        (lambda store: asked(store, mode="mmr", options={"mmr_threshold": 2}), "balance=2"),
        (lambda store: asked(store, filters=where("team", None)), "'team' == None"),
        (lambda store: store.add([TextNode(text="x")], namespace="a"), "namespace"),
        (lambda store: store.delete("x", namespace="a"), "namespace"),
        (lambda store: RevelaVectorStore(store.index.path.parent / "none"), "give model="),
        (lambda store: RevelaVectorStore.from_persist_path(store.index.path.parent / "none"), "no index"),
        (lambda store: RevelaVectorStore(store.index, lock_timeout=3.0), "lock_timeout"),
    ],
)
def test_what_is_wrong_is_said(store, call, message):
    with pytest.raises(IndexingError, match=message):
        call(store)
    assert len(store.index) == 6


# -- vectors of which model ------------------------------------------------------------------------------------


def embedded(nodes, embedding):
    for node in nodes:
        node.embedding = embedding.get_text_embedding(node.get_content(MetadataMode.EMBED))
    return nodes


def test_given_vectors_are_used_and_equal_those_the_store_makes(encoder, tmp_path, monkeypatch):
    nodes = embedded(whole_nodes() * 20, RevelaEmbedding.from_encoder(encoder))
    nodes = [node.model_copy(update={"id_": f"n{n}"}) for n, node in enumerate(nodes)]
    asked_for, encode = [], encoder.encode_documents
    monkeypatch.setattr(encoder, "encode_documents", lambda texts: asked_for.append(len(texts)) or encode(texts))
    store = RevelaVectorStore(tmp_path / "index", model=encoder)
    store.add(nodes)
    assert sum(asked_for) <= 3 and len(store.index) == 120
    bare = RevelaVectorStore(tmp_path / "bare", model=encoder)
    bare.add(whole_nodes())
    assert asked(store, k=1).similarities == pytest.approx(asked(bare, k=1).similarities, abs=1e-5)


def test_vectors_of_another_model_are_refused(store, encoder, other_model_path):
    other = RevelaEmbedding(other_model_path, device="cpu")
    before = asked(store, k=9).ids
    with pytest.raises(IndexMismatchError, match=r"n-cache.py.*store.embed_model\(\)"):
        store.add(embedded(whole_nodes(), other))
    with pytest.raises(IndexMismatchError, match=r"length 3.* has 32"):
        store.add([TextNode(id_="short", text="x", embedding=[1.0, 0.0, 0.0])])
    changed = embedded([TextNode(id_="changed", text="before")], store.embed_model())
    changed[0].text = "something else by now"
    with pytest.raises(IndexMismatchError, match="changed since"):
        store.add(changed)
    for mode in ("default", "hybrid", "mmr"):
        with pytest.raises(IndexMismatchError, match=other.fingerprint[:12]):
            asked(store, mode=mode, query_embedding=other.get_query_embedding(QUERY))
        with pytest.raises(IndexMismatchError, match="another model made it"):
            asked(store, mode=mode, query_embedding=list(other.get_query_embedding(QUERY)))
    with pytest.raises(IndexMismatchError, match=other.fingerprint[:12]):
        RevelaRetriever(store.index).retrieve(QueryBundle(QUERY, embedding=other.get_query_embedding(QUERY)))
    with pytest.raises(IndexMismatchError, match="length 3"):
        asked(store, query_embedding=[1.0, 0.0, 0.0])
    wrong = VectorStoreIndex.from_vector_store(store, embed_model=other)
    with pytest.raises(IndexMismatchError):
        wrong.as_retriever().retrieve(QUERY)
    with pytest.raises(IndexMismatchError):
        wrong.insert_nodes([TextNode(text="new")])
    with pytest.raises(IndexMismatchError):
        RevelaVectorStore(store.index.path, model=other)
    assert asked(store, k=9).ids == before and len(store.index) == 6


def test_vectors_that_are_no_embedding_of_the_text(store, encoder):
    own = store.embed_model()
    plain = list(own.get_query_embedding(QUERY))
    assert asked(store, query_embedding=plain).ids == asked(store).ids  # the same model by another way
    liked = encoder.encode_documents([node_text("tax.md")])[0].tolist()
    assert asked(store, None, k=1, query_embedding=liked).ids == ["n-tax.md"]
    marked = ModelVector(liked, own.fingerprint)
    assert asked(store, k=1, query_embedding=marked).ids == ["n-tax.md"]
    for copied in (pickle.loads(pickle.dumps(marked)), own.get_agg_embedding_from_queries(["a", "b"])):  # noqa: S301
        assert copied.fingerprint == own.fingerprint and np.shape(copied) == (32,)


async def test_hyde_searches_by_what_it_made_up(store):
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model())
    bundle = QueryBundle(query_str="zzz", custom_embedding_strs=[TEXTS["tax.md"]])
    expected = asked(store, TEXTS["tax.md"], k=3)
    for found in (
        index.as_retriever(similarity_top_k=3).retrieve(bundle),
        await index.as_retriever(similarity_top_k=3).aretrieve(
            QueryBundle(query_str="zzz", custom_embedding_strs=[TEXTS["tax.md"]])
        ),
    ):
        assert [node.node_id for node in found] == expected.ids


# -- across processes, threads and copies ----------------------------------------------------------------------


def test_it_is_serialised_as_a_path(store, no_pickle):
    data = json.loads(store.to_json())
    assert data == {
        "class_name": "RevelaVectorStore",
        "index": str(store.index.path),
        "stores_text": True,
        "is_embedding_query": True,
    }
    again = RevelaVectorStore.from_dict(data)
    assert asked(again, k=9).ids == asked(store, k=9).ids and again.index is not store.index
    assert RevelaVectorStore.model_json_schema()["properties"]["index"]["type"] == "string"
    again.add([TextNode(id_="late", text="seen by the other")])
    assert len(store.get_nodes(["late"])) == 1


async def test_async_gives_the_same_and_leaves_the_loop_free(store, monkeypatch):
    query = VectorStoreQuery(query_str=QUERY, similarity_top_k=3)
    assert (await store.aquery(query)).ids == store.query(query).ids
    assert await store.async_add([TextNode(id_="new", text="new")]) == ["new"]
    assert [node.node_id for node in await store.aget_nodes(["new"])] == ["new"]
    await store.adelete_nodes(["new"])
    await store.adelete("tax.md")
    assert len(store.index) == 5
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model())
    main, seen = threading.get_ident(), []
    search = store.index.search
    monkeypatch.setattr(store.index, "search", lambda *a, **k: seen.append(threading.get_ident()) or search(*a, **k))
    await asyncio.gather(*(index.as_retriever().aretrieve(QUERY) for _ in range(3)))
    assert len(seen) == 3 and main not in seen
    await store.aclear()
    assert len(store.index) == 0


def test_an_index_made_by_others_is_found(model_path, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "rules.md").write_text("# Leave\n\nEvery employee has thirty days of paid leave in a year.\n")
    index = Index.from_source(folder, path=tmp_path / "index", encoder=Encoder(model_path, device="cpu"))
    store = RevelaVectorStore(index)
    (node,) = asked(store, "leave", mode="hybrid").nodes
    (expected,) = RevelaRetriever(index).retrieve("leave")
    assert node.to_dict() == expected.node.to_dict() and node.metadata["source"] == "rules.md"
    store.delete("rules.md")
    assert len(store.index) == 0
