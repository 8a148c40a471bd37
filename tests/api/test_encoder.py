"""Embeddings behind an API, adapted or not, wherever a model is expected."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from revela_rag import Encoder, Index, Retriever, evaluate
from revela_rag.api.known import PROBES
from revela_rag.api.maps import EmbeddingMap
from revela_rag.api.vectors import ApiVectors
from revela_rag.corpus import load_corpus
from revela_rag.errors import EmbeddingError, IndexMismatchError, ModelError
from revela_rag.evaluation import RetrievalData

from .support import HttpError, Server, raising

TEXTS = {"river": "the river carries the old boat", "tax": "the tax is due in may", "owl": "owls hunt mice at night"}


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    """A map as an adaptation would have written it."""
    rng = np.random.default_rng(0)
    weight = (np.eye(16) + rng.standard_normal((16, 16)) / 8).astype(np.float32)
    bias = (rng.standard_normal(16) / 8).astype(np.float32)
    known = ApiVectors(server.embeddings(), cache=False).known
    path = tmp_path / "map"
    path.mkdir()
    EmbeddingMap("words", known, {"query": "", "document": ""}, 1.0, weight, bias).write(path)
    server.calls.clear()
    return path


@pytest.fixture
def encoder(server: Server, folder: Path, cache: Path) -> Encoder:
    return Encoder.over(server.embeddings(), folder, cache=cache)


def test_the_map_acts_on_both_sides(server: Server, folder: Path, encoder: Encoder) -> None:
    texts = list(TEXTS.values())
    base = Encoder.over(server.embeddings(), cache=False).encode_documents(texts)
    tensors = load_file(folder / "embedding_map.safetensors")
    expected = base @ tensors["weight"].T + tensors["bias"]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for made in (encoder.encode_documents(texts), encoder.encode_queries(texts)):
        np.testing.assert_allclose(made, expected, atol=1e-6)
        assert made.dtype == np.float32
    assert isinstance(encoder, Encoder) and encoder.dimension == 16
    assert encoder.encode_documents([]).shape == (0, 16)


def test_an_index_is_built_and_searched(server: Server, folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    chunks = load_corpus([{"id": name, "text": text} for name, text in TEXTS.items()]).chunks
    with Index.build(chunks, encoder=encoder, path=tmp_path / "index") as index:
        assert Retriever(index, k=1).search("when is the tax due?")[0].chunk.document_id == "tax"
        assert index.manifest.model.fingerprint == encoder.fingerprint == EmbeddingMap.read(folder).fingerprint
    with pytest.raises(ModelError, match=r"'words'; pass them: .*Encoder\.over\(EMBEDDINGS, FOLDER\)"):
        Index.open(tmp_path / "index").search("tax")
    with pytest.raises(IndexMismatchError):
        Index.open(tmp_path / "index", encoder=Encoder.over(server.embeddings(), cache=False))
    again = Encoder.over(server.embeddings(), folder, cache=False)
    with Index.open(tmp_path / "index", encoder=again) as index:
        assert index.search("owls at night", k=1, mode="dense")[0].chunk.document_id == "owl"


def test_an_index_costs_what_is_not_in_the_cache(server: Server, encoder: Encoder, tmp_path: Path) -> None:
    texts = list(TEXTS.values())
    encoder.encode_documents(texts[:2])
    calls = len(server.calls)
    Index.build(load_corpus([{"text": text} for text in texts]).chunks, encoder=encoder, path=tmp_path / "ix").close()
    assert [text for call in server.calls[calls:] for text in call] == texts[2:]


def test_an_index_that_failed_pays_only_for_the_rest(server: Server, encoder: Encoder, tmp_path: Path) -> None:
    chunks = load_corpus([{"text": f"page {number} of a book about owls"} for number in range(20)]).chunks
    server.faults[4] = raising(HttpError(401, "the key has expired"))
    with pytest.raises(EmbeddingError, match=r"the key has expired.*8 of 20 texts were embedded"):
        Index.build(chunks, encoder=encoder, path=tmp_path / "ix")
    assert not (tmp_path / "ix" / "manifest.json").exists()
    with Index.build(chunks, encoder=encoder, path=tmp_path / "ix") as index:
        assert len(index) == 20
    counted = Counter(server.texts)
    assert max(counted[chunk.embedding_text] for chunk in chunks) == 2, "the batch that failed"
    assert sum(counted[chunk.embedding_text] for chunk in chunks) == 24


def test_it_is_evaluated(encoder: Encoder) -> None:
    data = RetrievalData(
        corpus={name: ("", text) for name, text in TEXTS.items()},
        queries={"q": "boat on the river"},
        qrels={"q": {"river": 1}},
        name="small",
    )
    assert evaluate(encoder, data).mean("nDCG@10") == 1.0


def test_frameworks_take_it(encoder: Encoder) -> None:
    langchain = pytest.importorskip("langchain_revela").RevelaEmbeddings.from_encoder(encoder)
    llama = pytest.importorskip("llama_index.embeddings.revela").RevelaEmbedding.from_encoder(encoder)
    text = TEXTS["owl"]
    expected = encoder.encode_documents([text])[0]
    for made in (
        langchain.embed_documents([text])[0],
        langchain.embed_query(text),
        llama.get_text_embedding(text),
        llama.get_query_embedding(text),
    ):
        np.testing.assert_allclose(made, expected, atol=1e-6)
    assert llama.to_dict()["fingerprint"] == encoder.fingerprint


def test_frameworks_embeddings_are_its_base(server: Server, cache: Path) -> None:
    core = pytest.importorskip("langchain_core.embeddings")
    base = pytest.importorskip("llama_index.core.base.embeddings.base")

    class FromLangChain(core.Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return server(texts)

        def embed_query(self, text: str) -> list[float]:
            return server([text])[0]

    class FromLlamaIndex(base.BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return server([text])[0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return server(texts)

        def _get_query_embedding(self, query: str) -> list[float]:
            return server([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return server([query])[0]

    expected = Encoder.over(server.embeddings(), cache=False).encode_documents(["an owl"])
    for embeddings, name in (
        (FromLangChain(), "FromLangChain"),
        (FromLlamaIndex(model_name="m"), "FromLlamaIndex:m"),
    ):
        over = Encoder.over(embeddings, cache=cache)
        assert over.name == f"api:{name}"
        np.testing.assert_allclose(over.encode_documents(["an owl"]), expected, atol=1e-6)
        np.testing.assert_allclose(over.encode_queries(["an owl"]), expected, atol=1e-6)


def test_a_map_of_another_base_is_refused(server: Server, folder: Path) -> None:
    with pytest.raises(EmbeddingError, match="learned on 'words', not on 'others'"):
        Encoder.over(server.embeddings(name="others"), folder, cache=False)
    with pytest.raises(EmbeddingError, match="the prompts of"):
        Encoder.over(server.embeddings(query_prompt="find: "), folder, cache=False)


def test_another_model_under_the_name_of_a_maps_base_is_found_out(folder: Path, cache: Path) -> None:
    for other, words in ((Server(seed=1), "other vectors than the map in"), (Server(24), "length 24")):
        with pytest.raises(EmbeddingError, match=words):
            Encoder.over(other.embeddings(), folder, cache=cache).encode_queries(["private words"])
        assert set(other.texts) == set(PROBES)
        assert not cache.exists(), "the wrong model's vectors do not get into the cache"


def test_queries_that_are_embedded_otherwise_than_for_the_map_are_found_out(server: Server, folder: Path) -> None:
    apart = server.embeddings(embed_queries=lambda texts: -np.array(server(texts)))
    with pytest.raises(EmbeddingError, match="embeds queries unlike documents, the map in"):
        Encoder.over(apart, folder, cache=False).encode_documents(["private words"])


def test_nothing_is_loaded_by_the_name_of_a_map(folder: Path) -> None:
    for name in (folder, str(folder), "api:words"):
        with pytest.raises(ModelError, match=r"Encoder\.over\(EMBEDDINGS, FOLDER\)"):
            Encoder(name)
    with pytest.raises(ModelError, match="holds no embedding_map"):
        EmbeddingMap.read(folder.parent)


def test_there_is_no_model_to_take(encoder: Encoder) -> None:
    with pytest.raises(ModelError, match="behind an API"):
        encoder.model  # noqa: B018


def test_it_goes_to_another_process(encoder: Encoder) -> None:
    copied = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    assert copied.fingerprint == encoder.fingerprint
    assert (copied.encode_queries(["owl"]) == encoder.encode_queries(["owl"])).all()


def test_the_fingerprint_is_of_the_map(folder: Path) -> None:
    before = EmbeddingMap.read(folder).fingerprint
    file = folder / "embedding_map.safetensors"
    tensors = load_file(file)
    tensors["weight"][0, 0] += 1
    save_file(tensors, file)
    assert EmbeddingMap.read(folder).fingerprint != before


def test_a_pipe_in_its_place_is_refused(folder: Path) -> None:
    (folder / "embedding_map.safetensors").unlink()
    os.mkfifo(folder / "embedding_map.safetensors")
    with pytest.raises(ModelError, match="not a regular file"):
        EmbeddingMap.read(folder)


def cut_off(folder: Path) -> None:
    file = folder / "embedding_map.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without_weight(folder: Path) -> None:
    file = folder / "embedding_map.safetensors"
    save_file({"probes": load_file(file)["probes"]}, file)


def of_other_shape(folder: Path) -> None:
    file = folder / "embedding_map.safetensors"
    save_file({**load_file(file), "bias": np.zeros(3, np.float32)}, file)


def not_finite(folder: Path) -> None:
    file = folder / "embedding_map.safetensors"
    save_file({**load_file(file), "bias": np.full(16, np.nan, np.float32)}, file)


def with_more(folder: Path) -> None:
    file = folder / "embedding_map.safetensors"
    save_file({**load_file(file), "other": np.zeros(3, np.float32)}, file)


def of_the_future(folder: Path) -> None:
    file = folder / "embedding_map.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))


def no_json(folder: Path) -> None:
    (folder / "embedding_map.json").write_text("{")


def too_long(folder: Path) -> None:
    file = folder / "embedding_map.safetensors"
    save_file({**load_file(file), "bias": np.zeros(100_000, np.float32)}, file)


def far_too_long(folder: Path) -> None:
    file = folder / "embedding_map.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dimension": 10**9}))


@pytest.mark.parametrize(
    "damage",
    [cut_off, without_weight, of_other_shape, not_finite, with_more, of_the_future, no_json, too_long, far_too_long],
)
def test_a_damaged_map_is_refused(damage, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ModelError, match="cannot be read"):
        EmbeddingMap.read(folder)
