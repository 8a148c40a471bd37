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
    "prompts.json": {"prompts": [{"name": "p", "description": "d", "arguments": [{"name": "x"}]}]},
    "extension.json": {"name": "x", "description": "x", "contributes": {"languageModelTools": [MCP]}},
    "sentence.json": {"name": "Not a name of a tool", "description": "x", "parameters": SCHEMA},
    "empty.json": [],
    "settings.json": '{"compact": true, // a comment\n}\n',
    "calls.json": [{"id": "call_1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}],
    "outline.json": [{"type": "function", "name": "main"}],
    "signatures.json": [{"type": "function", "name": "main", "parameters": [{"name": "argv"}]}],
    "frames.json": [{"function": {"name": "main"}, "line": 3}],
    "deep.json": "[" * 100_000 + '"name" "parameters"',
}


def test_all_else_in_json_stays_out(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "Some words.", **NO_TOOLS})
    report = CorpusReport()
    assert [d.id for d in iter_documents(tmp_path, report=report)] == ["a.md"]
    assert report.skipped == {"JSON, but no tools": sorted(NO_TOOLS)}
    assert not report.unreadable
    (tmp_path / "a.md").unlink()
    with pytest.raises(CorpusError, match=r"18 × JSON, but no tools .*JSON files of tools in folders"):
        load_corpus(tmp_path)


def test_a_file_that_is_too_large_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"large.json": [MCP] * 20})
    report = CorpusReport()
    assert not list(iter_documents(tmp_path, report=report, max_file_bytes=1000))
    assert report.skipped == {"larger than 1,000 bytes": ["large.json"]}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([MCP, {"name": "ping"}], "'ping'"),
        ({"result": {"tools": [{"type": "function", "function": {"name": "ping", "x": 1}}, MCP, MCP]}}, "'ping'"),
        ([{"functionDeclarations": [FUNCTION, MCP, {"name": "p" * 90}]}], f"'{'p' * 60}'"),
        ([{"id": "a", "text": "one", **FUNCTION}, 3], "2"),
    ],
)
def test_the_entry_that_keeps_tools_out_is_named(value: Any, named: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.json": value})
    report = CorpusReport()
    assert not list(iter_documents(tmp_path, report=report))
    assert report.skipped == {f"JSON whose entry {named} is no tool": ["a.json"]}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "function", "function": {"name": "ping"}},
        {"type": "function", "function": {"name": "ping", "description": None, "parameters": {}, "strict": True}},
        {"type": "function", "name": "ping", "parameters": {"type": "object", "properties": {}}},
        {"type": "function", "name": "ping", "parameters": None},
        {"function": {"name": "ping", "parameters": {"type": "object"}}},
        {"name": "ping", "inputSchema": {}},
        {"name": "ping", "input_schema": {}},
        {"toolSpec": {"name": "ping", "inputSchema": {"json": {}}}},
        {"result": {"tools": [{"type": "function", "function": {"name": "ping"}}]}},
    ],
)
def test_what_a_definition_may_leave_out(value: Any, tmp_path: Path) -> None:
    write(tmp_path, {"a.json": value, "b.json": [MCP, value] if "result" not in value else value})
    names = {d.id: d.text for d in iter_documents(tmp_path)}
    assert names.keys() >= {"a.json#ping", "b.json#ping"}
    assert [chunk.text for chunk in load_corpus(tmp_path).chunks if chunk.document_id == "a.json#ping"] == ["ping"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_tools_may_stand_in_any_encoding_of_json(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps([MCP]).encode(encoding))
    assert [d.text for d in iter_documents(tmp_path)] == [TEXT]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_caught_half_written_keeps_its_tools(encoding: str, tmp_path: Path) -> None:
    whole = json.dumps({"tools": [MCP, {**MCP, "name": "get_tide"}]}).encode(encoding)
    write(tmp_path, {"b.json": {**MCP, "name": "get_time"}})
    for length in range(len(whole)):
        (tmp_path / "a.json").write_bytes(whole[:length])
        report = CorpusReport()
        assert [d.id for d in iter_documents(tmp_path, report=report)] == ["b.json#get_time"]
        assert report.skipped in ({"unreadable (broken JSON)": ["a.json"]}, {"JSON, but no tools": ["a.json"]})
        kept = report.is_unreadable("a.json#get_weather")
        assert kept or whole[:length].decode(encoding, "replace")[-1:] in ("}", "]")
        assert not report.is_unreadable("b.json#get_time")


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
