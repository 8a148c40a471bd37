"""Tool definitions in the JSON files of a folder, told from all else that such files hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from revela_rag.corpus.tools import LISTS, definitions, tool_document
from revela_rag.corpus.types import Document

__all__ = ["tools_of_file"]

_NAME = re.compile(r"[\w.:/-]{1,128}")
_BESIDE = frozenset(  # keys of a catalogue; with further ones it is a recorded request to a model, or a fixture
    {"jsonrpc", "id", "nextCursor", "_meta", "$schema", "name", "title", "description", "version"}
)
_MARKS = (b'"parameters"', b'"inputSchema"', b'"input_schema"', b'"function"')
_DEEPEST = 3


def tools_of_file(content: bytes, name: str) -> list[Document]:
    """The tools that a JSON file holds, if it holds nothing but tools; none of any other file.

    Stricter than for a file that somebody names: every entry must have a name that a model can call it by, and
    parameters that are an object's JSON Schema. What has neither only says ``"type": "function"`` and describes itself.

    Args:
        content: of the file.
        name: of the file in its folder. Before the tool's name, with ``#`` between, it makes the document's id: other
            files may hold a tool of the same name.
    """
    if b'"name"' not in content or not any(mark in content for mark in _MARKS):
        return []  # most files, without being parsed
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return []
    if not _is_catalogue(value, _DEEPEST):
        return []
    tools = [tool for entry in definitions(value) if (tool := tool_document(entry))]
    return [replace(tool, id=f"{name}#{tool.id}", metadata={**tool.metadata, "source": name}) for tool in tools]


def _is_catalogue(value: Any, depth: int) -> bool:
    """Whether parsed JSON is a tool, a list of tools, or what an MCP server answers with to ``tools/list``."""
    if isinstance(value, list):
        return bool(value) and depth > 0 and all(_is_catalogue(entry, depth - 1) for entry in value)
    if not isinstance(value, Mapping):
        return False
    inner = [key for key in (*LISTS, "result") if isinstance(value.get(key), list | Mapping)]
    if not inner:
        return _is_tool(value)
    return (
        len(inner) == 1
        and depth > 0
        and value.keys() <= {*_BESIDE, *inner}
        and _is_catalogue(value[inner[0]], depth - 1)
    )


def _is_tool(entry: Mapping[str, Any]) -> bool:
    wrapped = next((entry[key] for key in ("function", "toolSpec") if isinstance(entry.get(key), Mapping)), None)
    tool = entry if wrapped is None else wrapped
    name, described = tool.get("name"), isinstance(tool.get("description"), str)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return False
    for key in ("inputSchema", "input_schema"):
        if key in tool:
            return _is_object(tool[key])
    if tool.get("parameters"):
        return described and _is_object(tool["parameters"])
    return described and (entry.get("type") == "function" or "toolSpec" in entry)


def _is_object(schema: Any) -> bool:
    schema = schema.get("json", schema) if isinstance(schema, Mapping) else schema
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties", {}), Mapping):
        return False
    return "properties" in schema if "type" not in schema else str(schema["type"]).lower() == "object"
