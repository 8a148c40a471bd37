"""Settings in words: what is said of a value that cannot be used, and a table of all."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["settings_table", "unknown_name", "wrong_value"]

_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_BOUNDS = {"gt": "above {}", "ge": "from {}", "lt": "below {}", "le": "up to {}"}


def wrong_value(owner: type[BaseModel], error: ValidationError) -> str:
    """Of the first value that cannot be used, and of what its type and bounds allow."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in owner.model_fields:
        return unknown_name([name], owner.model_fields)
    field = owner.model_fields[name]
    default = "what suits corpus and machine" if field.default is None else f"the default, {field.default!r}"
    remedy = f"; leave it out for {default}" if not field.is_required() else ""
    place = "".join(f"[{part}]" for part in first["loc"][1:] if isinstance(part, int))
    allowed = _words(field.annotation, field.metadata)
    return f"{name}{place}={first['input']!r} cannot be used: {'the list' if place else 'it'} must be {allowed}{remedy}"


def unknown_name(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Of names that no setting has, the closest that there is."""
    known, wrong = sorted(known), sorted(unknown)
    close = [match for name in wrong for match in difflib.get_close_matches(name, known, n=1)]
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    return f"Unknown setting {', '.join(wrong)}.{hint} Settings are: {', '.join(known)}"


def settings_table(top: type[BaseModel], groups: Mapping[str, type[BaseModel]]) -> str:
    """Markdown tables of all settings: name, default, what it may be, meaning.

    Args:
        top: the settings that are in no group.
        groups: those that are, by the name of the group.
    """
    parts = []
    for title, owner in {"": top, **groups}.items():
        meanings = _meanings(owner)
        rows = [
            f"| `{name}` | {_default(field.default)} | {_words(field.annotation, field.metadata)} | {meanings[name]} |"
            for name, field in owner.model_fields.items()
            if name not in groups
        ]
        heading = [f"## {title}", "", (owner.__doc__ or "").split("\n")[0].replace("``", "`"), ""] if title else []
        parts.append("\n".join([*heading, "| setting | default | it may be | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _default(value: Any) -> str:
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else list(value) if isinstance(value, tuple) else value}`"


def _meanings(owner: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of each attribute, on one line."""
    listed = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2].partition("\nRaises:")[0]
    entries = re.findall(r"^    (\w+): (.+(?:\n        .+)*)", listed, re.M)
    return {name: " ".join(text.replace("``", "`").split()) for name, text in entries}


def _words(annotation: Any, metadata: Iterable[Any]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [getattr(piece, "metadata", [piece]) for piece in parts[1:]]
        return _words(parts[0], [bound for some in inner for bound in some])
    if origin in (Union, UnionType):
        return _words(next(part for part in parts if part is not NoneType), metadata)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        return f"a list, {'not empty, ' if list(metadata) else ''}each {_words(parts[0], ())}"
    bounds = [
        words.format(f"{getattr(bound, mark):,}")
        for bound in metadata
        for mark, words in _BOUNDS.items()
        if getattr(bound, mark, None) is not None
    ]
    return " ".join([_TYPES[annotation], *bounds])
