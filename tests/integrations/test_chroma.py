import shutil
from pathlib import Path

import numpy as np
import pytest

chromadb = pytest.importorskip("chromadb")

from chromadb.config import Settings  # noqa: E402
from model.conftest import sentence_transformer  # noqa: E402

from chroma_revela import RevelaEmbeddingFunction  # noqa: E402
from revela_rag.errors import IndexMismatchError, ModelError  # noqa: E402
from revela_rag.model.encoder import Encoder  # noqa: E402

DOCUMENTS = ["def f ( x ) return x", "how do i open a file", "one two three"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return sentence_transformer(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def connect(tmp_path):
    clients = []

    def open_client():
        clients.append(chromadb.PersistentClient(str(tmp_path / "db"), settings=Settings(anonymized_telemetry=False)))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


def test_documents_and_queries_get_their_own_prompts(model):
    function, encoder = RevelaEmbeddingFunction(model), Encoder(model)
    np.testing.assert_allclose(function(DOCUMENTS), encoder.encode_documents(DOCUMENTS), atol=1e-6)
    np.testing.assert_allclose(function.embed_query(DOCUMENTS), encoder.encode_queries(DOCUMENTS), atol=1e-6)


def test_a_collection_finds_its_model_again(model, connect):
    function = RevelaEmbeddingFunction(model)
    client = connect()
    collection = client.create_collection("docs", embedding_function=function)
    assert not function.encoder.loaded and not function.is_legacy()
    collection.add(ids=["a", "b", "c"], documents=DOCUMENTS)
    client.close()

    collection = connect().get_collection("docs")  # no function given: Chroma makes it from the configuration
    assert collection.configuration_json["hnsw"]["space"] == "cosine"
    found = collection.query(query_texts=["open a file"], n_results=3, include=["distances"])
    encoder = Encoder(model)
    cosines = encoder.encode_queries(["open a file"]) @ encoder.encode_documents(DOCUMENTS).T
    np.testing.assert_allclose(1 - np.array(found["distances"][0]), np.sort(cosines[0])[::-1], atol=1e-5)


def test_a_model_that_changed_in_place_is_refused(model, connect, tmp_path):
    moving = Path(shutil.copytree(model, tmp_path / "moving"))
    client = connect()
    client.create_collection("docs", embedding_function=RevelaEmbeddingFunction(moving)).add(
        ids=["a"], documents=DOCUMENTS[:1]
    )
    client.close()
    shutil.rmtree(moving)
    sentence_transformer(moving, seed=5)
    with pytest.raises(IndexMismatchError, match="embed the documents again"):
        connect().get_collection("docs").query(query_texts=["x"])


def test_check_names_both_models(model, connect, tmp_path):
    other = sentence_transformer(tmp_path / "other", seed=5)
    collection = connect().create_collection("docs", embedding_function=RevelaEmbeddingFunction(model))
    RevelaEmbeddingFunction(model).check(collection)
    with pytest.raises(IndexMismatchError, match=f"{model}.*{other}"):
        RevelaEmbeddingFunction(other).check(collection)


def test_configuration_round_trip(model):
    function = RevelaEmbeddingFunction(model, max_length=8)
    config = function.get_config()
    assert config == {"model": str(model), "fingerprint": Encoder(model, max_length=8).fingerprint, "max_length": 8}
    again = RevelaEmbeddingFunction.build_from_config(config)
    assert again.get_config() == config and again.encoder.max_length == 8
    assert RevelaEmbeddingFunction(Encoder(model, max_length=8)).get_config() == config
    assert function.name() == "revela" and function.default_space() == "cosine"


def test_configurations_that_cannot_be_used(model, tmp_path):
    with pytest.raises(ModelError, match="fingerprint"):
        RevelaEmbeddingFunction.build_from_config({"model": "m"})
    gone = RevelaEmbeddingFunction.build_from_config({"model": str(tmp_path / "gone"), "fingerprint": "f"})
    with pytest.raises(ModelError, match="does not exist"):
        gone(["text"])
    function = RevelaEmbeddingFunction(model)
    old = function.get_config()
    function.validate_config_update(old, {**old, "model": "/moved/elsewhere"})
    with pytest.raises(IndexMismatchError, match="new collection"):
        function.validate_config_update(old, {**old, "fingerprint": "0"})
