"""A model of a hub is checked like a directory, before it is loaded."""

import shutil

import numpy as np
import pytest

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.open import open_model
from revela_training.objective.lm import load_lm

from .support import change, routed

NAME = "someone/model"


@pytest.fixture
def cached(model, tmp_path, monkeypatch):
    """The model in the cache of a hub, whose files are links, as the hub's client keeps them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--someone--model"
    snapshot, blobs = folder / "snapshots" / ("a" * 40), folder / "blobs"
    shutil.copytree(model, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    return snapshot


def test_it_is_loaded_as_a_directory_is(cached, model):
    change(model / "tokenizer_config.json", vocab_file="vocab.txt", tokenizer_file=str(cached / "tokenizer.json"))
    shutil.copy(model / "tokenizer_config.json", cached.parents[1] / "blobs" / "settings")
    (cached / "tokenizer_config.json").unlink()
    (cached / "tokenizer_config.json").symlink_to(cached.parents[1] / "blobs" / "settings")
    change(model / "tokenizer_config.json", tokenizer_file=None)
    encoder, here = Encoder(NAME, device="cpu"), Encoder(model, device="cpu")
    np.testing.assert_allclose(encoder.encode_queries(["one two"]), here.encode_queries(["one two"]), atol=1e-6)
    assert encoder.fingerprint == here.fingerprint


def test_its_router_runs_no_code(cached, canary):
    routed(cached, types={"a": "evil_installed.Evil"})
    for load in (open_model, lambda name: Encoder(name).dimension):
        with pytest.raises(ModelError, match=r"router_config\.json.*trust_remote_code=True"):
            load(NAME)
    assert not canary.exists()


def test_a_language_model_names_no_code(cached, canary):
    text = (cached / "config.json").read_text()
    (cached / "config.json").unlink()
    (cached / "config.json").write_text(text)
    change(cached / "config.json", auto_map={"AutoModelForCausalLM": "evil_model.Evil"})
    with pytest.raises(ModelError, match=r"config\.json' names code of its own"):
        load_lm(NAME)
    assert not canary.exists()
