"""Tool definitions in the JSON files of a folder, told from all else that such files hold."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from revela_rag.corpus.formats.readers import Unreadable
from revela_rag.corpus.tools.definitions import LISTS, definitions, tool_document
from revela_rag.corpus.types import Document

__all__ = ["tools_of_file"]

_NAME = re.compile(r"[\w.:/-]{1,128}")
_BESIDE = frozenset(  # keys of a catalogue; with further ones it is a recorded request to a model, or a fixture
    {"jsonrpc", "id", "nextCursor", "_meta", "$schema", "name", "title", "description", "version"}
)
_OPENAI = frozenset({"type", "function", "name", "description", "parameters", "strict"})
_MARKS = (b'"parameters"', b'"inputSchema"', b'"input_schema"', b'"function"')
_NOTHING = "JSON, but no tools"
_DEEPEST = 3
_SHOWN, _TAIL = 60, 64


def tools_of_file(content: bytes, name: str) -> list[Document]:
    """The tools that a JSON file holds, if it holds nothing but tools.

    Stricter than for a file that somebody names: every entry must have a name that a model can call it by, and
    parameters that are an object's JSON Schema. What has neither only says ``"type": "function"`` and describes itself,
    or has nothing but what the form of OpenAI has.

    Args:
        content: of the file.
        name: of the file in its folder. Before the tool's name, with ``#`` between, it makes the document's id: other
            files may hold a tool of the same name.

    Raises:
        Unreadable: it holds something else; the message is the reason.
        OSError: it is broken or cut short, as while somebody writes it, so that its tools may be there still.
    """
    content = _as_utf8(content)
    marked = b'"name"' in content and any(mark in content for mark in _MARKS)
    if not marked and content[-_TAIL:].rstrip().endswith((b"}", b"]")):
        raise Unreadable(_NOTHING)  # most files, without being parsed
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise Unreadable(_NOTHING) from error
    except ValueError as error:
        raise OSError(errno.EILSEQ, "broken JSON") from error
    if not _is_catalogue(value, _DEEPEST):
        raise Unreadable(_reason(value, _DEEPEST))
    entries = ({"description": "", **_bare(entry)} for entry in definitions(value))
    tools = [tool for entry in entries if (tool := tool_document(entry))]
    return [replace(tool, id=f"{name}#{tool.id}", metadata={**tool.metadata, "source": name}) for tool in tools]


def _as_utf8(content: bytes) -> bytes:
    encoding = json.detect_encoding(content)
    return content if encoding.startswith("utf-8") else content.decode(encoding, "replace").encode()


def _is_catalogue(value: Any, depth: int) -> bool:
    """Whether parsed JSON is a tool, a list of tools, or what an MCP server answers with to ``tools/list``."""
    if isinstance(value, list):
        return bool(value) and depth > 0 and all(_is_catalogue(entry, depth - 1) for entry in value)
    if not isinstance(value, Mapping):
        return False
    inner = _lists(value)
    if not inner:
        return _is_tool(value)
    return _is_wrapper(value, inner) and depth > 0 and _is_catalogue(value[inner[0]], depth - 1)


def _lists(value: Mapping[str, Any]) -> list[str]:
    return [key for key in (*LISTS, "result") if isinstance(value.get(key), list | Mapping)]


def _is_wrapper(value: Mapping[str, Any], inner: list[str]) -> bool:
    return len(inner) == 1 and value.keys() <= {*_BESIDE, *inner}


def _reason(value: Any, depth: int) -> str:
    """Why parsed JSON is no catalogue: where half of a list or more are tools, the first entry that is none."""
    if isinstance(value, Mapping) and depth:
        inner = _lists(value)
        return _reason(value[inner[0]], depth - 1) if inner and _is_wrapper(value, inner) else _NOTHING
    if not isinstance(value, list) or not depth:
        return _NOTHING
    if len(value) == 1:
        return _reason(value[0], depth - 1)
    bad = [place for place, entry in enumerate(value) if not _is_catalogue(entry, depth - 1)]
    if not bad or 2 * len(bad) > len(value):
        return _NOTHING
    entry = value[bad[0]]
    name = _bare(entry).get("name") if isinstance(entry, Mapping) else None
    shown = repr(name[:_SHOWN]) if isinstance(name, str) else str(bad[0] + 1)
    return f"JSON whose entry {shown} is no tool"


def _bare(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((entry[key] for key in ("function", "toolSpec") if isinstance(entry.get(key), Mapping)), entry)


def _is_tool(entry: Mapping[str, Any]) -> bool:
    tool = _bare(entry)
    name, parameters = tool.get("name"), tool.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return False
    for key in ("inputSchema", "input_schema"):
        if key in tool:
            return tool[key] in ({}, {"json": {}}) or _is_object(tool[key])
    typed, wrapped = entry.get("type") == "function", isinstance(entry.get("function"), Mapping)
    told = isinstance(tool.get("description"), str)
    if not told and (typed or wrapped):  # calls of tools and functions of programs have more keys, or fewer
        told = {*entry, *tool} <= _OPENAI and (wrapped or "parameters" in tool)
    if parameters:
        return told and _is_object(parameters)
    return told and (typed or "toolSpec" in entry)


def _is_object(schema: Any) -> bool:
    schema = schema.get("json", schema) if isinstance(schema, Mapping) else schema
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties", {}), Mapping):
        return False
    return "properties" in schema if "type" not in schema else str(schema["type"]).lower() == "object"
