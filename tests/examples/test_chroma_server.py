"""A Chroma server on this machine, through LangChain's and LlamaIndex' own integrations, hybrid fused by us."""

from __future__ import annotations

import runpy
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

chromadb = pytest.importorskip("chromadb")
pytest.importorskip("langchain_chroma")

from revela_rag import Encoder, Index  # noqa: E402
from revela_rag.corpus import Chunk  # noqa: E402
from revela_rag.fusion import fused_scores  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "chroma_server.py"
MODEL = "all-MiniLM-L6-v2"
TEXTS = {
    "leave": "Every employee has thirty days of paid holiday in a year.",
    "login": "A forgotten password is reset by the link on the login page.",
    "trains": "Train tickets are booked by the office; flights need an approval.",
    "codes": "Error XJ-4711 means that the disk of the printer is full.",
}
QUESTIONS = ("How do I get a new password?", "XJ-4711", "how many days off do I have?")
COSINE = {"hnsw": {"space": "cosine"}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Of a server that ends with the tests."""
    beside = Path(sys.executable).parent / "chroma"
    program = str(beside) if beside.exists() else shutil.which("chroma")
    if program is None:
        pytest.skip("there is no program chroma")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    command = [program, "run", "--path", str(tmp_path_factory.mktemp("server")), "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--port", str(number)], **quiet) as server:
        try:
            for _ in range(300):
                assert server.poll() is None, "the server ended"
                try:
                    socket.create_connection(("127.0.0.1", number), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                pytest.fail("the server did not answer within 30 seconds")
            yield number
        finally:
            server.terminate()


@pytest.fixture
def client(port):
    return chromadb.HttpClient("127.0.0.1", port, settings=chromadb.Settings(anonymized_telemetry=False))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(MODEL, device="cpu")


@pytest.fixture(scope="module")
def hybrid():
    return runpy.run_path(str(EXAMPLE))["HybridSearch"]


def test_the_example(port, tmp_path, monkeypatch, capsys):
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.md").write_text(text)
    monkeypatch.setattr(sys, "argv", ["chroma_server.py", str(tmp_path), QUESTIONS[0], "--port", str(port)])
    for _ in range(2):  # the second time everything is there
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and "login.md" in lines[0]


def test_through_langchain(client, encoder, hybrid, tmp_path):
    from langchain_chroma import Chroma

    from langchain_revela import RevelaEmbeddings

    embeddings = RevelaEmbeddings.from_encoder(encoder)
    store = Chroma("langchain", embeddings, client=client, collection_configuration=COSINE)
    metadatas = [{"long": len(text) > 60} for text in TEXTS.values()]
    store.add_texts(list(TEXTS.values()), metadatas, ids=list(TEXTS))
    search = hybrid(client.get_collection("langchain"))
    chunks = [Chunk(id=name, text=text, document_id=name) for name, text in TEXTS.items()]
    vectors = encoder.encode_documents(list(TEXTS.values()))
    with Index.build(chunks, encoder=encoder, path=tmp_path / "index") as index:
        for question in QUESTIONS:
            vector = embeddings.embed_query(question)
            found = store.similarity_search_by_vector_with_relevance_scores(vector, k=4)
            hits = index.search(question, k=4, mode="dense")
            assert [document.id for document, _ in found] == [hit.chunk.id for hit in hits]
            assert [1 - distance for _, distance in found] == pytest.approx([hit.score for hit in hits], abs=1e-4)
            ranked = search.search(question, vector, k=4)
            expected = fused_scores(vectors @ vector, search.words.scores(question), cosine_step=search.step)
            assert dict(ranked) == pytest.approx(dict(zip(TEXTS, expected, strict=True)), rel=1e-2)
            assert ranked[0][0] == index.search(question, k=1, mode="hybrid")[0].chunk.id
    only = search.search("XJ-4711", embeddings.embed_query("XJ-4711"), where={"long": True})
    assert {id_ for id_, _ in only} == {name for name, text in TEXTS.items() if len(text) > 60}
    store.delete(["login"])
    assert "login" not in dict(search.search(QUESTIONS[0], embeddings.embed_query(QUESTIONS[0]), k=4))


def test_through_llama_index(client, encoder, hybrid):
    chroma = pytest.importorskip("llama_index.vector_stores.chroma")
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode

    from llama_index.embeddings.revela import RevelaEmbedding

    collection = client.create_collection("llama", configuration=COSINE)
    embedding = RevelaEmbedding.from_encoder(encoder)
    context = StorageContext.from_defaults(vector_store=chroma.ChromaVectorStore(chroma_collection=collection))
    nodes = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=embedding)
    vectors = encoder.encode_documents(list(TEXTS.values()))
    search = hybrid(collection)
    for question in QUESTIONS:
        vector = embedding.get_query_embedding(question)
        best = list(TEXTS)[int(np.argmax(vectors @ np.array(vector)))]
        assert index.as_retriever(similarity_top_k=1).retrieve(question)[0].node_id == best
        expected = fused_scores(vectors @ vector, search.words.scores(question), cosine_step=search.step)
        ranked = dict(search.search(question, vector, k=4))
        assert ranked == pytest.approx(dict(zip(TEXTS, expected, strict=True)), rel=1e-2)
