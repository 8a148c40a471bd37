"""Raw transformers models, which nobody has made into a retriever yet: how they are read as one.

Encoders are pooled by the mean and have no prompts. Decoders, attention or state-space, are pooled at an
end-of-sequence token that the tokenizer itself appends, padded on the right, with the prompts "Query: " and "Passage: "
(Cai et al., "Revela", ICLR 2026, section 4). Either way the state is brought to unit length.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela_rag.errors import ModelError
from revela_rag.model.safety import model_errors
from revela_rag.model.safety.files import json_object
from revela_rag.model.st_format import (
    MODULES,
    pooling_config,
    write_json,
    write_modules,
    write_sentence_config,
    write_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["MAX_LENGTH", "append_eos", "is_raw", "is_raw_decoder", "positions", "raw_recipe", "stage"]

#: Tokens kept of a text, where the model itself allows them.
MAX_LENGTH = 2048
_POSITIONS_AFTER_PADDING = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer"}
_WORDS = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class _Reading:
    pooling: str
    query: str
    document: str

    @property
    def prompts(self) -> dict[str, str]:
        return {"query": self.query, "document": self.document}


_ENCODER, _DECODER = _Reading("mean", "", ""), _Reading("lasttoken", "Query: ", "Passage: ")


def is_raw(directory: Path) -> bool:
    """Whether a model's directory says nothing of pooling and prompts."""
    return not (directory / MODULES).is_file()


def is_raw_decoder(directory: Path) -> bool:
    """Whether a directory holds a causal language model that is no retriever yet.

    Raises:
        ModelError: its ``config.json`` cannot be read.
    """
    with model_errors(directory, "cannot be read"):
        return is_raw(directory) and _reading(json_object(directory / "config.json")) is _DECODER


def raw_recipe(directory: Path) -> str:
    """All that decides the vectors of a raw model beside its weights, ``config.json`` and ``tokenizer.json``.

    Empty for an encoder of at most 2048 tokens: its fingerprint is that of its files.
    """
    config = json_object(directory / "config.json")
    reading, words = _reading(config), {name: json_object(directory / name) for name in _WORDS}
    lengths = (config.get("max_position_embeddings"), words[_WORDS[0]].get("model_max_length"))
    if reading is _ENCODER and any(isinstance(length, int) and length <= MAX_LENGTH for length in lengths):
        return ""
    decides = [MAX_LENGTH, reading.pooling, reading.prompts, words if reading is _DECODER else {}]
    return json.dumps(decides, sort_keys=True)


def _reading(config: Mapping[str, Any]) -> _Reading:
    """How the model of a ``config.json`` is read: as a causal language model or as an encoder."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    both_ways = config.get("is_causal") is False or config.get("use_bidirectional_attention") in (True, "all")
    if both_ways or (kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")):
        return _ENCODER
    named = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())
    return _DECODER if named or kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else _ENCODER


def stage(source: Path, staged: Path, *, trust_remote_code: bool) -> None:
    """Describe the raw model in ``source`` as a sentence-transformers directory that borrows its weights.

    Args:
        source: a directory that has passed :func:`revela_rag.model.safety.check_model`.
        staged: an empty directory.
        trust_remote_code: run Python files that come with the model.

    Raises:
        ModelError: a decoder's tokenizer cannot append an end-of-sequence token.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    reading = _reading(json_object(source / "config.json"))
    if reading is _DECODER:
        tokenizer = append_eos(tokenizer)
    length = _length(config, tokenizer)
    for file in source.iterdir():
        if file.name == "config.json" or file.suffix == ".py":
            shutil.copyfile(file, staged / file.name)
        elif file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json"):
            (staged / file.name).symlink_to(file.resolve())
    folders = write_modules(staged, ["Transformer", "Pooling", "Normalize"])
    width = config.get_text_config().hidden_size
    write_json(folders[1] / "config.json", pooling_config(width, [reading.pooling]))
    write_sentence_config(staged, max_length=length, prompts=reading.prompts)
    write_tokenizer(staged, tokenizer, max_length=length)


def positions(config: PretrainedConfig, rows: int) -> int:
    """How many tokens a table of positions serves; in some models the first rows stand for padding."""
    return rows - ((config.pad_token_id or 0) + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0)


def _length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    rows = getattr(config, "max_position_embeddings", None)
    return min(positions(config, rows) if rows else MAX_LENGTH, tokenizer.model_max_length, MAX_LENGTH)


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
