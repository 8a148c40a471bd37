"""A transformers model: settings that name code, and sizes that its weights cannot have."""

from __future__ import annotations

import re
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from revela_rag.errors import ModelError
from revela_rag.model.safety.files import json_object, read_json, walk
from revela_rag.model.safety.weights import WEIGHT_FILES, weight_bytes

__all__ = ["MOST_LAYERS", "check_settings", "check_sizes"]

_READ = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)
_SENTENCE = "sentence_*_config.json"
#: What ``sentence_bert_config.json`` may say; what else it says would be passed to the libraries as arguments.
_SETTINGS = {
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "processing_kwargs",
    "unpad_inputs",
    "query_length",
    "document_length",
    "query_expansion",
}
_ARGUMENT_GROUPS = {"model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"}
_ARGUMENTS = {
    "add_pooling_layer",
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "padding_side",
    "truncation_side",
    "model_max_length",
    "use_fast",
    "use_cache",
    "add_bos_token",
    "add_eos_token",
    "is_causal",
    "trust_remote_code",  # the library drops it
}
_IMPLEMENTATION = re.compile(r"(.*_)?(attn|experts)_implementation(_internal)?")
_BUILT_IN = re.compile(r"[\w|]*")
_QUANTIZERS = ("quantization_config", "compression_config")
_BNB_TYPES = ("fp4", "nf4", "uint8", "float32", "float16", "bfloat16")
_BNB_SKIPS = "llm_int8_skip_modules"
MOST_LAYERS, _MOST_NUMBER = 1_024, 2**31 - 1
_LAYERS = re.compile(r"((?<!per_)layers?(_types?)?|depths?|blocks|block_sizes|block_repeats|stages)$")
_SUMMED = re.compile(r"depths|block_sizes|block_repeats")
_EXPERTS = re.compile(r".*(num|n)_.*experts")
_HEAD = re.compile(r"head_dim|d_kv")
_ROWS = re.compile(r"vocab|position|n_ctx|num_labels")
_WIDTHS = re.compile(r"(sizes?|dim|embd|d_model|d_?ff|d_kv|inner|rank|buckets|width)$")
#: Elements of a matrix that are always allowed, and how many a model may claim for each byte of its weights: some
#: share their layers (ALBERT), some pack several elements into a byte.
_FREE, _PER_BYTE = 2**26, 16


def check_settings(folder: Path) -> None:
    """Refuse settings in the folder of a transformers model that would import or fetch code.

    Raises:
        ModelError: naming file and value.
    """
    for file in [folder / name for name in _READ] + sorted(folder.glob(_SENTENCE)):
        if not file.exists():
            continue
        for key, value in walk(read_json(file)):
            _check_setting(file, key, value)
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{str(folder / 'adapter_config.json')!r}: the model is an adapter, which would load another model that it "
            "names. Merge it into that model (PEFT's merge_and_unload), save the result, and load that."
        )
    for file in sorted(folder.glob(_SENTENCE)):
        _check_arguments(file)


def _check_setting(file: Path, key: str, value: Any) -> None:
    if key == "auto_map" and value:
        raise ModelError(
            f"{str(file)!r} names code of its own (auto_map); pass trust_remote_code=True if you trust it, or "
            "remove that entry if transformers has the model itself."
        )
    if _IMPLEMENTATION.fullmatch(key) and any(
        isinstance(name, str) and not _BUILT_IN.fullmatch(name) for _, name in walk(value)
    ):
        raise ModelError(
            f"{str(file)!r} takes {key} from {value!r}, which is code from elsewhere; remove that entry, or "
            "pass trust_remote_code=True if you trust it."
        )
    if key in _QUANTIZERS and value and not _is_plain_quantizer(value):
        kind = value.get("quant_method") if isinstance(value, dict) else value
        raise ModelError(
            f"{str(file)!r} names the quantizer {str(kind)[:80]!r} ({key}), for which libraries are imported that may "
            "fetch and run kernels. Load the model that was quantized, or pass trust_remote_code=True if you trust it."
        )
    if key in ("configuration_files", "fast_tokenizer_files") and value:
        raise ModelError(f"{str(file)!r} names other files to read in its place ({key}); remove that entry.")
    if key == "transformers_weights" and value not in (None, *WEIGHT_FILES):
        raise ModelError(
            f"{str(file)!r} names the weights {value!r} in place of {' or '.join(WEIGHT_FILES)}; do not load it."
        )


def _is_plain_quantizer(value: Any) -> bool:
    """Whether it is bitsandbytes; others fetch kernels, calibrate on data sets, or name classes and backends."""
    if not isinstance(value, dict) or value.get("quant_method") != "bitsandbytes":
        return False
    skips = value.get(_BNB_SKIPS) or []
    plain = {key: held for key, held in value.items() if key not in ("quant_method", _BNB_SKIPS)}
    known = all(held is None or isinstance(held, bool | int | float) or held in _BNB_TYPES for held in plain.values())
    return known and isinstance(skips, list) and all(isinstance(name, str) for name in skips)


def _check_arguments(file: Path) -> None:
    settings = json_object(file)
    groups = {key: value for key, value in settings.items() if key in _ARGUMENT_GROUPS and value}
    given = {key: value for key, value in settings.items() if key not in _SETTINGS | _ARGUMENT_GROUPS and value}
    for group, values in groups.items():
        if not isinstance(values, dict):
            raise ModelError(f"{str(file)!r} has {group}={values!r}, which is no object; export the model again.")
        given.update({f"{group}.{key}": value for key, value in values.items() if key not in _ARGUMENTS})
    if given:
        key, value = next(iter(given.items()))
        raise ModelError(
            f"{str(file)!r} passes {key}={str(value)[:80]!r} to the libraries that load it; remove that entry, or pass "
            "trust_remote_code=True if you trust it."
        )
    for key, value in walk(settings):
        if isinstance(value, int) and value > _MOST_NUMBER:
            raise ModelError(f"{str(file)!r} has {key}={value}, which is too large; export the model again.")
    for key, value in walk(settings.get("processing_kwargs")):
        if key == "padding" and value not in (True, False, None, "longest", "do_not_pad"):
            raise ModelError(f"{str(file)!r} pads every text ({key}={value!r}); remove that entry.")


def check_sizes(folder: Path, names: list[str]) -> None:
    """Refuse a configuration whose model could not be the one in the weights beside it: it would be built all the same.

    Raises:
        ModelError: naming file, setting and value.
    """
    file = folder / "config.json"
    limit = _FREE + _PER_BYTE * weight_bytes(folder, names)
    for _, config in walk(json_object(file)):
        if isinstance(config, dict):
            _check_one(file, config, limit)


def _check_one(file: Path, config: dict[str, Any], limit: int) -> None:
    numbers = {key: found for key, value in config.items() if (found := _number(key, value)) is not None}
    layers = {key: value for key, value in numbers.items() if _LAYERS.search(key)}
    for key, value in layers.items():
        if value > MOST_LAYERS:
            raise ModelError(f"{str(file)!r} has {key}={value:,}, more than {MOST_LAYERS:,}; do not load this model.")
    rows = [key for key in numbers if _ROWS.search(key)]
    widths = sorted((key for key in numbers if key not in rows and _WIDTHS.search(key)), key=lambda key: -numbers[key])
    experts = [key for key in numbers if _EXPERTS.fullmatch(key) and config.get("is_moe") is not False]
    heads = [key for key in numbers if key.endswith("heads")]
    hidden = [key for key in ("hidden_size", "d_model", "n_embd", "dim") if key in widths][:1]
    most = partial(max, key=numbers.__getitem__)
    claims = [[row, *hidden] for row in rows]
    claims.append([*widths[:2], *([most(layers)] if layers else []), *([most(experts)] if experts else [])])
    if heads and (one := [key for key in widths if _HEAD.search(key)]):
        claims.append([most(heads), one[0], *hidden])
    for claim in claims:
        if (total := prod(max(1, numbers[key]) for key in claim)) > limit:
            said = ", ".join(f"{key}={numbers[key]:,}" for key in claim)
            raise ModelError(
                f"{str(file)!r} has {said}, which makes a model of {total:,} numbers or more; the weights beside it "
                "hold no such model. Copy the model again, or do not load it."
            )


def _number(key: str, value: Any) -> int | None:
    """A setting as one number: of a list the largest, where it lists layers their count."""
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return sum(value) if _SUMMED.fullmatch(key) else len(value) if _LAYERS.search(key) else max(value)
        return len(value) if _LAYERS.search(key) else None
    return value if type(value) is int else None
