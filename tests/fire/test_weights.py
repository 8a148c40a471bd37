"""No weights are unpickled, by whatever name they come."""

import shutil

import pytest

from revela_rag.errors import ModelError
from revela_rag.model.open import open_model
from revela_rag.model.safety import check_model

from .support import TYPES, change, dense, modules, routed


def pickle_beside_a_decoy(path):
    folder = dense(path)
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def pickle_of_a_routed_layer(path):
    routed(path, types={"a": f"{TYPES}.Dense"})
    folder = dense(path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    shutil.move(folder, path / "0_Router" / "a")
    modules(path, ("0_Router", f"{TYPES}.Router"))


def index_of_pickles(path):
    (path / "model.safetensors").rename(path / "decoy.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    change(path / "model.safetensors.index.json", metadata={}, weight_map={"a": "pytorch_model.bin"})


def index_out_of_the_model(path):
    (path / "model.safetensors").rename(path / "decoy.safetensors")
    change(path / "model.safetensors.index.json", metadata={}, weight_map={"a": "../other/model.safetensors"})


def pickle_by_its_name(path):
    (path / "evil.bin").write_bytes(b"\x80\x04.")
    change(path / "config.json", transformers_weights="evil.bin")


def pickle_of_the_backbone_beside_a_decoy(path):
    (path / "model.safetensors").rename(path / "decoy.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")


@pytest.mark.parametrize(
    "attack",
    [
        pickle_beside_a_decoy,
        pickle_of_a_routed_layer,
        index_of_pickles,
        index_out_of_the_model,
        pickle_by_its_name,
        pickle_of_the_backbone_beside_a_decoy,
    ],
)
def test_no_pickle_is_opened(model, attack):
    attack(model)
    for load in (check_model, open_model):
        with pytest.raises(ModelError, match=r"pytorch_model\.bin|evil\.bin|other/model\.safetensors"):
            load(model)
