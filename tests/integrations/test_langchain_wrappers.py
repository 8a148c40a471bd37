"""The vector store and the retrievers inside LangChain's own wrappers, where those are installed."""

from __future__ import annotations

import json

import pytest
from integration_data import TEXTS
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.language_models import FakeListLLM
from langchain_core.stores import InMemoryByteStore, InMemoryStore
from langchain_core.tools import create_retriever_tool

from langchain_revela import RevelaEmbeddings, RevelaRetriever, RevelaTranslator, RevelaVectorStore

QUERY = "how many days of leave"


@pytest.fixture
def store(encoder, tmp_path):
    made = RevelaVectorStore(tmp_path / "index", embedding=encoder)
    made.add_documents(
        [
            Document(id=name, page_content=text, metadata={"source": name, "words": len(text.split())})
            for name, text in TEXTS.items()
        ]
    )
    yield made
    made.index.close()


@pytest.fixture
def empty(encoder, tmp_path):
    made = RevelaVectorStore(tmp_path / "index", embedding=encoder)
    yield made
    made.index.close()


def test_ensemble(store):
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    parts = [store.as_retriever(search_type=name, search_kwargs={"k": 4}) for name in ("similarity", "hybrid")]
    parts.append(RevelaRetriever(index=store.index, k=4, search_type="lexical"))
    found = retrievers.EnsembleRetriever(retrievers=parts, weights=[0.3, 0.4, 0.3], id_key="source").invoke(QUERY)
    asked = {document.metadata["source"] for part in parts for document in part.invoke(QUERY)}
    assert {document.metadata["source"] for document in found} == asked and len(found) == len(asked)


async def test_parent_documents(empty):
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    splitters = pytest.importorskip("langchain_text_splitters")
    parents = [
        Document(page_content=f"{text} " * 8, metadata={"source": name, "year": 2020 + number})
        for number, (name, text) in enumerate(TEXTS.items())
    ]
    splitter = splitters.RecursiveCharacterTextSplitter(chunk_size=120, chunk_overlap=0)
    options = {"docstore": InMemoryStore(), "child_splitter": splitter, "search_kwargs": {"k": 30}}
    retriever = retrievers.ParentDocumentRetriever(vectorstore=empty, **options)
    retriever.add_documents(parents)
    assert len(empty) > len(parents)
    found = retriever.invoke(QUERY)
    assert set(TEXTS) >= {document.metadata["source"] for document in found} and all(one in parents for one in found)
    assert await retriever.ainvoke(QUERY) == found
    retriever.search_kwargs = {"k": 30, "filter": {"year": {"$lt": 2022}}}
    assert {document.metadata["year"] for document in retriever.invoke(QUERY)} == {2020, 2021}


def test_multi_vector(empty):
    module = pytest.importorskip("langchain_classic.retrievers.multi_vector")
    parents = {name: Document(page_content=text, metadata={"source": name}) for name, text in TEXTS.items()}
    empty.add_documents(
        [Document(page_content=f"What does {name} say?", metadata={"doc_id": name}) for name in parents]
        + [Document(page_content=one.page_content[:20], metadata={"doc_id": name}) for name, one in parents.items()]
    )
    retriever = module.MultiVectorRetriever(
        vectorstore=empty, byte_store=InMemoryByteStore(), id_key="doc_id", search_kwargs={"k": 12}
    )
    retriever.docstore.mset(list(parents.items()))
    for search_type in ("similarity", "mmr"):
        retriever.search_type = module.SearchType(search_type)
        found = retriever.invoke("What does tax.md say?")
        assert sorted(one.metadata["source"] for one in found) == sorted(parents)


class Shortest(BaseDocumentCompressor):
    def compress_documents(self, documents, query, callbacks=None):
        return sorted(documents, key=lambda document: len(document.page_content))[:1]


async def test_contextual_compression(store):
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    for base in (store.as_retriever(search_kwargs={"k": 6}), RevelaRetriever(index=store.index, k=6)):
        retriever = retrievers.ContextualCompressionRetriever(base_compressor=Shortest(), base_retriever=base)
        shortest = min(TEXTS.values(), key=len)
        assert [one.page_content for one in retriever.invoke(QUERY)] == [shortest]
        assert [one.page_content for one in await retriever.ainvoke(QUERY)] == [shortest]


def test_self_query(store):
    base = pytest.importorskip("langchain_classic.retrievers.self_query.base")
    pytest.importorskip("lark")
    from langchain_classic.chains.query_constructor.schema import AttributeInfo

    asked = {"query": "leave", "filter": 'or(eq("source", "TAX.md"), and(gt("words", 9), lte("words", 10)))'}
    answer = f"```json\n{json.dumps(asked)}\n```"
    fields = [AttributeInfo(name="source", description="The file.", type="string")]
    fields.append(AttributeInfo(name="words", description="How long it is.", type="integer"))
    retriever = base.SelfQueryRetriever.from_llm(
        FakeListLLM(responses=[answer]),
        store,
        "Rules of the firm",
        fields,
        structured_query_translator=RevelaTranslator(),
        search_kwargs={"k": 6},
    )
    expected = {name for name, text in TEXTS.items() if name == "tax.md" or 9 < len(text.split()) <= 10}
    assert {document.id for document in retriever.invoke("leave of ten words or taxes")} == expected and len(
        expected
    ) > 1
    for search_type in ("mmr", "hybrid"):
        retriever.search_type = search_type
        assert {document.id for document in retriever.invoke("leave")} == expected


async def test_retriever_tool(store):
    retriever = store.as_retriever(search_type="hybrid", search_kwargs={"k": 2})
    tool = create_retriever_tool(retriever, "rules", "Rules of the firm.", response_format="content_and_artifact")
    call = {"name": "rules", "args": {"query": "password"}, "id": "1", "type": "tool_call"}
    for message in (tool.invoke(call), await tool.ainvoke(call)):
        assert TEXTS["login.md"] in message.content and message.artifact == retriever.invoke("password")


def test_semantic_chunker(encoder):
    module = pytest.importorskip("langchain_experimental.text_splitter")
    text = " ".join(TEXTS[name] for name in ("tax.md", "leave.md", "travel.md", "login.md"))
    chunker = module.SemanticChunker(RevelaEmbeddings.from_encoder(encoder), number_of_chunks=2)
    pieces = chunker.create_documents([text], [{"source": "all"}])
    assert " ".join(piece.page_content for piece in pieces) == text and len(pieces) > 1
    assert all(piece.metadata == {"source": "all"} for piece in pieces)


def test_langchain_chroma_holds_our_vectors(encoder, tmp_path):
    chroma = pytest.importorskip("langchain_chroma")
    embeddings = RevelaEmbeddings.from_encoder(encoder)
    settings = {"collection_metadata": {"hnsw:space": "cosine"}, "persist_directory": str(tmp_path / "chroma")}
    store = chroma.Chroma.from_texts(
        list(TEXTS.values()), embeddings, [{"source": name} for name in TEXTS], ids=list(TEXTS), **settings
    )
    ours = RevelaVectorStore.from_texts(list(TEXTS.values()), embeddings, ids=list(TEXTS))
    theirs = [document.id for document in store.similarity_search(QUERY, k=6)]
    assert theirs == [document.id for document in ours.similarity_search(QUERY, k=6)]
    ours.index.close()
