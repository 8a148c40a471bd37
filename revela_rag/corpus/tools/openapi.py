"""The operations of an OpenAPI or Swagger description, as tool definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from revela_rag.corpus.tools.schemas import flattened

__all__ = ["is_openapi", "operations"]

_METHODS = ("get", "put", "post", "patch", "delete", "head", "options", "trace")
_VERSIONS = frozenset({"openapi", "swagger"})
_DEEPEST, _MOST = 2, 100  # levels of a schema that are inlined, and properties of each: a schema may hold itself often
_IN_ALL = 1_000  # schemas that are inlined in one; a document of a tool says much less


def is_openapi(value: Any) -> bool:
    """Whether parsed JSON describes an HTTP interface."""
    return isinstance(value, Mapping) and isinstance(value.get("paths"), Mapping) and not _VERSIONS.isdisjoint(value)


def operations(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One definition for each operation: ``operationId`` (else method and path), what is said of it, its parameters.

    Args:
        spec: a parsed OpenAPI 3 or Swagger 2 document. References are followed inside it, never to files or addresses.
    """
    made = _Inlined(spec)
    for path, item in spec["paths"].items():
        item = _resolved(item, spec)
        for method in _METHODS:
            operation = _resolved(item.get(method), spec)
            if not operation:
                continue
            said = [text for key in ("summary", "description") if isinstance(text := operation.get(key), str)]
            name = operation.get("operationId")
            yield {
                "name": name if isinstance(name, str) and name.strip() else f"{method.upper()} {path}",
                "description": "\n".join(text for text in dict.fromkeys(said) if text.strip()),
                "parameters": [*_parameters(item, made), *_parameters(operation, made), *_body(operation, made)],
            }


class _Inlined:
    """The schemas of a description with what they refer to in its place, each made once."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        self._made: dict[
            tuple[int, int], tuple[Any, dict[str, Any]]
        ] = {}  # with the schema, so that its id stays its own

    def __call__(self, schema: Any, depth: int = _DEEPEST, left: Iterator[int] | None = None) -> dict[str, Any]:
        """A schema with what it refers to or combines in its place, as deep and as often as is written out."""
        left = iter(range(_IN_ALL)) if left is None else left
        if known := self._made.get((id(schema), depth)):
            return known[1]
        if next(left, None) is None:
            return {}
        found = dict(flattened(schema, self.spec))
        properties, items = found.get("properties"), found.get("items")
        if isinstance(properties, Mapping):
            shown = islice(properties.items(), _MOST if depth else 0)
            found["properties"] = {name: self(told, depth - 1, left) for name, told in shown}
        if isinstance(items, Mapping):
            found["items"] = self(items, depth - 1, left) if depth else {}
        self._made[id(schema), depth] = schema, found
        return found


def _parameters(owner: Mapping[str, Any], made: _Inlined) -> Iterator[dict[str, Any]]:
    listed = owner.get("parameters")
    for entry in listed if isinstance(listed, list) else []:
        parameter = _resolved(entry, made.spec)
        schema = made(parameter.get("schema"))
        if parameter.get("in") == "body":
            yield from _named(schema)
        elif parameter:
            yield {**schema, **{key: value for key, value in parameter.items() if key != "schema"}}


def _body(operation: Mapping[str, Any], made: _Inlined) -> Iterator[dict[str, Any]]:
    content = _resolved(operation.get("requestBody"), made.spec).get("content")
    for media in content.values() if isinstance(content, Mapping) else []:
        if isinstance(media, Mapping):
            yield from _named(made(media.get("schema")))
            return  # the others say the same in another format


def _named(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    properties = schema.get("properties")
    for name, told in properties.items() if isinstance(properties, Mapping) else []:
        yield {**(told if isinstance(told, Mapping) else {}), "name": name}


def _resolved(value: Any, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping, through references of the form ``#/components/schemas/Pet``; empty for anything else."""
    for _ in range(_MOST):
        reference = value.get("$ref") if isinstance(value, Mapping) else None
        if not isinstance(reference, str):
            break
        if not reference.startswith("#/"):
            return {}
        value = spec
        for key in reference[2:].split("/"):
            value = value.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
