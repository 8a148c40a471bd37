"""Models that would hang or fill the memory are refused before anything opens them."""

import json
import os
import struct
import threading
from pathlib import Path

import pytest
from model.conftest import llama

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.open import open_model
from revela_rag.model.safety import check_model
from revela_training.objective.lm import load_lm

from .support import change, dense


def within(seconds, call):
    """Run a call that may hang."""
    found = []

    def run():
        try:
            call()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if found:
        raise found[0]


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("kind", ["pipe", "device", "socketlike"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "README.md",
        "special_tokens_map.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "additional_chat_templates/a.jinja",
    ],
)
def test_only_regular_files_are_opened(model, name, kind):
    file = model / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        os.mkfifo(model.parent / "pipe")
        file.symlink_to(model.parent / "pipe")
    for load in (check_model, lambda path: Encoder(path).dimension, open_model):
        with pytest.raises(ModelError, match=r"not a regular file"):
            within(20, lambda load=load: load(model))


def test_a_language_model_is_of_regular_files(tmp_path):
    path = llama(tmp_path / "lm")
    (path / "tokenizer.json").unlink()
    os.mkfifo(path / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json' is not a regular file"):
        within(20, lambda: load_lm(path))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "1_Pooling/config.json"])
def test_settings_have_a_size(model, name):
    with (model / name).open("r+b") as stream:
        stream.truncate(2**34)  # takes no place on the disk
    with pytest.raises(ModelError, match=r"17,179,869,184 bytes, more than"):
        check_model(model)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "9" * 10_000, "{", "\x00", "null", '"text"'])
def test_damaged_settings_are_named(model, text):
    (model / "config.json").write_text(text)
    for load in (check_model, lambda path: Encoder(path).dimension):
        with pytest.raises(ModelError, match=r"config\.json'"):
            load(model)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 100_000}, "num_hidden_layers=100,000"),
        ({"text_config": {"n_layer": 10**6}}, "n_layer=1,000,000"),
        ({"layer_types": ["full_attention"] * 2_000}, "layer_types=2,000"),
        ({"vocab_size": 10**9}, "vocab_size=1,000,000,000"),
        ({"max_position_embeddings": 10**8}, "max_position_embeddings=100,000,000"),
        ({"hidden_size": 10**5, "intermediate_size": 10**6}, "hidden_size=100,000"),
        ({"num_hidden_layers": 1_000, "intermediate_size": 10**5}, "intermediate_size=100,000"),
        ({"num_experts": 10**7}, "num_experts=10,000,000"),
        ({"num_attention_heads": 10**6, "head_dim": 128}, "num_attention_heads=1,000,000, head_dim=128"),
        ({"depths": [2, 10**5]}, "depths=100,002"),
        ({"hidden_sizes": [8, 10**6], "d_inner": 10**5, "model_type": "xlnet"}, "d_inner=100,000"),
    ],
)
def test_a_configuration_is_of_the_weights_beside_it(model, values, said):
    change(model / "config.json", **values)
    for load in (check_model, lambda path: Encoder(path).dimension, open_model):
        with pytest.raises(ModelError, match=rf"config\.json' has .*{said}"):
            within(20, lambda load=load: load(model))


def header(file: Path, text: bytes, length: int | None = None) -> None:
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text)


@pytest.mark.parametrize(
    ("text", "length", "said"),
    [
        (json.dumps({str(n): 0 for n in range(100_001)}).encode(), None, "100,001 tensors"),
        (b"{" + b" " * 17 * 2**20 + b"}", None, "a header of"),
        (b"{}", 10**18, "damaged or cut off"),
        (b"[" * 100_000, None, "header is damaged"),
        (b"[1]", None, "header is damaged"),
    ],
    ids=["tensors", "long", "cut", "deep", "list"],
)
def test_the_header_of_weights(model, text, length, said):
    header(model / "model.safetensors", text, length)
    for load in (check_model, lambda path: Encoder(path).dimension):
        with pytest.raises(ModelError, match=rf"model\.safetensors' .*{said}"):
            load(model)


def test_a_dense_layer_is_of_its_weights(model):
    dense(model, out_features=10**9)
    with pytest.raises(ModelError, match=r"3_Dense/config\.json' has .*out_features': 1000000000"):
        check_model(model)


def replaces(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"normalizer": replaces({"String": "a"}, "b" * 10**6)}, r"1e\+06 characters of one"),
        ({"normalizer": replaces({"Regex": ""}, "b" * 1000)}, r"characters of one"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [replaces({"String": "a"}, "aa")] * 30}},
            r"1\.07e\+09 characters of one",
        ),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}}, "1,000,000 characters or tokens around"),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 5000,
                    "pair": [],
                    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
                }
            },
            "5,002 characters or tokens around",
        ),
        ({"padding": {"strategy": {"Fixed": 10**9}}}, "pads every text to 1,000,000,000 tokens"),
    ],
)
def test_a_tokenizer_that_multiplies_texts(model, values, said):
    stored = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps({**stored, **values}))
    for load in (check_model, lambda path: Encoder(path).dimension, open_model):
        with pytest.raises(ModelError, match=rf"tokenizer\.json' .*{said}"):
            within(20, lambda load=load: load(model))


def test_a_tokenizer_reads_no_file_of_others(model):
    (model.parent / "secret.txt").write_text("x")
    change(model / "tokenizer_config.json", vocab_file=str(model.parent / "secret.txt"))
    with pytest.raises(ModelError, match=r"secret\.txt.*outside the model"):
        check_model(model)
    change(model / "tokenizer_config.json", vocab_file="/nowhere/not/here.txt")  # as many models say
    check_model(model)


def test_a_prompt_has_a_length(model):
    change(model / "config_sentence_transformers.json", prompts={"query": "x" * 10**6})
    with pytest.raises(ModelError, match="16,384 characters"):
        check_model(model)
