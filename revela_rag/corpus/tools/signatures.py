"""The parameters of a Python function as a JSON Schema: so agents' libraries describe it to a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import date, time
from enum import Enum
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

__all__ = ["parameters_of"]

_TYPES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "boolean"),
    ((int,), "integer"),
    ((float,), "number"),
    ((str, bytes, date, time, UUID, PurePath), "string"),
    ((NoneType,), "null"),
    ((Mapping,), "object"),
    ((Sequence, Set), "array"),
)
_TAKEN: dict[Any, dict[str, Any]] = {  # *args and **kwargs
    inspect.Parameter.VAR_POSITIONAL: {"type": "array"},
    inspect.Parameter.VAR_KEYWORD: {"type": "object"},
}
_NAMED = {each.__name__: each for each in (bool, int, float, str, list, dict, tuple, set)}


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A JSON Schema with a property for each parameter; empty for what has no signature, as some built-in functions.

    Types are named as in JSON, choices and descriptions (``Annotated[str, "Name of a city."]``) are kept. What JSON has
    no type for, and names that cannot be resolved, stand as they are written.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # annotations are any code
        hints = {}
    shared: dict[str, Any] = {}
    properties = {
        parameter.name: _TAKEN.get(parameter.kind) or _schema(hints.get(parameter.name, parameter.annotation), shared)
        for parameter in parameters
    }
    return {"type": "object", "properties": properties, **({"$defs": shared} if shared else {})}


def _schema(hint: Any, shared: dict[str, Any]) -> dict[str, Any]:
    """The schema of an annotation; what it refers to goes into ``shared``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        said = (each if isinstance(each, str) else getattr(each, "description", None) for each in inner[1:])
        about = next((text for text in said if isinstance(text, str) and text), "")
        return {**_schema(inner[0], shared), **({"description": about} if about else {})}
    if origin in (Union, UnionType):
        parts = [_schema(each, shared) for each in inner if each is not NoneType]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if origin is Literal:
        return _choices(inner)
    kind = origin or (_NAMED.get(hint, hint) if isinstance(hint, str) else hint)
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return _choices([member.value for member in kind])
        if callable(make := getattr(kind, "model_json_schema", None)):  # of pydantic
            with suppress(Exception):  # some have fields without a schema
                made = dict(make())
                shared.update(made.pop("$defs", {}))
                return made
    name = _json_type(kind)
    if name == "array" and inner:
        return {"type": name, "items": _schema(inner[0], shared)}
    if name:
        return {"type": name}
    if hint is Any or hint is object or hint is inspect.Parameter.empty:
        return {}
    return {"type": hint if isinstance(hint, str) else inspect.formatannotation(hint)}


def _choices(values: Iterable[Any]) -> dict[str, Any]:
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    plain = [value for value in plain if isinstance(value, str | int | float)]
    return {"type": list(dict.fromkeys(_json_type(type(value)) for value in plain)), "enum": plain}


def _json_type(kind: Any) -> str:
    if kind is Iterable:
        return "array"
    return next((name for types, name in _TYPES if isinstance(kind, type) and issubclass(kind, types)), "")
