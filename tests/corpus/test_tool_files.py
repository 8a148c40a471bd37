"""JSON files of a folder are read where they hold tools and nothing else, and lines may hold whole catalogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from revela_rag.corpus import CorpusReport, iter_documents, load_corpus
from revela_rag.errors import CorpusError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "Name of a city."}}}
MCP = {"name": "get_weather", "description": "Weather of a city.", "inputSchema": SCHEMA}
SAID = {"name": "get_weather", "description": "Weather of a city."}
FUNCTION = {**SAID, "parameters": SCHEMA}
TEXT = "Weather of a city.\nParameters: city (string): Name of a city."


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


@pytest.mark.parametrize(
    "value",
    [
        MCP,
        [MCP],
        {"tools": [MCP], "nextCursor": "2"},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [MCP]}},
        {"name": "weather", "description": "An agent.", "version": "1", "tools": [MCP]},
        {**SAID, "input_schema": SCHEMA},
        {"type": "function", "function": FUNCTION},
        {"type": "function", **FUNCTION},
        [FUNCTION],
        [{"functionDeclarations": [{**SAID, "parameters": {**SCHEMA, "type": "OBJECT"}}]}],
        {"toolSpec": {**SAID, "inputSchema": {"json": SCHEMA}}},
    ],
)
def test_a_folder_may_hold_tools_in_every_form(value: Any, tmp_path: Path) -> None:
    write(tmp_path, {"README.md": "About the tools.", "tools/a.json": value})
    readme, tool = iter_documents(tmp_path)
    assert (readme.id, tool.id, tool.title, tool.text) == ("README.md", "tools/a.json#get_weather", "get weather", TEXT)
    assert tool.metadata == {"tool": "get_weather", "source": "tools/a.json"}


def test_tools_of_one_name_are_told_apart_by_their_files(tmp_path: Path) -> None:
    other = {**MCP, "description": "Weather of a ship."}
    write(tmp_path, {"b.json": [MCP, {"type": "function", "function": {"name": "now", "description": "The time."}}]})
    write(tmp_path, {"a.json": other})
    assert [d.id for d in iter_documents(tmp_path)] == ["a.json#get_weather", "b.json#get_weather", "b.json#now"]
    before = load_corpus(tmp_path).chunks
    write(tmp_path, {"0.json": MCP})
    assert {chunk.id for chunk in before} < {chunk.id for chunk in load_corpus(tmp_path, deduplicate=False).chunks}


NO_TOOLS: dict[str, Any] = {
    "package.json": {"name": "app", "description": "An app.", "dependencies": {"a": "1"}, "functions": ["f"]},
    "tsconfig.json": {"compilerOptions": {"strict": True}},
    "openapi.json": {
        "openapi": "3.1.0",
        "info": {"title": "Pets"},
        "paths": {"/p": {"get": {"operationId": "getPet", "description": "A pet.", "parameters": [{"name": "id"}]}}},
    },
    "schema.json": {"$schema": "x", "name": "pet", "description": "A pet.", **SCHEMA},
    "people.json": [{"name": "Ann", "description": "Engineer.", "parameters": {"age": 3}}],
    "shop.json": {"tools": [{"name": "hammer", "description": "Steel."}]},
    "request.json": {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": [FUNCTION]},
    "abi.json": [{"type": "function", "name": "transfer", "inputs": [], "outputs": []}],
    "mixed.json": [MCP, {"name": "rest"}],
    "prompts.json": {"prompts": [{"name": "p", "description": "d", "arguments": [{"name": "x"}]}]},
    "extension.json": {"name": "x", "description": "x", "contributes": {"languageModelTools": [MCP]}},
    "sentence.json": {"name": "Not a name of a tool", "description": "x", "parameters": SCHEMA},
    "records.json": [{"id": "a", "text": "one", **FUNCTION}, 3],
    "empty.json": [],
    "broken.json": '{"name": "x", "parameters": ',
    "deep.json": "[" * 100_000 + '"name" "parameters"',
}


def test_all_else_in_json_stays_out_as_before(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "Some words.", **NO_TOOLS})
    report = CorpusReport()
    assert [d.id for d in iter_documents(tmp_path, report=report)] == ["a.md"]
    assert report.skipped == {"unsupported type .json": sorted(NO_TOOLS)}
    report = CorpusReport()
    write(tmp_path, {"large.json": [MCP] * 20})
    list(iter_documents(tmp_path, report=report, max_file_bytes=1000))
    assert "large.json" in report.skipped["unsupported type .json"]
    (tmp_path / "a.md").unlink()
    with pytest.raises(CorpusError, match=r"17 × unsupported type \.json .*JSON files of tools in folders"):
        load_corpus(tmp_path, max_file_bytes=1000)


def test_tools_of_a_file_that_cannot_be_read_may_be_there_still() -> None:
    report = CorpusReport()
    report.fail(PermissionError(13, "Permission denied"), "tools/a.json")
    names = ["tools/a.json#get_weather", "tools/a.json#mcp/get", "tools/a.json", "tools/a.json2", "tools/b.json#a"]
    assert [report.is_unreadable(name) for name in names] == [True, True, True, False, False]


def test_a_line_or_an_item_may_be_an_answer_of_a_server(tmp_path: Path) -> None:
    second = {**MCP, "name": "get_time"}
    answers = [
        {"result": {"tools": [MCP, second]}},
        {"tools": [{**MCP, "name": "get_tide"}], "nextCursor": "x"},
        {"id": "note", "text": "A text.", "tools": [MCP]},
        {"tools": ["hammer"]},
        {"tools": []},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, answers)))
    names = ["get_weather", "get_time", "get_tide", "note"]
    for source, where in ((tmp_path / "t.jsonl", ["t.jsonl:4", "t.jsonl:5"]), (answers, ["item-3", "item-4"])):
        report = CorpusReport()
        assert [d.id for d in iter_documents(source, report=report)] == names
        assert list(report.skipped.values()) == [where]
