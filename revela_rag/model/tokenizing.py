"""Which settings beside a ``tokenizer.json`` make another tokenizer of it.

transformers rebuilds some tokenizers from ``tokenizer_config.json``. As a rule that says again what ``tokenizer.json``
says; what it says otherwise decides the tokens, and so the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revela_rag.model.safety.files import json_object, walk
from revela_rag.model.safety.tokenizer import stored_tokenizer

__all__ = ["normalizer_settings", "unlike_stored"]

#: Settings of BERT's normalizer: the name in ``tokenizer_config.json``, and the one in ``tokenizer.json``.
_NORMALIZER = (
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
)
_USUAL = {"padding_side": "right", "truncation_side": "right", "split_special_tokens": False}


def unlike_stored(folder: Path) -> dict[str, Any]:
    """The settings of a module's tokenizer that go against its ``tokenizer.json``; as a rule there are none."""
    if not (folder / "tokenizer.json").is_file():
        return {}
    stored = stored_tokenizer(folder / "tokenizer.json")
    said = {**json_object(folder / "tokenizer_config.json"), **json_object(folder / "special_tokens_map.json")}
    odd = {key: said[key] for key, usual in _USUAL.items() if key in said and said[key] not in (usual, None)}
    odd |= normalizer_settings(said, stored)
    return odd | _around(said, stored) | _unknown(said, stored) | _added(folder, said, stored)


def normalizer_settings(said: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of BERT's normalizer that ``tokenizer.json`` has otherwise."""
    normalizer = stored.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return {}
    return {key: said[key] for key, name in _NORMALIZER if key in said and said[key] != normalizer.get(name)}


def _around(said: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens put before and after every text, where others are in use."""
    processor = {key: value for key, value in walk(stored.get("post_processor")) if isinstance(value, list)}
    template = processor.get("single") or [{}]
    odd = {}
    for part, flag, name, older in (
        (template[0], "add_bos_token", "cls_token", "cls"),
        (template[-1], "add_eos_token", "sep_token", "sep"),
    ):
        used = part["SpecialToken"]["id"] if "SpecialToken" in part else (processor.get(older) or [None])[0]
        if said.get(flag) not in (None, used is not None):
            odd[flag] = said[flag]
        if used is not None and said.get(name) and _content(said[name]) != used:
            odd[name] = _content(said[name])
    return odd


def _unknown(said: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The name of the unknown token, where another is in use."""
    used, name = (stored.get("model") or {}).get("unk_token"), _content(said.get("unk_token"))
    return {"unk_token": name} if name and used is not None and name != used else {}


def _added(folder: Path, said: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens added to the vocabulary, by number, that ``tokenizer.json`` does not hold."""
    known = {str(token["id"]): token["content"] for token in stored.get("added_tokens") or []}
    more = {str(number): _content(token) for number, token in (said.get("added_tokens_decoder") or {}).items()}
    more |= {str(number): token for token, number in json_object(folder / "added_tokens.json").items()}
    odd = {number: token for number, token in more.items() if known.get(number) != token}
    return {"added_tokens": odd} if odd else {}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
