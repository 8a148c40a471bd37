"""Copies of what is open, in this process and in others, and its form in JSON."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
from integration_data import TEXTS
from langchain_core.stores import InMemoryByteStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores.types import VectorStoreQuery

import langchain_revela
import llama_index.retrievers.revela as llama
from langchain_revela import RevelaEmbeddings, RevelaRetriever
from llama_index.embeddings.revela import RevelaEmbedding
from llama_index.vector_stores.revela import RevelaVectorStore
from revela_rag import Encoder, Index, Retriever
from revela_rag.errors import IndexMismatchError

QUERY = "how is a password reset?"


def reset_password(user: str) -> str:
    """Send a link that resets a password."""
    return user


def book_train(city: str) -> str:
    """Book a train."""
    return city


def use(thing):
    """What a thing finds or embeds."""
    if isinstance(thing, Encoder):
        return thing.encode_queries([QUERY]).tolist()
    if isinstance(thing, langchain_revela.ToolRetriever):
        return [tool.__name__ for tool in thing.select(QUERY, k=1)]
    if isinstance(thing, Index | Retriever):
        return [hit.chunk.id for hit in thing.search(QUERY, k=3)]
    if isinstance(thing, RevelaVectorStore):
        return thing.query(VectorStoreQuery(query_str=QUERY, similarity_top_k=3)).ids
    for name in ("invoke", "retrieve", "embed_query", "get_query_embedding"):
        if hasattr(thing, name):
            found = getattr(thing, name)(QUERY)
            return [getattr(one, "id", None) or getattr(one, "node_id", one) for one in found]
    raise AssertionError(thing)


def things(model_path, index):
    loaded = Encoder(model_path, device="cpu")
    loaded.encode_queries(["x"])
    return {
        "encoder": Encoder(model_path, device="cpu"),
        "loaded encoder": loaded,
        "index": index,
        "retriever": Retriever(index, k=3, filter={"team": "people"}),
        "langchain embeddings": RevelaEmbeddings.from_encoder(loaded),
        "langchain cache": RevelaEmbeddings.from_encoder(loaded).cached(InMemoryByteStore()),
        "langchain retriever": RevelaRetriever(index=index, k=3, filter={"team": "people"}),
        "langchain tools": langchain_revela.ToolRetriever([reset_password, book_train], model=loaded),
        "llama embedding": RevelaEmbedding(model_path, device="cpu"),
        "llama embedding with a cache": RevelaEmbedding(model_path, device="cpu", embeddings_cache=SimpleKVStore()),
        "llama retriever": llama.RevelaRetriever(index, similarity_top_k=3),
        "llama vector store": RevelaVectorStore(index),
    }


@dataclasses.dataclass
class Settings:
    part: object


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda thing: dataclasses.asdict(Settings(thing))["part"],
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),  # noqa: S301
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_finds_the_same(model_path, index, way):
    for name, thing in things(model_path, index).items():
        copied = COPIES[way](thing)
        assert use(copied) == use(thing), name
        if way != "pickle" and isinstance(thing, Index | Encoder):
            assert copied is thing  # it shares what is loaded


def test_another_process_opens_it_again(model_path, index, tmp_path):
    retriever = RevelaRetriever(index=index, k=3)
    (tmp_path / "pickled").write_bytes(pickle.dumps([index, retriever, Encoder(model_path, device="cpu")]))
    code = """
        import json, pickle, sys
        with open(sys.argv[1], "rb") as file:
            index, retriever, encoder = pickle.load(file)
        ids = [hit.chunk.id for hit in index.search(sys.argv[2], k=3)]
        assert encoder.encode_queries(["x"]).shape == (1, 32)
        print(json.dumps([ids, [document.id for document in retriever.invoke(sys.argv[2])]]))
    """
    code = "\n".join(line.strip() if not line.startswith(" " * 12) else line[8:] for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pickled"), QUERY], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    expected = [hit.chunk.id for hit in index.search(QUERY, k=3)]
    assert json.loads(done.stdout.splitlines()[-1]) == [expected, expected]


def test_another_index_in_its_place_is_not_opened(encoder, tmp_path):
    from integration_data import make_chunks

    path = tmp_path / "index"
    with Index.build(make_chunks(), encoder=encoder, path=path) as index:
        data = pickle.dumps(index)
    path.rename(tmp_path / "old")
    Index.build(make_chunks()[:1], encoder=encoder, path=path).close()
    with pytest.raises(IndexMismatchError, match="another index"):
        pickle.loads(data)  # noqa: S301


def test_a_retriever_is_written_as_json_and_read_again(index):
    retriever = RevelaRetriever(index=index, k=2, filter={"team": "people"}, tags=["a"], with_scores=True)
    data = json.loads(retriever.model_dump_json())
    assert data["index"] == str(index.path) and data["k"] == 2
    again = RevelaRetriever(**data)
    assert again.invoke(QUERY) == retriever.invoke(QUERY) and again.model_dump_json() == retriever.model_dump_json()
    assert retriever.model_dump()["index"] is index
    for mode in ("validation", "serialization"):
        schema = RevelaRetriever.model_json_schema(mode=mode)
        assert schema["properties"]["index"]["type"] == "string"
    assert retriever.get_input_jsonschema()["type"] == "string"


def test_an_embedding_with_a_cache_is_serialised_without_it(model_path):
    embedding = RevelaEmbedding(model_path, device="cpu", embeddings_cache=SimpleKVStore())
    embedding.get_query_embedding(QUERY)
    again = RevelaEmbedding.from_json(embedding.to_json())
    assert again.embeddings_cache is None
    assert again.get_text_embedding(TEXTS["tax.md"]) == embedding.get_text_embedding(TEXTS["tax.md"])
    assert embedding.to_dict() == again.to_dict() == RevelaEmbedding(model_path, device="cpu").to_dict()
