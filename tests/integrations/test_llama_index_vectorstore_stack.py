"""What LlamaIndex builds on a vector store, over ours: indexes, pipelines, retrievers, other embeddings."""

from __future__ import annotations

import json

import pytest
from integration_data import TEXTS
from llama_data import QUERY, asked, context, filled, where, whole_nodes
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import CustomLLM, LLMMetadata
from llama_index.core.llms.mock import MockLLM
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter, get_leaf_nodes
from llama_index.core.postprocessor import PrevNextNodePostprocessor
from llama_index.core.retrievers import AutoMergingRetriever, VectorIndexAutoRetriever
from llama_index.core.schema import (
    IndexNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    VectorStoreInfo,
)

from llama_index.embeddings.revela import RevelaEmbedding
from llama_index.vector_stores.revela import RevelaVectorStore
from revela_rag.errors import IndexMismatchError


@pytest.fixture
def store(encoder, tmp_path):
    return filled(tmp_path, encoder)


def documents(*names: str) -> list[Document]:
    return [Document(id_=name, text=TEXTS[name], metadata={"name": name}) for name in names or TEXTS]


def test_vector_store_index(store, tmp_path):
    store.clear()
    own = store.embed_model()
    index = VectorStoreIndex.from_documents(documents(), storage_context=context(store), embed_model=own)
    assert len(store.index) == 6 and {node.ref_doc_id for node in store.get_nodes()} == set(TEXTS)
    retriever = index.as_retriever(
        similarity_top_k=2, vector_store_query_mode="hybrid", filters=where("name", "cache.py", "!=")
    )
    expected = [
        hit.chunk.document_id
        for hit in store.index.search(QUERY, k=2, mode="hybrid", filter={"name": {"$ne": "cache.py"}})
    ]
    assert [node.node.ref_doc_id for node in retriever.retrieve(QUERY)] == expected
    response = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query("tax")
    assert len(response.source_nodes) == 1

    changed = Document(id_="tax.md", text="Tax was abolished.", metadata={"name": "tax.md"})
    assert index.refresh_ref_docs([changed, *documents("leave.md")]) == [True, False]
    assert len(store.index) == 6 and asked(store, "abolished", mode="text_search").nodes[0].ref_doc_id == "tax.md"
    index.delete_ref_doc("leave.md", delete_from_docstore=True)
    assert {node.ref_doc_id for node in store.get_nodes()} == set(TEXTS) - {"leave.md"}
    (left,) = store.get_nodes(filters=where("name", "tax.md"))
    index.delete_nodes([left.node_id])
    assert len(store.index) == 4

    index.storage_context.persist(tmp_path / "storage")
    again = StorageContext.from_defaults(
        persist_dir=str(tmp_path / "storage"), vector_store=RevelaVectorStore.from_persist_path(store.index.path)
    )
    loaded = load_index_from_storage(again, embed_model=own)
    assert [n.node_id for n in loaded.as_retriever().retrieve(QUERY)] == [
        n.node_id for n in index.as_retriever().retrieve(QUERY)
    ]


def test_index_nodes_do_not_hide_the_texts_beside_them(store):
    own = store.embed_model()
    index = VectorStoreIndex.from_vector_store(store, embed_model=own)
    index.insert_nodes([IndexNode(id_="table", text="A table of prices.", index_id="prices")])
    found = {node.node_id: node.node for node in index.as_retriever(similarity_top_k=9).retrieve("prices")}
    assert set(found) == {"table", *(f"n-{name}" for name in TEXTS)}
    assert isinstance(found["table"], IndexNode) and found["table"].index_id == "prices"


def test_neighbours_and_parents_are_found(store):
    store.clear()
    text = " ".join(text for name, text in TEXTS.items() if name.endswith(".md"))
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[128, 20], chunk_overlap=0)
    every = parser.get_nodes_from_documents([Document(text=text, id_="book")])
    leaves = get_leaf_nodes(every)
    whole = context(store)
    whole.docstore.add_documents(every)
    index = VectorStoreIndex(leaves, storage_context=whole, embed_model=store.embed_model())
    retriever = index.as_retriever(similarity_top_k=len(leaves))
    merged = AutoMergingRetriever(retriever, whole).retrieve(QUERY)
    assert [node.node_id for node in merged] == [node.node_id for node in every if node.child_nodes]
    (found,) = index.as_retriever(similarity_top_k=1, vector_store_query_mode="text_search").retrieve(
        "flights approval"
    )
    leaf = next(leaf for leaf in leaves if leaf.node_id == found.node_id)
    neighbours = [leaf.prev_node, leaf, leaf.next_node]
    around = PrevNextNodePostprocessor(docstore=whole.docstore, num_nodes=1, mode="both").postprocess_nodes([found])
    assert [node.node_id for node in around] == [node.node_id for node in neighbours if node] and len(around) > 1


@pytest.mark.parametrize("run", ["run", "arun"])
async def test_ingestion_pipeline_with_upserts(store, run):
    store.clear()
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=32, chunk_overlap=0), store.embed_model()],
        docstore=SimpleDocumentStore(),
        docstore_strategy="upserts_and_delete",
        vector_store=store,
    )

    async def ingest(given):
        done = getattr(pipeline, run)(documents=given)
        return len(await done if run == "arun" else done)

    assert await ingest(documents()) >= 6
    count = len(store.index)
    assert await ingest(documents()) == 0 and len(store.index) == count
    changed = Document(id_="tax.md", text="Tax was abolished.", metadata={"name": "tax.md"})
    assert await ingest([changed, *documents("leave.md", "cache.py")]) == 1
    assert {node.ref_doc_id for node in store.get_nodes()} == {"tax.md", "leave.md", "cache.py"}
    assert asked(store, "abolished due tenth", mode="text_search", k=9).nodes[0].text == "Tax was abolished."


@pytest.mark.slow
def test_ingestion_pipeline_with_workers(model_path, tmp_path):
    store = RevelaVectorStore(tmp_path / "index", model=RevelaEmbedding(model_path, device="cpu"))
    pipeline = IngestionPipeline(transformations=[RevelaEmbedding(model_path, device="cpu")], vector_store=store)
    assert len(pipeline.run(documents=documents(), num_workers=2)) == len(store.index) == 6


class Scripted(CustomLLM):
    """Says one thing."""

    answer: str

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt, formatted=False, **kwargs):
        from llama_index.core.llms import CompletionResponse

        return CompletionResponse(text=self.answer)

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def test_auto_retriever_filters(store):
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model())
    team = {"name": "team", "type": "str", "description": "which"}
    info = VectorStoreInfo(content_info="rules", metadata_info=[team])

    def found(spec, **options):
        llm = Scripted(answer=json.dumps(spec))
        retriever = VectorIndexAutoRetriever(index, vector_store_info=info, llm=llm, similarity_top_k=9, **options)
        return {node.node_id for node in retriever.retrieve("what of it?")}

    people = {"key": "team", "operator": "==", "value": "people"}
    few = {"key": "words", "operator": "<", "value": 11}
    expected = {n.node_id for n in whole_nodes() if n.metadata["team"] == "people" and n.metadata["words"] < 11}
    for query in ("leave", ""):
        assert found({"query": query, "filters": [people, few], "top_k": 9}) == expected and expected
    assert len(found({"query": "leave", "filters": [people]}, vector_store_query_mode="hybrid")) == 4


def test_any_embedding_of_llama_index_can_build_one(tmp_path):
    def made():
        return RevelaVectorStore(tmp_path / "index", model=Counting(embed_dim=4))

    store = made()
    index = VectorStoreIndex(whole_nodes(), storage_context=context(store), embed_model=store.embed_model())
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("Value added tax is due on the tenth day of the month.")
    assert found.node_id in {f"n-{name}" for name in TEXTS} and found.score > 0.9
    assert len(made().index) == 6
    with pytest.raises(IndexMismatchError):
        RevelaVectorStore(tmp_path / "index", model=Counting(embed_dim=5))


class Counting(MockEmbedding):
    """Counts some letters."""

    def _get_vector(self, text: str) -> list[float]:
        return [1.0 + text.lower().count(letter) for letter in "aeiou"[: self.embed_dim]]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_vector(query)
