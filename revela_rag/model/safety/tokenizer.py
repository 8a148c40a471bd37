"""Tokenizers that could make very much of a short text, or read files from elsewhere."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from revela_rag.errors import ModelError
from revela_rag.model.safety.files import json_object, walk
from revela_rag.model.safety.patterns import check_patterns

__all__ = ["check_tokenizer", "stored_tokenizer"]

_MOST_GROWTH = 100.0  # characters that a normaliser may make of one
_MOST_ADDED = 1_000  # characters or tokens that may be put around a text
_MOST_PADDING = 2**20


def check_tokenizer(folder: Path, root: Path) -> None:
    """Refuse a tokenizer that multiplies texts, takes endless time, or reads files outside of the model.

    Raises:
        ModelError: naming the file and the setting.
    """
    file = folder / "tokenizer.json"
    if file.exists():
        stored = stored_tokenizer(file)
        _check_stored(str(file), stored)
        check_patterns(file, stored)
    settings = folder / "tokenizer_config.json"
    for key, value in json_object(settings).items():
        if not (isinstance(value, str) and value and key.endswith("_file")):
            continue
        # links are not followed: a hub's cache holds nothing else
        place = Path(os.path.abspath(value))  # noqa: PTH100
        if place.exists() and not place.is_relative_to(os.path.abspath(root)):  # noqa: PTH100
            raise ModelError(f"{str(settings)!r} reads {value!r} as its {key}, outside the model; do not load it.")


def stored_tokenizer(file: Path) -> dict[str, Any]:
    """What a ``tokenizer.json`` says but for its vocabulary; read once, and again when its size or time changes.

    Raises:
        ModelError: it holds no JSON object.
    """
    about = file.stat()
    return _stored(str(file), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=16)
def _stored(name: str, size: int, modified: int) -> dict[str, Any]:
    stored = json_object(Path(name))
    if isinstance(model := stored.get("model"), dict):
        stored["model"] = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    return stored


def _check_stored(name: str, stored: dict[str, Any]) -> None:
    growth, added = 1.0, 0.0
    for part in ("normalizer", "pre_tokenizer"):
        for kind, step in walk(stored.get(part)):
            if not isinstance(step, dict) or kind == "pattern":
                continue
            content = step.get("content") or step.get("prepend") or step.get("replacement") or ""
            longer = len(content) if isinstance(content, str) else _MOST_ADDED + 1
            if step.get("type") == "Replace":
                factor = _factor(step.get("pattern"), longer)
                growth, added = growth * factor, added * factor
            else:
                added += longer
    if growth > _MOST_GROWTH:
        raise ModelError(f"{name!r} makes up to {growth:.3g} characters of one (its normalizer); do not load it.")
    tokens = sum(len(value) for key, value in walk(stored.get("post_processor")) if isinstance(value, list))
    if max(added, tokens) > _MOST_ADDED:
        raise ModelError(
            f"{name!r} puts up to {max(added, tokens):,.0f} characters or tokens around every text; do not load it."
        )
    padding = stored.get("padding")
    for key, value in walk(padding):
        if isinstance(value, int) and key in ("Fixed", "pad_to_multiple_of") and value > _MOST_PADDING:
            raise ModelError(f"{name!r} pads every text to {value:,} tokens; do not load this model.")


def _factor(pattern: Any, longer: int) -> float:
    """How many times as long a text can become when a pattern is replaced by ``longer`` characters."""
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(text, str) and text:
        return max(1.0, longer / len(text))
    return 1.0 + longer  # an expression may match nothing at all, between any two characters
