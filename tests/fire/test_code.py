"""What a model names, and what is imported or run for it: nothing."""

import json
import shutil

import pytest
from model.conftest import llama

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.open import open_model
from revela_rag.model.safety import check_model
from revela_training.objective.lm import load_lm

from .support import ATTACK, TYPES, change, dense, modules, routed


def local_file(path):
    modules(path, ("", f"{TYPES}.Transformer"), ("1_Pooling", "evil_model.Evil"))


def installed(path):
    modules(path, ("", f"{TYPES}.Transformer"), ("1_Pooling", "evil_installed.Evil"))


def in_a_router(path):
    routed(path, types={"query_0": "evil_installed.Evil"})


def in_an_older_router(path):
    routed(path, types={"query_0": "evil_installed.Evil"}, file="config.json")


def in_a_router_at_the_root(path):
    routed(path, types={"1_Pooling": "evil_installed.Evil"}, place="")


def in_a_router_in_a_router(path):
    routed(path, types={"inner": f"{TYPES}.Router"})
    (path / "0_Router" / "inner").mkdir()
    (path / "0_Router" / "inner" / "router_config.json").write_text(json.dumps({"types": {"a": "evil_installed.Evil"}}))


def in_the_older_file_beside_the_newer(path):
    routed(path, types={"0_Pooling": f"{TYPES}.Pooling"})
    (path / "0_Router" / "config.json").write_text(json.dumps({"types": {"a": "evil_installed.Evil"}}))


def a_function_of_the_library(path):
    routed(path, types={"query_0": "sentence_transformers.util.http_get"})


def activation(path):
    dense(path, activation_function="evil_installed.evil")


def activation_in_a_router(path):
    routed(path, types={"a": f"{TYPES}.Dense"})
    shutil.move(dense(path, activation_function="evil_installed.evil"), path / "0_Router" / "a")
    modules(path, ("0_Router", f"{TYPES}.Router"))


def activation_of_torch_that_is_no_layer(path):
    dense(path, activation_function="torch.hub.load")


def auto_map(path):
    change(path / "config.json", auto_map={"AutoModel": "evil_model.Evil", "AutoConfig": "evil_model.Evil"})


def auto_map_inside(path):
    change(path / "config.json", text_config={"auto_map": {"AutoModel": "evil_model.Evil"}})


def auto_map_of_the_tokenizer(path):
    change(path / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil_model.Evil", None]})


def auto_map_of_a_processor(path):
    change(path / "processor_config.json", processor_class="Evil", auto_map={"AutoProcessor": "evil_model.Evil"})


def another_configuration(path):
    change(path / "config.json", configuration_files=["config.4.0.0.json"])
    change(path / "config.4.0.0.json", auto_map={"AutoConfig": "evil_model.Evil"})


def kernels_of_a_hub(path):
    change(path / "config.json", attn_implementation="evil/kernels")


def kernels_of_a_hub_in_the_settings(path):
    change(path / "sentence_bert_config.json", model_args={"attn_implementation": {"": "evil/kernels"}})


def adapter(path):
    change(
        path / "adapter_config.json",
        peft_type="LORA",
        base_model_name_or_path="/elsewhere",
        megatron_config={"a": 1},
        megatron_core="evil_installed",
    )


def arguments(path):
    change(path / "sentence_bert_config.json", model_args={"use_safetensors": False, "weights_only": False})


def a_tokenizer_from_elsewhere(path):
    change(path / "sentence_bert_config.json", tokenizer_name_or_path="/elsewhere")


def arguments_under_an_older_name(path):
    (path / "sentence_bert_config.json").unlink()
    change(path / "sentence_roberta_config.json", max_seq_length=32, processor_kwargs={"tokenizer_file": "/elsewhere"})


CODE = [
    local_file,
    installed,
    in_a_router,
    in_an_older_router,
    in_a_router_at_the_root,
    in_a_router_in_a_router,
    in_the_older_file_beside_the_newer,
    a_function_of_the_library,
    activation,
    activation_in_a_router,
    activation_of_torch_that_is_no_layer,
    auto_map,
    auto_map_inside,
    auto_map_of_the_tokenizer,
    auto_map_of_a_processor,
    another_configuration,
    kernels_of_a_hub,
    kernels_of_a_hub_in_the_settings,
    adapter,
    arguments,
    a_tokenizer_from_elsewhere,
    arguments_under_an_older_name,
]


@pytest.mark.parametrize("attack", CODE)
def test_no_code_of_a_model_runs(model, canary, attack):
    attack(model)
    for load in (check_model, open_model, lambda path: Encoder(path).dimension):
        with pytest.raises(ModelError, match=str(model)):
            load(model)
    assert not canary.exists()


@pytest.mark.parametrize(
    "attack", [auto_map, auto_map_of_the_tokenizer, kernels_of_a_hub, adapter, another_configuration]
)
def test_no_code_of_a_language_model_runs(tmp_path, canary, attack):
    path = llama(tmp_path / "lm")
    (path / "evil_model.py").write_text(ATTACK.format(canary=str(canary)))
    modules(path, ("", f"{TYPES}.Normalize"))  # which the loader of language models does not read
    attack(path)
    with pytest.raises(ModelError, match=str(path)):
        load_lm(path)
    assert not canary.exists()


def test_code_runs_where_it_is_trusted(model, canary):
    """So the attacks above are real: only the check stands before them."""
    in_a_router(model)
    (model / "0_Router" / "query_0").mkdir()
    check_model(model, trust_remote_code=True)
    open_model(model, trust_remote_code=True)
    assert canary.read_text() == "ran"


def test_modules_without_end_are_refused(model):
    routed(model, types={".": f"{TYPES}.Router"})
    with pytest.raises(ModelError, match=r"more than 64 modules"):
        check_model(model)


@pytest.mark.parametrize("place", ["../../elsewhere", "/tmp"])
def test_a_module_of_a_router_stays_in_the_model(model, place):
    routed(model, types={place: f"{TYPES}.Pooling"})
    with pytest.raises(ModelError, match=r"router_config\.json.*outside the model"):
        check_model(model)


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder", 7])
def test_another_librarys_model_type_is_refused(model, kind):
    change(model / "config_sentence_transformers.json", model_type=kind)
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json.*model_type"):
        check_model(model)


@pytest.mark.parametrize(
    "quantizer",
    [
        {"quant_method": "mxfp4"},
        {"quant_method": "fp8", "activation_scheme": "dynamic"},
        {"quant_method": "gptq", "bits": 4, "dataset": "c4", "tokenizer": "evil/model"},
        {"quant_method": "quark"},
        {"quant_method": "auto-round", "backend": "evil_installed"},
        {"quant_method": "evil_installed"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "load"},
        {"load_in_8bit": True},
        "mxfp4",
        ["a"],
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["quantization_config", "compression_config", "text_config"])
def test_a_quantizer_fetches_and_runs_nothing(model, canary, quantizer, place):
    """transformers imports its library, and for some kinds fetches kernels from a hub."""
    change(
        model / "config.json", **{place: {"quantization_config": quantizer} if place == "text_config" else quantizer}
    )
    for load in (check_model, open_model, lambda path: Encoder(path).dimension):
        with pytest.raises(ModelError, match=r"config\.json' names the quantizer"):
            load(model)
    assert not canary.exists()


def swapped(monkeypatch, path, how):
    """Change the model at the last moment: when it has passed the door and a library is about to open it."""
    from transformers import AutoModelForCausalLM

    from revela_rag.model import open as opening

    libraries = [(opening, "_open"), (AutoModelForCausalLM, "from_pretrained")]
    for owner, name in libraries:
        before = getattr(owner, name)

        def late(*args, before=before, **options):
            how(path)
            return before(*args, **options)

        monkeypatch.setattr(owner, name, late)


@pytest.mark.parametrize("how", [local_file, installed, in_a_router])
def test_what_is_loaded_is_what_was_checked(model, canary, monkeypatch, how):
    swapped(monkeypatch, model, how)
    open_model(model)
    assert not canary.exists()
    with pytest.raises(ModelError):
        open_model(model)  # now the directory is the other one


def test_a_language_model_that_is_loaded_is_what_was_checked(tmp_path, canary, monkeypatch):
    path = llama(tmp_path / "lm")

    def names_code(path):
        (path / "evil_model.py").write_text(ATTACK.format(canary=str(canary)))
        change(path / "config.json", auto_map={"AutoModelForCausalLM": "evil_model.Evil"}, model_type="evil")

    swapped(monkeypatch, path, names_code)
    load_lm(path)
    assert not canary.exists()


def test_a_plain_quantizer_is_left_to_its_library(model):
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    more = {"bnb_4bit_compute_dtype": "bfloat16", "llm_int8_skip_modules": ["lm_head"], "llm_int8_threshold": 6.0}
    change(model / "config.json", quantization_config={**config, **more})
    check_model(model)
    change(model / "config.json", quantization_config={})
    check_model(model)
