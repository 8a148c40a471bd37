"""What `export_model` writes: same vectors in plain sentence-transformers, the legacy layout, all or nothing."""

import errno
import json
import stat

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from transformers import AutoModel, PreTrainedModel

from revela_rag.errors import DiskError, ModelError
from revela_rag.model.fingerprint import fingerprint
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.export import check_output, export_model

from .conftest import perturb

KINDS = ["bert", "llama", "qwen2", "mamba2", "lfm2"]


def snapshot(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("adapter", ["linear", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_sentence_transformers_gives_the_same_vectors(retriever, texts, tmp_path, kind, adapter):
    model = retriever(kind, adapter)
    exported = SentenceTransformer(str(export_model(model, tmp_path / "out", revela_json={})), device="cpu")
    for role, encode in (("query", exported.encode_query), ("document", exported.encode_document)):
        together = encode(texts, convert_to_tensor=True)
        alone = torch.cat([encode([text], convert_to_tensor=True) for text in texts])
        expected = model.embed(texts, role)
        torch.testing.assert_close(together, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(alone, expected, atol=2e-6, rtol=0)
    assert exported.max_seq_length == model.inference_max_length


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_end_token_survives_truncation_after_export(retriever, tmp_path, kind):
    path = export_model(retriever(kind, "linear"), tmp_path / "out", revela_json={})
    model = SentenceTransformer(str(path), device="cpu")
    model.max_seq_length = 10
    ids = model.tokenizer(["open a file " * 20], truncation=True, max_length=10)["input_ids"][0]
    assert len(ids) == 10
    assert ids[-1] == model.tokenizer.eos_token_id and ids.count(model.tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_strength_zero_is_exactly_the_base(backbones, retriever, texts, tmp_path, adapter):
    model = retriever("bert", adapter)
    path = export_model(model, tmp_path / "out", strength=0.0, revela_json={})
    exported, base = load_file(path / "model.safetensors"), AutoModel.from_pretrained(backbones("bert")).state_dict()
    assert exported.keys() == base.keys()
    assert all(torch.equal(exported[name], base[name]) for name in base)
    vectors = SentenceTransformer(str(path), device="cpu").encode(texts, convert_to_tensor=True)
    assert torch.equal(vectors, model.embed_base(texts, "document"))


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_strength_of_the_export_is_its_own(retriever, texts, tmp_path, adapter):
    model = retriever("bert", adapter)
    trained = model.embed(texts, "document")
    path = export_model(model, tmp_path / "out", strength=0.3, revela_json={})
    assert torch.equal(model.embed(texts, "document"), trained)
    model.set_strength(0.3)
    vectors = SentenceTransformer(str(path), device="cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(vectors, model.embed(texts, "document"), atol=1e-6, rtol=0)


def test_layout_is_the_legacy_one(retriever, tmp_path):
    path = export_model(retriever("bert", "linear"), tmp_path / "out", revela_json={"statistics": {"chunks": 3}})
    modules = json.loads((path / "modules.json").read_text())
    names = ["Transformer", "Pooling", "Normalize", "Dense", "Normalize"]
    assert [module["type"] for module in modules] == [f"sentence_transformers.models.{name}" for name in names]
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize", "3_Dense", "4_Normalize"]
    pooling = json.loads((path / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] is True and pooling["pooling_mode_lasttoken"] is False
    assert pooling["word_embedding_dimension"] == 32 and "pooling_mode" not in pooling
    config = json.loads((path / "config_sentence_transformers.json").read_text())
    assert config["prompts"] == {"query": "", "document": ""} and config["similarity_fn_name"] == "cosine"
    lengths = json.loads((path / "sentence_bert_config.json").read_text())
    assert lengths == {"max_seq_length": 64, "do_lower_case": False}
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None
    record = json.loads((path / "revela.json").read_text())
    assert record["statistics"] == {"chunks": 3}
    assert record["fingerprint"] == fingerprint(path)
    assert record["adapter"]["kind"] == "linear" and "transformers" in record["versions"]
    assert not list(path.rglob("*.bin")) and (path / "README.md").is_file()


def test_nothing_names_a_path_of_this_machine(backbones, retriever, tmp_path):
    record = {"config": {"output": str(tmp_path / "out"), "lm": str(backbones("llama"))}, "route": "/v1/items"}
    for adapter in ("linear", "lora"):
        path = export_model(retriever("bert", adapter), tmp_path / "out", revela_json=record)
        for name, content in snapshot(path).items():
            assert str(tmp_path).encode() not in content, name
            assert str(backbones("bert").parent).encode() not in content, name
            assert b"/tmp" not in content, name
        written = json.loads((path / "revela.json").read_text())
        assert written["config"] == {"output": "out", "lm": "llama"}
        assert written["base"] == "bert" and written["route"] == "/v1/items"


def test_lora_adapter_lies_beside_the_merged_model(backbones, retriever, tmp_path):
    from peft import PeftModel

    model = retriever("bert", "lora")
    path = export_model(model, tmp_path / "out", revela_json={})
    config = json.loads((path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "bert"
    adapted = AutoModel.from_pretrained(backbones("bert"))
    adapted = PeftModel.from_pretrained(adapted, path / "adapter").merge_and_unload()
    exported = load_file(path / "model.safetensors")
    for name, value in adapted.state_dict().items():
        torch.testing.assert_close(exported[name], value, atol=1e-6, rtol=0)


def test_sentence_transformers_base_keeps_modules_prompts_and_padding(backbones, texts, tmp_path):
    """A supervised decoder: left padding, a projection, no normalisation, prompts under its own names."""
    raw = TrainableRetriever(backbones("llama"), adapter="linear", device="cpu").model
    raw.tokenizer.padding_side = "left"
    torch.manual_seed(0)
    modules = [raw[0], raw[1], Dense(32, 12, activation_function=torch.nn.Tanh())]
    base = SentenceTransformer(modules=modules, prompts={"query": "how : ", "passage": "def "}, device="cpu")
    base.max_seq_length = 50
    base.save(str(tmp_path / "base"))
    model = perturb(TrainableRetriever(tmp_path / "base", adapter="linear", device="cpu"))
    assert model.prompts == {"query": "how : ", "document": "def "} and model.inference_max_length == 50
    plain = torch.nn.functional.normalize(base.encode(["how : " + text for text in texts], convert_to_tensor=True))
    torch.testing.assert_close(model.embed_base(texts, "query"), plain, atol=1e-6, rtol=0)
    path = export_model(model, tmp_path / "out", revela_json={})
    exported = SentenceTransformer(str(path), device="cpu")
    assert [type(module) for module in exported] == [Transformer, Pooling, Dense, Normalize, Dense, Normalize]
    assert exported.tokenizer.padding_side == "left" and exported.max_seq_length == 50
    for role, encode in (("query", exported.encode_query), ("document", exported.encode_document)):
        vectors = encode(texts, convert_to_tensor=True)
        torch.testing.assert_close(vectors, model.embed(texts, role), atol=1e-6, rtol=0)
    again = TrainableRetriever(path, adapter="linear", device="cpu")
    torch.testing.assert_close(again.embed(texts, "query"), model.embed(texts, "query"), atol=1e-6, rtol=0)


def test_existing_model_is_replaced_and_anything_else_is_not(retriever, tmp_path):
    model, path = retriever("bert", "linear"), tmp_path / "out"
    path.mkdir()
    export_model(model, path, revela_json={"run": 1})  # an empty directory may be used
    export_model(model, path, revela_json={"run": 2})
    assert json.loads((path / "revela.json").read_text())["run"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("precious", "file"):
        with pytest.raises(ModelError, match=name):
            export_model(model, tmp_path / name, revela_json={})
        with pytest.raises(ModelError, match=name):
            check_output(tmp_path / name)
    assert snapshot(precious) == {"thesis.txt": b"years of work"}
    assert check_output(tmp_path / "new" / "model")


def test_files_are_as_readable_as_any_other(retriever, tmp_path):
    path = export_model(retriever("bert", "linear"), tmp_path / "out", revela_json={})
    (tmp_path / "usual").touch()
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()} == {usual}


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["oserror", "safetensors"])
@pytest.mark.parametrize("where", ["backbone", "adapter", "swap"])
def test_full_disk_leaves_the_old_model_and_nothing_else(retriever, tmp_path, monkeypatch, error, where):
    model, path = retriever("bert", "linear"), tmp_path / "out"
    export_model(model, path, revela_json={"run": 1})
    before = snapshot(path)

    def fail(*_, **__):
        raise error

    if where == "backbone":
        monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    elif where == "adapter":
        monkeypatch.setattr("safetensors.torch.save_file", fail)
    else:
        monkeypatch.setattr("revela_training.retriever.atomic._usual_permissions", fail)
    with pytest.raises(DiskError, match="No space left"):
        export_model(model, path, revela_json={"run": 2})
    assert snapshot(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    with pytest.raises(DiskError, match="fresh"):
        export_model(model, tmp_path / "fresh", revela_json={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_failed_swap_brings_the_old_model_back(retriever, tmp_path, monkeypatch):
    from pathlib import Path

    model, path = retriever("bert", "linear"), tmp_path / "out"
    export_model(model, path, revela_json={"run": 1})
    before, replace = snapshot(path), Path.replace

    def fail_on_new(self, target):
        if Path(target) == path and json.loads((self / "revela.json").read_text())["run"] == 2:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_new)
    with pytest.raises(DiskError, match="Input/output"):
        export_model(model, path, revela_json={"run": 2})
    assert snapshot(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_interrupt_leaves_nothing_behind(retriever, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_model(retriever("bert", "linear"), tmp_path / "out", revela_json={})
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named_before_anything_is_written(retriever, tmp_path):
    model = retriever("bert", "linear")
    with pytest.raises(ModelError, match="strength is nan"):
        export_model(model, tmp_path / "out", strength=float("nan"), revela_json={})
    with pytest.raises(ModelError, match="JSON"):
        export_model(model, tmp_path / "out", revela_json={"model": object()})
    assert list(tmp_path.iterdir()) == []
