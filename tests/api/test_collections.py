"""A Chroma collection is mapped beside itself, verified, swapped, and swapped back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from revela_rag import Encoder
from revela_rag.api import StoredVectors, map_collection, read_vectors
from revela_rag.api.maps import EmbeddingMap
from revela_rag.api.stores import check_base
from revela_rag.api.vectors import ApiVectors
from revela_rag.errors import EmbeddingError, IndexingError, IndexMismatchError

from .support import Server

chromadb = pytest.importorskip("chromadb")

TEXTS = [f"entry {number} about {word}" for number, word in enumerate(["owls", "boats", "taxes", "rivers"] * 30)]


@pytest.fixture
def client(tmp_path: Path):
    from revela_rag.index.stores.chroma_safety import settings

    with_files = chromadb.PersistentClient(str(tmp_path / "db"), settings=settings())
    yield with_files
    with_files.close()


@pytest.fixture(autouse=True)
def no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma embeds nothing."""
    functions = pytest.importorskip("chromadb.utils.embedding_functions")

    def refuse(self: Any, input: Any) -> Any:
        pytest.fail("Chroma embedded something")

    monkeypatch.setattr(functions.DefaultEmbeddingFunction, "__call__", refuse)


@pytest.fixture
def encoder(server: Server, tmp_path: Path) -> Any:
    weight = (np.eye(16) + np.random.default_rng(0).standard_normal((16, 16)) / 8).astype(np.float32)
    known = ApiVectors(server.embeddings(), cache=False).known
    (tmp_path / "map").mkdir()
    EmbeddingMap("words", known, {"query": "", "document": ""}, 1.0, weight, None).write(tmp_path / "map")
    return Encoder.over(server.embeddings(), tmp_path / "map", cache=False)


def fill(client: Any, server: Server, name: str = "docs", **options: Any) -> Any:
    collection = client.create_collection(name, **options)
    ids = [f"id-{number}" for number in range(len(TEXTS))]
    metadatas = [{"source": f"file-{number // 10}.md", "number": number} for number in range(len(TEXTS))]
    collection.add(ids=ids, embeddings=3 * np.array(server(TEXTS)), documents=TEXTS, metadatas=metadatas)
    return collection


def everything(collection: Any) -> dict[str, Any]:
    found = collection.get(include=["documents", "embeddings", "metadatas"])
    rows = zip(found["documents"], found["metadatas"], np.asarray(found["embeddings"]), strict=True)
    return dict(zip(found["ids"], rows, strict=True))


@pytest.mark.parametrize("space", ["cosine", "l2", "ip"])
def test_a_collection_is_mapped_and_swapped(space: str, client: Any, server: Server, encoder: Encoder) -> None:
    old = fill(client, server, configuration={"hnsw": {"space": space, "ef_search": 77}}, metadata={"owner": "me"})
    before, calls = everything(old), len(server.calls)
    made = map_collection(client, "docs", encoder)
    assert len(server.calls) == calls, "nothing is embedded"
    assert (made.count, made.found) == (len(TEXTS), 1.0)
    assert everything(client.get_collection("docs"))["id-7"][0] == TEXTS[7], "the old one has its name still"
    new = client.get_collection("docs-adapted")
    assert [new.configuration_json["hnsw"][option] for option in ("space", "ef_search")] == [space, 77]
    assert new.metadata == {"owner": "me", "revela:fingerprint": encoder.fingerprint}
    after = everything(new)
    assert {id_: row[:2] for id_, row in after.items()} == {id_: row[:2] for id_, row in before.items()}
    expected = dict(zip(TEXTS, encoder.encode_documents(TEXTS), strict=True))
    for text, _, vector in after.values():
        np.testing.assert_allclose(vector, expected[text], atol=1e-5)

    with pytest.raises(IndexingError, match=r"swap\(\) first"):
        made.drop_old()
    made.swap()
    query = encoder.encode_queries(["entry 41 about boats"])
    assert client.get_collection("docs").query(query_embeddings=query, n_results=1)["ids"] == [["id-41"]]
    assert everything(client.get_collection("docs-before")).keys() == before.keys()
    made.undo()
    np.testing.assert_allclose(everything(client.get_collection("docs"))["id-3"][2], before["id-3"][2])
    made.swap()
    made.drop_old()
    assert {c.name for c in client.list_collections()} == {"docs"}
    with pytest.raises(IndexMismatchError, match="mapped already"):
        map_collection(client, "docs", encoder)


def test_entries_without_texts_or_metadata_go_along(client: Any, server: Server, encoder: Encoder) -> None:
    client.create_collection("docs", embedding_function=None).add(ids=["a", "b"], embeddings=server(["x", "y"]))
    made = map_collection(client, "docs", encoder, new_name="other", kept_name="kept")
    made.swap()
    assert client.get_collection("docs").count() == 2
    assert {c.name for c in client.list_collections()} == {"docs", "kept"}


def test_what_is_written_meanwhile_is_not_lost(client: Any, server: Server, encoder: Encoder) -> None:
    old = fill(client, server)
    made = map_collection(client, "docs", encoder)
    old.add(ids=["late"], embeddings=server(["late"]), documents=["late"])
    with pytest.raises(IndexingError, match=r"121 entries instead of 120.*map again"):
        made.swap()
    assert client.get_collection("docs").count() == 121


def test_a_failure_leaves_the_old_one_alone(
    client: Any, server: Server, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(fill(client, server))
    right = encoder.mapped
    monkeypatch.setattr(encoder, "mapped", lambda vectors: np.nan * right(vectors))
    with pytest.raises(Exception):  # noqa: B017 - whatever Chroma raises
        map_collection(client, "docs", encoder)
    calls: list[int] = []

    def changing(vectors: np.ndarray) -> np.ndarray:
        calls.append(1)
        return np.roll(right(vectors), len(calls), axis=1)

    monkeypatch.setattr(encoder, "mapped", changing)
    with pytest.raises(IndexingError, match="does not hold what was written"):
        map_collection(client, "docs", encoder)
    assert [c.name for c in client.list_collections()] == ["docs"]
    after = everything(client.get_collection("docs"))
    assert all((after[id_][2] == before[id_][2]).all() for id_ in before)


def test_what_cannot_be_mapped_is_refused(client: Any, server: Server, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="no collection 'docs'"):
        map_collection(client, "docs", encoder)
    client.create_collection("empty")
    with pytest.raises(IndexingError, match="is empty"):
        map_collection(client, "empty", encoder)
    client.create_collection("long").add(ids=["a"], embeddings=[[1.0] * 24])
    with pytest.raises(IndexMismatchError, match="length 24"):
        map_collection(client, "long", encoder)
    fill(client, server)
    client.create_collection("docs-before")
    with pytest.raises(IndexingError, match="'docs-before' already"):
        map_collection(client, "docs", encoder)
    with pytest.raises(IndexMismatchError, match=r"Encoder\.over"):
        map_collection(client, "docs", server)  # type: ignore[arg-type]
    assert {c.name for c in client.list_collections()} == {"docs", "docs-before", "empty", "long"}


def test_a_collection_that_names_a_function_is_refused(client: Any, server: Server, encoder: Encoder) -> None:
    from chromadb.utils.embedding_functions import register_embedding_function

    built: list[int] = []

    @register_embedding_function
    class Named(chromadb.EmbeddingFunction):  # type: ignore[misc]
        def __init__(self) -> None: ...

        def __call__(self, input: Any) -> Any:
            pytest.fail("it ran")

        @staticmethod
        def name() -> str:
            return "named-by-a-test"

        def get_config(self) -> dict[str, Any]:
            return {}

        @staticmethod
        def build_from_config(config: dict[str, Any]) -> Any:
            built.append(1)
            return Named()

    client.create_collection("docs", embedding_function=Named()).add(ids=["a"], embeddings=server(["a"]))
    assert built, "Chroma does so"
    built.clear()
    with pytest.raises(IndexingError, match="'named-by-a-test', which Chroma would build"):
        map_collection(client, "docs", encoder)
    assert not built


def test_a_collection_is_read(client: Any, server: Server) -> None:
    collection, calls = fill(client, server), len(server.calls)
    stored = read_vectors(collection)
    assert (len(stored), stored.total, stored.documents[11]) == (120, 120, "file-1.md")
    some = read_vectors(collection, limit=50)
    assert (len(some), some.total) == (50, 120)
    assert len(server.calls) == calls
    by_id = dict(zip(stored.ids, stored.vectors, strict=True))
    assert all((by_id[id_] == vector).all() for id_, vector in zip(some.ids, some.vectors, strict=True))
    assert read_vectors(stored) is stored
    assert check_base(ApiVectors(server.embeddings(), cache=False), stored) == pytest.approx(1, abs=1e-5)


def test_a_store_in_memory_is_read(server: Server) -> None:
    core = pytest.importorskip("langchain_core.vectorstores")
    from .test_vectors import LangChainLike

    store = core.InMemoryVectorStore(LangChainLike(server, apart=False))
    store.add_texts(["one text", "", "another"], metadatas=[{"source": "a.md"}, {}, {}], ids=["1", "2", "3"])
    stored = read_vectors(store)
    assert (list(stored.ids), list(stored.texts), list(stored.documents)) == (
        ["1", "3"],
        ["one text", "another"],
        ["a.md", "3"],
    )
    assert stored.vectors.shape == (2, 16)


def test_a_faiss_store_of_langchain_is_read(server: Server) -> None:
    faiss = pytest.importorskip("faiss")
    vectors = np.array(server(TEXTS[:5]), dtype=np.float32)
    index = faiss.IndexFlatL2(16)
    index.add(vectors)
    documents = {f"id-{i}": SimpleNamespace(page_content=TEXTS[i], metadata={"source": "a.md"}) for i in range(5)}
    store = SimpleNamespace(  # what LangChain's class has, which is in a package of its own
        index=index,
        index_to_docstore_id={i: f"id-{i}" for i in range(5)},
        docstore=SimpleNamespace(search=documents.__getitem__),
    )
    stored = read_vectors(store, limit=3)
    assert (len(stored), stored.total, set(stored.documents)) == (3, 5, {"a.md"})
    for text, vector in zip(stored.texts, stored.vectors, strict=True):
        np.testing.assert_array_equal(vector, vectors[TEXTS.index(text)])


def test_stores_that_cannot_be_used_are_named(client: Any, server: Server) -> None:
    with pytest.raises(IndexingError, match="type object does not give its vectors"):
        read_vectors(object())
    with pytest.raises(IndexingError, match="no text"):
        read_vectors(client.create_collection("empty"))
    vectors = np.array(server(TEXTS[:20]), dtype=np.float32)
    stored = StoredVectors(TEXTS[:20], TEXTS[:20], vectors, TEXTS[:20], 20)
    other = ApiVectors(Server(seed=1).embeddings(), cache=False)
    with pytest.raises(EmbeddingError, match=r"median cosine .*filled by another model"):
        check_base(other, stored)
    with pytest.raises(EmbeddingError, match="length 16, 'words' gives 24"):
        check_base(ApiVectors(Server(24).embeddings(), cache=False), stored)
