"""Opening a backbone: a sentence-transformers model as it is, a raw transformers model made into one."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from revela_rag.errors import ModelError
from revela_rag.model.find import check_model, fetch_model, resolve_model
from revela_rag.model.safety import model_errors
from revela_rag.model.st_format import pooling_config, write_json, write_modules, write_sentence_config, write_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["Dtype", "append_eos", "is_decoder", "is_raw_decoder", "open_backbone"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# Longest input of a raw backbone after export, in tokens, where the model itself allows it (Revela, section
# 4).
MAX_INFERENCE_LENGTH = 2048
DECODER_PROMPTS = {"query": "Query: ", "document": "Passage: "}
_POSITIONS_AFTER_PADDING = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer"}


def open_backbone(
    source: str | Path,
    *,
    device: str | None = None,
    dtype: Dtype = "float32",
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load ``source`` as a SentenceTransformer that ends in a pooled sentence embedding.

    A sentence-transformers directory keeps its modules, prompts and lengths. A raw transformers directory
    becomes Transformer, Pooling, Normalize: mean pooling for encoders; for decoders, attention or
    state-space, the state of an end-of-sequence token that the tokenizer itself appends, right padding, and
    the prompts "Query: " and "Passage: ".

    Args:
        source: directory, or hub id (downloaded without anything that would have to be unpickled).
        device: torch device; None picks the best one there is.
        dtype: type the backbone's weights are held in; "auto" is that of the checkpoint.
        trust_remote_code: run Python files that come with the model.

    Raises:
        ModelError: the model is missing, has no safetensors weights, needs its own code, or cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    directory = fetch_model(str(source))
    check_model(directory, trust_remote_code=trust_remote_code)
    arguments: dict[str, Any] = {
        "device": device,
        "trust_remote_code": trust_remote_code,
        "local_files_only": True,
        "model_kwargs": {"use_safetensors": True, "dtype": dtype},
    }
    with model_errors(source):
        if (directory / "modules.json").is_file():
            return SentenceTransformer(str(directory), **arguments)
        with tempfile.TemporaryDirectory() as staged:
            _stage(directory, Path(staged), trust_remote_code=trust_remote_code)
            model = SentenceTransformer(staged, **arguments)
        transformer: Any = model[0]
        ends = model.tokenizer("a")["input_ids"][-1]
        if is_decoder(transformer.auto_model.config) and ends != model.tokenizer.eos_token_id:
            raise ModelError(f"The tokenizer of {source} cannot be made to end texts with its end-of-sequence token.")
    return model


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether a transformers configuration is of a causal language model rather than an encoder."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return causal and getattr(config, "is_causal", None) is not False


def is_raw_decoder(base: str | Path, *, trust_remote_code: bool = False) -> bool:
    """Whether a base is a language model that nobody has made into a retriever yet.

    Raises:
        ModelError: there is no such model.
    """
    from transformers import AutoConfig

    directory = fetch_model(resolve_model(base, trust_remote_code=trust_remote_code))
    check_model(directory, trust_remote_code=trust_remote_code)
    if (directory / "modules.json").is_file():
        return False
    with model_errors(base):
        return is_decoder(AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code))


def append_eos(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same fast tokenizer, ending every text with its end-of-sequence token.

    The token comes from the post-processor stored in ``tokenizer.json``, so every program that reads the file
    appends it, and truncation leaves room for it. Padding goes to the right; the padding token is the
    end-of-sequence token where there is none.

    Raises:
        ModelError: the tokenizer is not a fast one or has no end-of-sequence token.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = getattr(tokenizer, "backend_tokenizer", None)
    eos = tokenizer.eos_token
    if backend is None or eos is None:
        lacking = "tokenizer.json" if backend is None else "eos_token in tokenizer_config.json"
        raise ModelError(f"The tokenizer has no {lacking}; a decoder used as a retriever pools at that token.")
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = tokenizer("a")["input_ids"]
    if ids[-1] != tokenizer.eos_token_id:
        start = next(at for at in range(len(ids)) if ids[at : at + len(text)] == text)
        after = [*ids[start + len(text) :], tokenizer.eos_token_id]
        state = json.loads(backend.to_str())
        state["post_processor"] = _template(state["post_processor"], ids[:start], after, backend)
        backend = Tokenizer.from_str(json.dumps(state))
    # The generic class takes tokenizer.json at its word, and drops add_bos_token, which would override it.
    special = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{"pad_token": eos, **special},
        model_max_length=tokenizer.model_max_length,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _template(old: Any, before: list[int], after: list[int], backend: Any) -> dict[str, Any]:
    """Post-processor that puts the tokens ``before`` and ``after`` around a text, in place of ``old``.

    It has to be one template: a second one in a sequence takes the tokens of the first for texts of their own.
    """

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        first, last = (
            [{"SpecialToken": {"id": backend.id_to_token(id_), "type_id": type_id}} for id_ in part]
            for part in (before, after)
        )
        return [*first, {"Sequence": {"id": sequence, "type_id": type_id}}, *last]

    names = {backend.id_to_token(id_): id_ for id_ in (*before, *after)}
    template = {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {name: {"id": name, "ids": [id_], "tokens": [name]} for name, id_ in names.items()},
    }
    parts = old["processors"] if old and old["type"] == "Sequence" else [old] if old else []
    kept = [part for part in parts if part["type"] == "ByteLevel"]  # only mends offsets
    return {"type": "Sequence", "processors": [*kept, template]} if kept else template


def _stage(source: Path, staged: Path, *, trust_remote_code: bool) -> None:
    """Describe the raw model in ``source`` as a sentence-transformers directory that borrows its weights."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    decoder = is_decoder(config)
    if decoder:
        tokenizer = append_eos(tokenizer)
    length = _inference_length(config, tokenizer)
    for file in source.iterdir():
        if file.name == "config.json" or file.suffix == ".py":
            shutil.copyfile(file, staged / file.name)
        elif file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json"):
            (staged / file.name).symlink_to(file.resolve())
    folders = write_modules(staged, ["Transformer", "Pooling", "Normalize"])
    modes = ["lasttoken" if decoder else "mean"]
    write_json(folders[1] / "config.json", pooling_config(config.get_text_config().hidden_size, modes))
    prompts = DECODER_PROMPTS if decoder else {"query": "", "document": ""}
    write_sentence_config(staged, max_length=length, prompts=prompts)
    write_tokenizer(staged, tokenizer, max_length=length)


def _inference_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    positions = getattr(config, "max_position_embeddings", None) or MAX_INFERENCE_LENGTH
    if config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= (config.pad_token_id or 0) + 1
    return min(positions, tokenizer.model_max_length, MAX_INFERENCE_LENGTH)
