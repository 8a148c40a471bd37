"""JSON Schemas that say things by reference or by combining others, as plain ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

__all__ = ["flattened"]

_COMBINED = ("allOf", "anyOf", "oneOf")
_MOST = 100  # schemas that one is put together from, and properties of each: a schema may hold itself often


def flattened(schema: Any, root: Any) -> Mapping[str, Any]:
    """A schema with what it refers to or combines merged into it; what is below its properties stays as it is.

    Of what is said more than once the schema itself comes first. Types, choices and properties of alternatives are
    put together, null left out. A schema that neither refers nor combines is returned as it is, no mapping as empty.

    Args:
        schema: a JSON Schema.
        root: the document that references such as ``#/$defs/Pet`` are followed in; those to elsewhere are dropped.
    """
    if not isinstance(schema, Mapping):
        return {}
    if schema.keys().isdisjoint({"$ref", *_COMBINED}):
        return schema
    found: dict[str, Any] = {}
    kinds: dict[str, None] = {}
    told: dict[str, None] = {}
    choices: dict[Any, None] = {}
    properties: dict[str, list[Any]] = {}
    room = 10 * _MOST
    for part in _parts(schema, root):
        own = part.get("type")
        kinds |= dict.fromkeys(kind for kind in (own if isinstance(own, list) else [own]) if isinstance(kind, str))
        if isinstance(about := part.get("description"), str) and about.strip() and not schema.get("description"):
            told[about] = None
        listed = part.get("enum", [part["const"]] if "const" in part else None)
        if isinstance(listed, list):  # objects are not written out
            choices |= dict.fromkeys(entry for entry in islice(listed, _MOST) if isinstance(entry, str | int | float))
        inner = part.get("properties")
        shown = list(islice(inner.items(), min(_MOST, room))) if isinstance(inner, Mapping) else []
        room -= len(shown)
        for name, spec in shown:
            properties.setdefault(name, []).append(spec)
        found = {**part, **found}
    if len(kinds) > 1:
        kinds.pop("null", None)
    merged = {
        "type": list(kinds),
        "description": ", ".join(told),
        "enum": list(choices),
        "properties": {name: specs[0] if len(specs) == 1 else {"anyOf": specs} for name, specs in properties.items()},
    }
    return {**found, **{key: value for key, value in merged.items() if value}}


def _parts(schema: Mapping[str, Any], root: Any) -> Iterator[Mapping[str, Any]]:
    """The schema without what it refers to or combines, then each of those, null left out."""
    waiting: list[Any] = [schema]
    followed: set[str] = set()
    for _ in range(_MOST):
        if not waiting:
            return
        part = waiting.pop()
        if not isinstance(part, Mapping) or part.get("type") == "null":
            continue
        yield {key: value for key, value in part.items() if key not in ("$ref", *_COMBINED)}
        inside = [each for key in _COMBINED if isinstance(part.get(key), list) for each in part[key][:_MOST]]
        reference = part.get("$ref")
        if isinstance(reference, str) and reference not in followed:
            followed.add(reference)
            inside.insert(0, _target(reference, root))
        waiting += reversed(inside)


def _target(reference: str, root: Any) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        return None
    value = root
    for key in reference.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value
