from __future__ import annotations

import asyncio
import copy
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from integration_data import PROMPTS, TEXTS
from llama_index.core import Document, SimpleDirectoryReader, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from llama_index.embeddings.revela import RevelaEmbedding
from llama_index.retrievers.revela import RevelaRetriever
from revela_rag.corpus import iter_documents, load_corpus
from revela_rag.errors import IndexingError, IndexMismatchError, ModelError
from revela_rag.index import Index, SyncReport

QUERY = "when is the tax due?"


@pytest.fixture(scope="module")
def embedding(model_path):
    return RevelaEmbedding(model_path, device="cpu")


def by_hand(plain, texts: list[str], role: str) -> np.ndarray:
    return plain.encode([PROMPTS[role] + text for text in texts], normalize_embeddings=True)


def equal(**values) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value) for key, value in values.items()])


def asked(key, operator, value=None) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def test_prompts_are_applied_to_both_roles(embedding, plain):
    texts = list(TEXTS.values())
    expected = by_hand(plain, texts, "document")
    np.testing.assert_allclose(embedding.get_text_embedding_batch(texts), expected, atol=1e-5)
    np.testing.assert_allclose(embedding.get_text_embedding(texts[0]), expected[0], atol=1e-5)
    np.testing.assert_allclose(embedding.get_query_embedding(QUERY), by_hand(plain, [QUERY], "query")[0], atol=1e-5)


async def test_async_equals_sync_and_leaves_the_loop(embedding, monkeypatch):
    threads = []
    encode = embedding.encoder.encode_documents
    monkeypatch.setattr(
        embedding.encoder,
        "encode_documents",
        lambda texts: threads.append(threading.get_ident()) or encode(texts),
    )
    texts = list(TEXTS.values())
    batch = await embedding.aget_text_embedding_batch(texts)
    one = await embedding.aget_text_embedding(texts[0])
    assert threads and threading.get_ident() not in threads
    np.testing.assert_allclose(batch, embedding.get_text_embedding_batch(texts), atol=1e-5)
    np.testing.assert_allclose(one, embedding.get_text_embedding(texts[0]), atol=1e-5)
    np.testing.assert_allclose(
        await embedding.aget_query_embedding(QUERY), embedding.get_query_embedding(QUERY), atol=1e-5
    )


def test_it_is_serialised_and_read_back(embedding):
    data = embedding.to_dict()
    assert data["class_name"] == "RevelaEmbedding"
    assert data["fingerprint"] == embedding.encoder.fingerprint
    assert "trust_remote_code" not in data
    again = RevelaEmbedding.from_json(embedding.to_json())
    assert again.to_dict() == data
    assert again.get_query_embedding(QUERY) == embedding.get_query_embedding(QUERY)


def test_it_names_a_relative_model_folder_in_full(model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(model_path).parent)
    data = RevelaEmbedding("model", device="cpu").to_dict()
    monkeypatch.chdir(tmp_path)
    assert data["model_name"] == model_path
    assert len(RevelaEmbedding.from_dict(data).get_query_embedding(QUERY)) == 32


def test_a_model_that_changed_since_is_refused(embedding, other_model_path):
    data = embedding.to_dict() | {"model_name": other_model_path}
    with pytest.raises(ModelError, match=embedding.fingerprint):
        RevelaEmbedding.from_dict(data)


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        RevelaEmbedding(tmp_path / "nowhere")


def test_a_copy_embeds_the_same(embedding):
    assert copy.deepcopy(embedding).get_query_embedding(QUERY) == embedding.get_query_embedding(QUERY)


@pytest.mark.parametrize("order", ["query first", "document first"])
def test_a_cache_keeps_queries_documents_and_models_apart(order, model_path, other_model_path):
    store = SimpleKVStore()
    cached = RevelaEmbedding(model_path, device="cpu", embeddings_cache=store)
    other = RevelaEmbedding(other_model_path, device="cpu", embeddings_cache=store)
    bare = RevelaEmbedding(model_path, device="cpu")
    for _ in range(2):
        if order == "query first":
            assert cached.get_query_embedding(QUERY) == bare.get_query_embedding(QUERY)
            assert cached.get_text_embedding(QUERY) == bare.get_text_embedding(QUERY)
        else:
            assert cached.get_text_embedding_batch([QUERY])[0] == bare.get_text_embedding(QUERY)
            assert cached.get_query_embedding(QUERY) == bare.get_query_embedding(QUERY)
        assert other.get_query_embedding(QUERY) != cached.get_query_embedding(QUERY)
    assert len(store.get_all("embeddings")) == 3


async def test_a_cache_is_read_by_the_async_methods(model_path, monkeypatch):
    cached = RevelaEmbedding(model_path, device="cpu", embeddings_cache=SimpleKVStore())
    vectors = cached.get_query_embedding(QUERY), cached.get_text_embedding(QUERY)
    monkeypatch.setattr(cached, "_encoder", None)
    assert await cached.aget_query_embedding(QUERY) == vectors[0]
    assert await cached.aget_text_embedding(QUERY) == vectors[1]
    assert await cached.aget_text_embedding_batch([QUERY]) == [vectors[1]]


def test_vector_store_index_round_trip(embedding, plain, tmp_path):
    documents = [Document(text=text, id_=source) for source, text in TEXTS.items()]
    built = VectorStoreIndex.from_documents(documents, embed_model=embedding)
    built.storage_context.persist(tmp_path)
    loaded = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=embedding)
    nodes = loaded.as_retriever(similarity_top_k=3).retrieve(QUERY)
    query = by_hand(plain, [QUERY], "query")[0]
    cosines = by_hand(plain, [TEXTS[node.node.ref_doc_id] for node in nodes], "document") @ query
    assert len(nodes) == 3
    np.testing.assert_allclose([node.score for node in nodes], cosines, atol=1e-4)


def pipeline(embedding, cache: IngestionCache | None = None) -> IngestionPipeline:
    return IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=32, chunk_overlap=4), embedding],
        cache=cache or IngestionCache(),
    )


async def test_ingestion_pipeline(embedding):
    document = Document(text=" ".join(TEXTS.values()))
    nodes = pipeline(embedding).run(documents=[document])
    assert len(nodes) > 1
    np.testing.assert_allclose(
        nodes[0].embedding, embedding.get_text_embedding(nodes[0].get_content("embed")), atol=1e-5
    )
    again = await pipeline(embedding).arun(documents=[document])
    np.testing.assert_allclose([n.embedding for n in again], [n.embedding for n in nodes], atol=1e-5)


def test_pipeline_cache_misses_when_the_model_changes_behind_its_name(embedding, other_model_path, tmp_path):
    """Same name, other weights: without the fingerprint among the fields the old vectors would come back."""
    cache = IngestionCache()
    document = Document(text=TEXTS["tax.md"], id_="tax")
    before = pipeline(embedding, cache).run(documents=[document])
    other = RevelaEmbedding(other_model_path, device="cpu")
    other.model_name = embedding.model_name
    after = pipeline(other, cache).run(documents=[document])
    assert after[0].embedding != before[0].embedding


def test_documents_read_again_are_the_same_and_cite_their_file(encoder, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text)

    def chunks():
        return load_corpus(SimpleDirectoryReader(folder).load_data()).chunks

    with Index.build(chunks(), encoder=encoder, path=tmp_path / "index") as index:
        assert index.sync(chunks()) == SyncReport(unchanged=len(TEXTS))
        (node,) = RevelaRetriever(index, similarity_top_k=1, mode="lexical").retrieve("tax")
    assert node.metadata["source"] == node.node.ref_doc_id == str(folder / "tax.md")


def test_only_random_ids_give_way_to_the_file():
    text = "Some words of it."
    pages = [Document(text=text, metadata={"file_path": "a.pdf", "page_label": page}) for page in ("iv", "1", "1")]
    parts = [TextNode(text=text, metadata={"file_path": "b.md", "source": "wiki"}) for _ in range(2)]
    origin = Document(text=text, id_="handbook")
    cut = SentenceSplitter().get_nodes_from_documents([origin, Document(text=text, metadata={"file_name": "c.md"})])
    own = [
        Document(text=text, id_="mine", metadata={"file_path": "d.md"}),
        Document(text=text, id_=str(uuid.uuid5(uuid.NAMESPACE_URL, "x")), metadata={"file_path": "d.md"}),
        Document(text=text),
    ]
    found = list(iter_documents([*pages, *parts, *cut, *own]))
    assert [document.id for document in found] == [
        *("a.pdf#page=iv", "a.pdf#page=1", "a.pdf#page=1", "b.md", "b.md", "handbook", "c.md"),
        *(document.id_ for document in own),
    ]
    sources = [document.metadata.get("source") for document in found]
    assert sources == ["a.pdf"] * 3 + ["wiki"] * 2 + ["handbook", "c.md", None, None, None]


def test_nodes_equal_the_hits_of_the_index(index):
    nodes = RevelaRetriever(index, similarity_top_k=4).retrieve(QUERY)
    hits = index.search(QUERY, k=4)
    assert [node.node_id for node in nodes] == [hit.chunk.id for hit in hits]
    assert [node.score for node in nodes] == [hit.cosine for hit in hits]
    assert nodes[0].text == hits[0].chunk.text
    assert nodes[0].node.ref_doc_id == nodes[0].metadata["source"] == hits[0].chunk.document_id
    assert nodes[0].metadata["lines"] == 3
    assert isinstance(nodes[0].node, TextNode)


def test_filters_come_before_the_best_k(index):
    for source in TEXTS:
        found = RevelaRetriever(index, similarity_top_k=1, filters=equal(source=source, lines=3)).retrieve(QUERY)
        assert [node.metadata["source"] for node in found] == [source]
    nested = MetadataFilters(filters=[equal(team="platform"), MetadataFilter(key="source", value="cache.py")])
    assert len(RevelaRetriever(index, filters=nested).retrieve(QUERY)) == 1
    either = MetadataFilters(filters=[MetadataFilter(key="source", value=["tax.md", "cache.py"], operator="in")])
    found = RevelaRetriever(index, filters=either).retrieve(QUERY)
    assert {node.metadata["source"] for node in found} == {"tax.md", "cache.py"}


def test_metadata_of_the_user_wins_and_lists_are_asked_for_by_value(encoder, tmp_path):
    own = {"kind": "invoice", "document_id": "42", "title": "Inv", "tags": ["a", "b"], "source": "erp"}
    documents = [
        Document(text="An invoice.", id_="one", metadata=own),
        Document(text="Trains.", metadata={"tags": "c"}),
    ]
    with Index.build(load_corpus(documents).chunks, encoder=encoder, path=tmp_path / "index") as index:
        for operator, value in (("==", "b"), ("contains", "b"), ("in", ["b", "x"]), ("any", ["a", "b"])):
            filters = MetadataFilters(filters=[MetadataFilter(key="tags", value=value, operator=operator)])
            (node,) = RevelaRetriever(index, filters=filters).retrieve("x")
            assert node.metadata == node.metadata | own and node.node.ref_doc_id == "one"
        assert len(RevelaRetriever(index, filters=equal(kind="invoice", document_id="42")).retrieve("x")) == 1


OWN = [
    {"team": "hr", "year": 2021, "tags": ["leave", "money"], "note": "Ask the manager"},
    {"team": "it", "year": 2023, "tags": ["money"], "note": ""},
    {"team": "hr", "tags": [], "note": "ask nobody"},
    {"year": 2019, "price": 1.5},
]
ANY_OR_ALL = (FilterOperator.ANY, FilterOperator.ALL)
VALUES = {"team": "hr", "year": 2021, "price": 1.5, "note": "ask", "tags": "money", "nowhere": "x"}


@pytest.fixture(scope="module")
def noted(encoder, tmp_path_factory):
    documents = [Document(text=f"Text number {n}.", id_=f"d{n}", metadata=own) for n, own in enumerate(OWN)]
    with Index.build(load_corpus(documents).chunks, encoder=encoder, path=tmp_path_factory.mktemp("own")) as index:
        yield index


def found_by(index, filters) -> set[str]:
    found = RevelaRetriever(index, similarity_top_k=9, filters=filters).retrieve("text")
    return {node.node.ref_doc_id for node in found}


def blind_to_case(id_: str) -> dict:
    return {key: value.lower() if isinstance(value, str) else value for key, value in OWN[int(id_[1])].items()}


@pytest.mark.parametrize("operator", list(FilterOperator))
@pytest.mark.parametrize("key", VALUES)
def test_every_operator_means_what_it_means_in_llama_index(noted, operator, key):
    value = VALUES[key]
    given = None if operator is FilterOperator.IS_EMPTY else value
    if operator in (FilterOperator.IN, FilterOperator.NIN, *ANY_OR_ALL):
        given = [value, value]
    filters = asked(key, operator, given)
    try:
        says = build_metadata_filter_fn(blind_to_case, filters)
        expected = {id_ for id_ in ("d0", "d1", "d2", "d3") if says(id_)}
    except TypeError:  # LlamaIndex compares a text with a number; an index never does
        found_by(noted, filters)
        return
    if key == "tags" and operator in (FilterOperator.EQ, FilterOperator.IN):
        expected = {"d0", "d1"}  # a list equals each of its values
    elif key == "tags" and operator in (FilterOperator.NE, FilterOperator.NIN):
        expected = {"d2", "d3"}
    assert found_by(noted, filters) == expected


@pytest.mark.parametrize(
    ("condition", "expected"), [("and", {"d0"}), ("or", {"d0", "d2", "d3"}), ("not", {"d1"}), (None, {"d0"})]
)
def test_every_condition_and_nesting(noted, condition, expected):
    hr, old = asked("team", "==", "hr").filters[0], asked("year", "<", 2022).filters[0]
    assert found_by(noted, MetadataFilters(filters=[hr, old], condition=condition)) == expected
    each = [MetadataFilters(filters=[hr]), MetadataFilters(filters=[old])]
    nested = MetadataFilters(filters=each, condition=condition)
    assert found_by(noted, nested) == expected
    deeper = MetadataFilters(filters=[nested, asked("price", "==", 1.5)], condition="or")
    assert found_by(noted, deeper) == expected | {"d3"}
    assert found_by(noted, MetadataFilters(filters=[], condition=condition)) == {"d0", "d1", "d2", "d3"}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (equal(lines=[2]), r"'lines' == \[2\]"),
        (equal(lines=None), "'lines' == None"),
        (asked("lines", ">", [2]), "> takes one value"),
        (asked("tags", "in", "a"), "in takes a list"),
        (asked("tags", "any", "a"), "any takes a list"),
        (asked("tags", "all", []), "all takes a list"),
        (MetadataFilters(filters=[asked("$tags", "==", "a")], condition="or"), "no operator"),
    ],
)
def test_a_filter_an_index_cannot_answer_is_refused(faiss_index, filters, message):
    with pytest.raises(IndexingError, match=message):
        RevelaRetriever(faiss_index, filters=filters)


def test_what_is_set_later_counts(faiss_index):
    retriever = RevelaRetriever(faiss_index, similarity_top_k=6)
    retriever.filters = equal(team="platform")
    assert {node.metadata["source"] for node in retriever.retrieve(QUERY)} == {"cache.py", "retry.py"}
    retriever.filters.filters.append(MetadataFilter(key="source", value="retry.py"))
    assert [node.metadata["source"] for node in retriever.retrieve(QUERY)] == ["retry.py"]
    before = retriever.filters
    with pytest.raises(IndexingError, match="in takes a list"):
        retriever.filters = asked("a", "in", "b")
    assert retriever.filters is before
    retriever.filters, retriever.similarity_top_k, retriever.mode = None, 2, "lexical"
    assert [node.node_id for node in retriever.retrieve("password leave")] == [
        hit.chunk.id for hit in faiss_index.search("password leave", k=2, mode="lexical")
    ]
    for setting, value, message in (
        ("mode", "mmr", "mmr"),
        ("similarity_top_k", 0, "similarity_top_k=0"),
        ("similarity_top_k", None, "similarity_top_k=None"),
        ("filters", equal(lines=float("nan")), "lines"),
    ):
        with pytest.raises(IndexingError, match=message):
            setattr(retriever, setting, value)
    assert (retriever.mode, retriever.similarity_top_k, retriever.filters) == ("lexical", 2, None)


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_modes(index, mode):
    nodes = RevelaRetriever(index, similarity_top_k=3, mode=mode).retrieve("password")
    hits = index.search("password", k=3, mode=mode)
    assert [node.node_id for node in nodes] == [hit.chunk.id for hit in hits]


def test_an_embedding_the_query_brings_is_used(index):
    vector = index.encoder.encode_queries([QUERY])[0]
    retriever = RevelaRetriever(index, similarity_top_k=3, mode="dense")
    expected = [node.node_id for node in retriever.retrieve(QUERY)]
    brought = retriever.retrieve(QueryBundle("something else", embedding=(vector * 7).tolist()))
    hyde = retriever.retrieve(QueryBundle("something else", custom_embedding_strs=[QUERY, QUERY]))
    assert [node.node_id for node in brought] == [node.node_id for node in hyde] == expected
    assert brought[0].score == pytest.approx(retriever.retrieve(QUERY)[0].score, abs=1e-5)


def test_a_hypothetical_answer_counts_beside_the_words_of_the_query(index):
    hyde = QueryBundle("password", custom_embedding_strs=[QUERY])
    found = RevelaRetriever(index, similarity_top_k=3).retrieve(hyde)
    vector = index.encoder.encode_queries([QUERY])[0]
    hits = index.search("password", k=3, mode="hybrid", vector=vector)
    assert [(node.node_id, node.score) for node in found] == [(hit.chunk.id, pytest.approx(hit.cosine)) for hit in hits]
    words_alone = RevelaRetriever(index, similarity_top_k=3, mode="lexical")
    assert [node.node_id for node in words_alone.retrieve(hyde)] == [
        node.node_id for node in words_alone.retrieve("password")
    ]


async def test_many_queries_at_once_give_what_they_give_in_turn(index):
    retriever = RevelaRetriever(index, similarity_top_k=3)
    queries = [f"{text} {number}" for number, text in enumerate([*TEXTS.values()] * 4)][:20]
    at_once = await asyncio.gather(*(retriever.aretrieve(query) for query in queries))
    for query, nodes in zip(queries, at_once, strict=True):
        expected = retriever.retrieve(query)
        assert [node.node_id for node in nodes] == [node.node_id for node in expected]
        np.testing.assert_allclose([n.score for n in nodes], [n.score for n in expected], atol=1e-5)


async def test_async_search_leaves_the_loop(index, monkeypatch):
    threads = []
    search = type(index).search
    monkeypatch.setattr(
        type(index),
        "search",
        lambda *args, **kwargs: threads.append(threading.get_ident()) or search(*args, **kwargs),
    )
    assert await RevelaRetriever(index).aretrieve(QUERY)
    assert threads and threading.get_ident() not in threads


async def test_query_engine(index):
    engine = RetrieverQueryEngine.from_args(RevelaRetriever(index, similarity_top_k=2), llm=MockLLM())
    response = engine.query(QUERY)
    found = [hit.chunk for hit in index.search(QUERY, k=2)]
    assert [node.node_id for node in response.source_nodes] == [chunk.id for chunk in found]
    assert found[0].text in response.response and f"source: {found[0].document_id}" in response.response
    assert "lines: 3" in response.response and "document_id" not in response.response
    assert (await engine.aquery(QUERY)).response == response.response


def test_an_index_on_disk_is_opened_without_pickle(faiss_index, no_pickle):
    nodes = RevelaRetriever(faiss_index.path, similarity_top_k=2).retrieve(QUERY)
    assert [node.node_id for node in nodes] == [hit.chunk.id for hit in faiss_index.search(QUERY, k=2)]


def test_an_index_is_opened_as_told(faiss_index):
    retriever = RevelaRetriever(faiss_index.path, lock_timeout=0.05, auto_refresh=False)
    assert retriever.index.auto_refresh is False
    with FileLock(faiss_index.path / ".lock"), pytest.raises(IndexingError, match=r"0\.05 s"):
        retriever.index.delete(["x"])
    with pytest.raises(IndexingError, match="lock_timeout is for an index given as a directory"):
        RevelaRetriever(faiss_index, lock_timeout=1)


def test_bad_input_is_named(index, other_model_path, tmp_path):
    with pytest.raises(IndexMismatchError):
        RevelaRetriever(index.path, model=other_model_path)
    with pytest.raises(IndexingError, match="nothing-here"):
        RevelaRetriever(tmp_path / "nothing-here")
    with pytest.raises(IndexingError, match="similarity_top_k=0"):
        RevelaRetriever(index, similarity_top_k=0)
    with pytest.raises(IndexingError, match="mmr"):
        RevelaRetriever(index, mode="mmr")
    with pytest.raises(IndexingError, match="model is for an index given as a directory"):
        RevelaRetriever(index, model=other_model_path)
