"""Tool definitions, as agents hand them to a model, become documents: one a tool."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from revela_rag.corpus.identifiers import spoken
from revela_rag.corpus.text import squeeze
from revela_rag.corpus.tools.openapi import is_openapi, operations
from revela_rag.corpus.tools.schemas import flattened
from revela_rag.corpus.tools.signatures import parameters_of
from revela_rag.corpus.types import TEXT_FIELDS, Document, titled

__all__ = ["LISTS", "definitions", "describe_tool", "is_tool", "tool_definition", "tool_document"]

_WRAPPERS = ("function", "toolSpec", "result")  # OpenAI, Bedrock, an answer of an MCP server
#: Under which keys agents' protocols list tools.
LISTS = ("tools", "functions", "functionDeclarations", "function_declarations")
_SCHEMAS = ("parameters", "inputSchema", "input_schema", "args", "arguments")
_LISTED = ("required_parameters", "optional_parameters")
#: What a definition without parameters may have beside its description; with more it is a record of something else.
_ABOUT_TOOLS = frozenset({"name", "title", "description", "type", "strict", "annotations", "outputSchema", "_meta"})
_SEPARATORS = re.compile(r"[\s_./:#-]+")
_DEEPEST, _MOST = 3, 100  # levels and number of parameters that are written out


def definitions(value: Any, depth: int = _DEEPEST, seen: set[int] | None = None) -> Iterator[Any]:
    """The single definitions or records inside lists and the objects that agents' protocols wrap them in.

    What has a text of its own is a record, whatever else it holds.

    Args:
        value: parsed JSON: a list, ``{"tools": [...]}``, ``{"result": {"tools": [...]}}``, one definition, an OpenAPI
            description ...
        depth: levels of nesting to look into.
        seen: lists that were looked into; aliases of YAML may repeat one without end.
    """
    seen = set() if seen is None else seen
    if is_openapi(value):
        yield from operations(value)
        return
    if isinstance(value, Mapping) and depth and value.keys().isdisjoint(TEXT_FIELDS):
        inner = next((value[key] for key in LISTS if isinstance(value.get(key), list)), None)
        if inner is None:
            inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is not None:
            for entry in definitions(
                inner, depth - 1, seen
            ):  # what a list of tools holds is a tool, with parameters or not
                yield {"parameters": {}, **entry} if _is_bare(entry) else entry
            return
    if isinstance(value, list) and depth:
        if id(value) in seen:
            return
        seen.add(id(value))
        for entry in value:
            yield from definitions(entry, depth - 1, seen)
    else:
        yield value


def _is_bare(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "name" in entry and not is_tool(entry)


def is_tool(record: Mapping[str, Any]) -> bool:
    """Whether a record is the definition of a tool: it has parameters, or nothing that a tool would not have."""
    if any(isinstance(record.get(key), Mapping) for key in _WRAPPERS):
        return True
    if any(isinstance(record.get(key), Mapping | list) for key in (*_SCHEMAS, *_LISTED)):
        return True
    return record.keys() <= _ABOUT_TOOLS


def tool_definition(item: Any) -> Mapping[str, Any] | None:
    """Name, description and parameters of a tool object, or None for what is no tool.

    Args:
        item: a LangChain, LlamaIndex or MCP tool, a pydantic class, or a Python function.
    """
    about: Any = getattr(item, "metadata", None)
    if isinstance(getattr(about, "name", None), str) and callable(getattr(about, "get_parameters_dict", None)):
        described = str(about.description or "")  # of functions LlamaIndex puts the signature first
        if described.startswith(f"{about.name}("):
            described = described.partition("\n")[2]
        described = inspect.cleandoc(described)  # some keep a docstring's indentation and some do not
        return {"name": about.name, "description": described, "parameters": about.get_parameters_dict()}
    if isinstance(item, type) and callable(make := getattr(item, "model_json_schema", None)):
        schema = make()
        said = flattened(schema, schema).get("description", "")
        return {"name": item.__name__, "description": said, "parameters": schema}
    if isinstance(getattr(item, "name", None), str) and isinstance(getattr(item, "description", None), str):
        schema = next((found for key in _SCHEMAS if isinstance(found := getattr(item, key, None), Mapping)), {})
        if "'$ref'" in str(schema):  # the arguments of LangChain come without what they refer to
            make = getattr(getattr(item, "tool_call_schema", None), "model_json_schema", None)
            schema = make() if callable(make) else schema
        return {"name": item.name, "description": inspect.cleandoc(item.description), "parameters": schema}
    if inspect.isroutine(item):
        return {"name": item.__name__, "description": inspect.getdoc(item) or "", "parameters": parameters_of(item)}
    return None


def tool_document(record: Mapping[str, Any]) -> Document | None:
    """The document of one definition, or None for what has no name or no place for a description or parameters.

    Its id, and ``tool`` in its metadata, is the tool's name, its title the words of that name, its text the description
    and the parameters with what is said of them.

    Args:
        record: a definition in the form of OpenAI, Anthropic, MCP, Bedrock, Gemini or RapidAPI.
    """
    record = next((inner for key in _WRAPPERS if isinstance(inner := record.get(key), Mapping)), record)
    name, description = record.get("name"), record.get("description")
    if not isinstance(name, str) or not name.strip() or not record.keys() & {"description", *_SCHEMAS, *_LISTED}:
        return None
    shown = record.get("title")
    said = [shown] if isinstance(shown, str) and _words(shown).lower() != _words(name).lower() else []
    said += [description] if isinstance(description, str) else []
    parameters = [line for key in (*_SCHEMAS, *_LISTED) for line in _parameters(record.get(key))][:_MOST]
    lines = [text.strip() for text in said if text.strip()]
    if parameters:
        lines.append(f"Parameters: {'; '.join(parameters)}")
    return Document(name, "\n".join(lines), _words(name), metadata={"tool": name})


def describe_tool(record: Mapping[str, Any]) -> str:
    """A definition as one text, as a chunk of it is embedded: the words of its name, then what it does and takes."""
    document = tool_document({"description": "", **record})
    return titled(document.title, document.text) if document else str(record.get("name", ""))


def _words(name: str) -> str:
    """``getUserName``, ``get_user_name`` and ``mcp/get-user-name`` in words; a name with spaces stays as it is."""
    if re.search(r"\s", name.strip()):
        return squeeze(name)
    return " ".join(piece for part in _SEPARATORS.split(name) for piece in spoken(part, rest=True))


def _parameters(schema: Any, root: Any = None, above: str = "", depth: int = _DEEPEST) -> list[str]:
    """One text for each parameter, ``name (type): description``, those inside objects by their path.

    References are followed inside ``root``, the schema itself where none is given.
    """
    found: list[str] = []
    schema = schema.get("json", schema) if isinstance(schema, Mapping) else schema
    root = schema if root is None else root
    for name, spec in _fields(schema, root):
        if len(found) >= _MOST:
            break
        told = flattened(spec, root) if isinstance(spec, Mapping) else {"type": spec}
        kinds = told.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        kind = "/".join(entry for entry in kinds if isinstance(entry, str))
        choices = told.get("enum")
        about = [told["description"]] if isinstance(told.get("description"), str) else []
        plain = [str(v) for v in choices if isinstance(v, str | int | float)] if isinstance(choices, list) else []
        about += [f"one of {', '.join(plain[:20])}"] if plain else []
        line = f"{above}{name} ({kind})" if kind else f"{above}{name}"
        found.append(squeeze(f"{line}: {', '.join(about)}" if any(about) else line))
        if depth > 1:
            inside = told if "properties" in told else told.get("items")
            found += _parameters(inside, root, f"{above}{name}.", depth - 1) if isinstance(inside, Mapping) else []
    return found


def _fields(schema: Any, root: Any) -> Iterator[tuple[str, Any]]:
    """Names and specifications of a JSON Schema, of a plain mapping, or of a list of named parameters."""
    if isinstance(schema, Mapping):
        plain = not {"type", "properties", "$schema", "$ref", "anyOf", "oneOf", "allOf"} & schema.keys()
        fields = schema if plain else flattened(schema, root).get("properties")
        if isinstance(fields, Mapping):
            yield from ((str(name), spec) for name, spec in fields.items())
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for spec in schema:
            if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
                yield spec["name"], spec
