"""Tool definitions of any protocol become one document each, and no tool is lost."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import pytest
import yaml
from langchain_core.tools import StructuredTool
from langchain_core.tools import tool as langchain_tool
from pydantic import BaseModel, Field

from revela_rag.corpus import CorpusReport, Document, iter_documents, load_corpus, structural_pairs
from revela_rag.errors import CorpusError

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Name of a city."},
        "unit": {"type": ["string", "null"], "enum": ["celsius", "kelvin"]},
    },
}
FORMS: dict[str, dict[str, Any]] = {
    "openai": {
        "type": "function",
        "function": {"name": "getWeather", "description": "Weather of a city.", "parameters": SCHEMA},
    },
    "openai responses": {
        "type": "function",
        "name": "getWeather",
        "description": "Weather of a city.",
        "parameters": SCHEMA,
    },
    "anthropic": {"name": "getWeather", "description": "Weather of a city.", "input_schema": SCHEMA},
    "mcp": {"name": "getWeather", "description": "Weather of a city.", "inputSchema": SCHEMA},
    "bedrock": {
        "toolSpec": {"name": "getWeather", "description": "Weather of a city.", "inputSchema": {"json": SCHEMA}}
    },
}
EXPECTED = Document(
    "getWeather",
    "Weather of a city.\nParameters: city (string): Name of a city.; unit (string/null): one of celsius, kelvin",
    "get weather",
    metadata={"tool": "getWeather"},
)


@pytest.mark.parametrize("form", FORMS)
def test_every_protocol_gives_the_same_document(form: str, tmp_path) -> None:
    assert list(iter_documents([FORMS[form]])) == [EXPECTED]
    lines = tmp_path / "tools.jsonl"
    lines.write_text(json.dumps(FORMS[form]) + "\n")
    assert list(iter_documents(lines)) == [EXPECTED]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tools: tools,
        lambda tools: {"tools": tools},
        lambda tools: {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}},
        lambda tools: [{"functionDeclarations": tools}],
        lambda tools: tools[0],
    ],
)
def test_a_json_file_may_hold_a_catalogue(wrap, tmp_path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(wrap([FORMS["mcp"]])))
    assert list(iter_documents(path)) == [EXPECTED]


def test_a_json_file_may_hold_records_with_text(tmp_path) -> None:
    path = tmp_path / "notes.json"
    path.write_text(json.dumps([{"id": "a", "text": "one"}, {"id": "b", "content": "two"}, 3, {"id": "c"}]))
    report = CorpusReport()
    assert [(d.id, d.text) for d in iter_documents(path, report=report)] == [("a", "one"), ("b", "two")]
    assert sum(map(len, report.skipped.values())) == 2


def test_a_record_with_text_stays_whole_whatever_else_it_holds(tmp_path) -> None:
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": "a", "text": "one", "tools": [FORMS["mcp"]], "result": {"name": "x"}}]))
    assert [(d.id, d.text) for d in iter_documents(path)] == [("a", "one")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"name": "x"', "not readable JSON"),
        ("x.json", b"\xff\xfe{}", "not readable JSON"),
        ("x.json", b"[" * 100_000, "not readable JSON"),
        ("x.json", b"[]", "no usable record"),
        ("x.json", b'{"version": 1}', "no usable record.*name and a description"),
        ("x.yml", b"a: [1", "not readable YAML"),
        ("x.yml", b"\xff\xfe\x00{}", "not readable YAML"),
        ("x.yaml", b"[" * 300, "not readable YAML: it is nested deeper than 200 levels"),
        ("x.yaml", b"[" * 100_000, "not readable YAML"),
        ("x.yaml", b"--- 1\n--- 2", "not readable YAML.*single document"),
        ("x.yaml", b"[1]: 2", "not readable YAML"),
        ("x.yaml", b"", "no usable record"),
        ("x.yaml", b"!!python/object/apply:os.getcwd []", "no usable record"),
    ],
)
def test_a_file_that_holds_nothing_is_refused_with_the_remedy(
    name: str, content: bytes, message: str, tmp_path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        list(iter_documents(tmp_path / name))


def test_yaml_that_repeats_itself_without_end_is_read_in_no_time(tmp_path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))]
    tool = "tools: [{name: t, description: d, parameters: {p: {enum: *a29, description: of many}}}]"
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, tool]))
    assert [document.text for document in iter_documents(tmp_path / "bomb.yaml")] == ["d\nParameters: p: of many"]


def test_lists_that_yaml_repeats_are_looked_into_once(tmp_path) -> None:
    lists = ["- &a [{text: one word}]", f"- &b [{', '.join(['*a'] * 1000)}]", *["- *b"] * 1000]
    (tmp_path / "bomb.yaml").write_text("\n".join(lists))
    assert [document.text for document in iter_documents(tmp_path / "bomb.yaml")] == ["one word"]


def test_schemas_that_hold_themselves_are_written_out_in_no_time() -> None:
    itself = {"type": "object", "properties": {f"p{n}": {"$ref": "#/components/schemas/A"} for n in range(100)}}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}
    paths = {f"/a{n}": {"post": {"operationId": f"make{n}", "requestBody": body}} for n in range(300)}
    started = time.process_time()
    api = {"openapi": "3.1.0", "paths": paths, "components": {"schemas": {"A": itself}}}
    assert len(list(iter_documents([json.loads(json.dumps(api))]))) == 300
    choices = [{"enum": [[k, n] * 20 for n in range(100)]} for k in range(100)]
    schema = {"type": "object", "properties": {f"p{n}": {"anyOf": choices} for n in range(30)}}
    assert len(list(iter_documents([{"name": "x", "description": "y", "parameters": schema}]))) == 1
    assert time.process_time() - started < 5


def test_a_json_file_too_large_for_memory_is_refused(tmp_path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "word " * 50}]))
    with pytest.raises(CorpusError, match=r"more than 200; write it as JSONL"):
        list(iter_documents(path, max_file_bytes=20))


def test_tool_objects_and_functions_are_read() -> None:
    @langchain_tool
    def send_mail(to: str, body: str) -> str:
        """Send an e-mail."""
        return ""

    def book_room(day: str, people: int = 2) -> str:
        """Book a meeting room."""
        return ""

    class FindFile(BaseModel):
        """Find a file on disk."""

        pattern: str = Field(description="What its name matches.")

    found = list(iter_documents([send_mail, book_room, FindFile]))
    assert [(d.id, d.title) for d in found] == [
        ("send_mail", "send mail"),
        ("book_room", "book room"),
        ("FindFile", "find file"),
    ]
    assert found[0].text == "Send an e-mail.\nParameters: to (string); body (string)"
    assert found[1].text == "Book a meeting room.\nParameters: day (string); people (integer)"
    assert found[2].text == "Find a file on disk.\nParameters: pattern (string): What its name matches."


def test_tools_of_llama_index_are_read() -> None:
    tools = pytest.importorskip("llama_index.core.tools")

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    (document,) = iter_documents([tools.FunctionTool.from_defaults(add)])
    assert document.id == "add"
    assert "Add two numbers." in document.text and "a (integer); b (integer)" in document.text


def test_parameters_inside_objects_and_lists_are_named_by_their_path() -> None:
    inner = {"type": "object", "properties": {"street": {"type": "string"}}}
    schema = {"properties": {"home": inner, "others": {"type": "array", "items": inner}}}
    (document,) = iter_documents([{"name": "move", "description": "Move.", "parameters": schema}])
    assert document.text.endswith("home (object); home.street (string); others (array); others.street (string)")
    listed = {
        "name": "Recipes / Suggestions",
        "description": "",
        "required_parameters": [{"name": "q", "type": "STRING", "description": "words"}],
        "optional_parameters": [{"name": "n", "type": "NUMBER"}, "odd"],
    }
    (document,) = iter_documents([listed])
    assert document.title == "Recipes / Suggestions"
    assert document.text == "Parameters: q (STRING): words; n (NUMBER)"


def test_hostile_schemas_end() -> None:
    deep: dict[str, Any] = {"type": "object"}
    deep["properties"] = {"again": deep}
    wide = {"properties": {f"p{i}": {"type": 7, "description": 3, "enum": "x"} for i in range(10_000)}}
    found = list(
        iter_documents([{"name": n, "description": "d", "parameters": s} for n, s in (("deep", deep), ("wide", wide))])
    )
    assert found[0].text == "d\nParameters: again (object); again.again (object); again.again.again (object)"
    assert found[1].text.count(";") == 99


class Address(BaseModel):
    city: str = Field(description="Town to ship to")


class Item(BaseModel):
    sku: str


class Ship(BaseModel):
    """Ship a parcel"""

    address: Address = Field(description="where to")
    weight: float | None = Field(default=None, description="kilograms")
    items: list[Item] = Field(description="list")
    sender: Address | Item | None = None
    mode: Literal["air", "sea"] | int = "air"


SHIP = (
    "Ship a parcel\nParameters: address (object): where to; address.city (string): Town to ship to; "
    "weight (number): kilograms; items (array): list; items.sku (string); "
    "sender (object); sender.city (string): Town to ship to; sender.sku (string); "
    "mode (string/integer): one of air, sea"
)


def test_parameters_said_by_reference_or_alternative_are_read() -> None:
    def ship(**values: Any) -> str:
        return ""

    tools = [
        {"name": "ship", "description": "Ship a parcel", "inputSchema": Ship.model_json_schema()},
        {"name": "s", "description": "Ship a parcel", "parameters": {"json": Ship.model_json_schema()}},
        Ship,
        StructuredTool.from_function(ship, args_schema=Ship, description="Ship a parcel"),
    ]
    for tool in tools:
        (document,) = iter_documents([tool])
        assert document.text == SHIP


def test_what_combines_schemas_or_refers_inside_them_is_read() -> None:
    schema = {
        "definitions": {"a/b": {"properties": {"kind": {"const": "cat"}, "x": {"type": "integer"}}}},
        "allOf": [{"$ref": "#/definitions/a~1b"}, {"properties": {"y": {"$ref": "#/allOf/1/properties/z"}, "z": {}}}],
        "oneOf": [{"properties": {"kind": {"const": "dog", "description": "Which."}}}, {"$ref": "http://x/y"}, 3],
        "type": "object",
    }
    (document,) = iter_documents([{"name": "n", "description": "d", "parameters": schema}])
    assert document.text == "d\nParameters: kind: Which., one of cat, dog; x (integer); y; z"


def test_schemas_that_refer_to_themselves_end() -> None:
    class Node(BaseModel):
        """A node."""

        value: int
        next: Node | None = None

    Node.model_rebuild(_types_namespace={"Node": Node})
    (document,) = iter_documents([Node])
    assert document.text == (
        "A node.\nParameters: value (integer); next (object): A node.; next.value (integer); "
        "next.next (object): A node.; next.next.value (integer); next.next.next (object): A node."
    )
    loop: dict[str, Any] = {"anyOf": [{"$ref": "#"}, {"$ref": "#/anyOf/1"}]}
    loop["allOf"] = [loop] * 1_000
    loop["properties"] = {f"p{i}": {"allOf": [loop] * 1_000} for i in range(1_000)}
    (document,) = iter_documents([{"name": "n", "description": "d", "parameters": loop}])
    assert document.text.count(";") == 99


def test_tools_that_read_nearly_alike_are_all_kept() -> None:
    description = "Changes a record of the customer data base, asks for a reason and writes the audit log of the day."
    tools = [{"name": name, "description": description} for name in ("createUser", "updateUser", "deleteUser")]
    corpus = load_corpus([*tools, tools[0]])
    assert [chunk.document_id for chunk in corpus.chunks] == ["createUser", "updateUser", "deleteUser"]
    assert (corpus.report.exact_duplicates, corpus.report.near_duplicates) == (1, 0)


def test_a_name_is_enough_where_there_is_no_description() -> None:
    corpus = load_corpus([{"name": "list_open_issues", "inputSchema": {"type": "object"}}])
    assert [chunk.embedding_text for chunk in corpus.chunks] == ["list open issues"]


OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/pets/{id}": {
            "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}, "description": "Which one."}],
            "get": {"operationId": "getPetById", "summary": "Find a pet.", "description": "Find a pet."},
            "put": {
                "summary": "Change a pet.",
                "parameters": [{"$ref": "#/components/parameters/dry"}, {"$ref": "other.json#/x"}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
            },
        },
        "/odd": {"get": 3, "post": {"summary": ["x"], "parameters": "x", "requestBody": {"content": []}}},
    },
    "components": {
        "parameters": {"dry": {"name": "dry_run", "in": "query", "schema": {"type": "boolean"}}},
        "schemas": {
            "Pet": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "Its name."},
                    "parent": {"$ref": "#/components/schemas/Pet"},
                },
            }
        },
    },
}


def test_the_operations_of_an_http_interface_are_tools(tmp_path) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(OPENAPI))
    found = {document.id: document for document in iter_documents(path)}
    assert list(found) == ["getPetById", "PUT /pets/{id}", "POST /odd"]
    assert found["getPetById"].title == "get pet by id"
    assert found["getPetById"].text == "Find a pet.\nParameters: id (integer): Which one."
    change = found["PUT /pets/{id}"].text
    assert change.startswith("Change a pet.\nParameters: id (integer): Which one.; dry_run (boolean); name (string)")
    assert "parent (object); parent.name (string): Its name." in change
    assert change.count("parent") < 12  # a schema that holds itself ends
    assert {document.metadata["tool"] for document in found.values()} == set(found)


def test_yaml_says_the_same_as_json_and_keeps_every_word(tmp_path) -> None:
    (tmp_path / "api.json").write_text(json.dumps(OPENAPI))
    (tmp_path / "api.yaml").write_text(yaml.safe_dump(OPENAPI, sort_keys=False))
    assert list(iter_documents(tmp_path / "api.yaml")) == list(iter_documents(tmp_path / "api.json"))
    (tmp_path / "tool.yml").write_text(
        "tools:\n- name: ship\n  description: Ships.\n  inputSchema:\n    properties:\n"
        "      country: {enum: [NO, SE, 2024-01-01]}\n"
    )
    assert [d.text for d in iter_documents(tmp_path / "tool.yml")] == [
        "Ships.\nParameters: country: one of NO, SE, 2024-01-01"
    ]


def test_an_http_interface_that_refers_to_itself_without_end_is_read_in_no_time(tmp_path) -> None:
    loop = {"$ref": "#/components/schemas/A"}
    wide = {"properties": {f"p{i}": loop for i in range(2_000)}, "items": loop}
    body = {"requestBody": {"content": {"x": {"schema": loop}}}, "parameters": [{"$ref": "#/b"}]}
    spec = {
        "openapi": "3.0.0",
        "paths": {"/a": {"post": body}},
        "components": {"schemas": {"A": wide}},
        "b": {"$ref": "#/b"},
    }
    (tmp_path / "s.json").write_text(json.dumps(spec))
    (document,) = iter_documents(tmp_path / "s.json")
    assert document.id == "POST /a"
    assert 50 < document.text.count(";") < 400


def test_a_combined_body_is_parameters(tmp_path) -> None:
    schemas = {
        "Base": {"type": "object", "properties": {"id": {"type": "integer", "description": "Its number."}}},
        "Tag": {"anyOf": [{"type": "string", "description": "A word."}, {"type": "null"}]},
        "Pet": {
            "allOf": [
                {"$ref": "#/components/schemas/Base"},
                {"properties": {"tag": {"$ref": "#/components/schemas/Tag"}, "owner": {"oneOf": []}}},
                {"properties": {"mother": {"$ref": "#/components/schemas/Pet", "description": "Who bore it."}}},
            ]
        },
    }
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}}
    spec = {"openapi": "3.1.0", "paths": {"/p": {"post": {"requestBody": body}}}, "components": {"schemas": schemas}}
    (tmp_path / "s.json").write_text(json.dumps(spec))
    (document,) = iter_documents(tmp_path / "s.json")
    assert document.text.startswith(
        "Parameters: id (integer): Its number.; tag (string): A word.; owner; mother (object): Who bore it.; "
        "mother.id (integer): Its number."
    )
    parts = [{"properties": {f"p{i}": {"$ref": "#/components/schemas/Pet"} for i in range(200)}}] * 200
    schemas["Pet"] = {"allOf": parts}
    (tmp_path / "s.json").write_text(json.dumps(spec))
    (document,) = iter_documents(tmp_path / "s.json")
    assert document.text.count(";") == 99


def test_swagger_bodies_are_parameters(tmp_path) -> None:
    body = {"name": "pet", "in": "body", "schema": {"properties": {"age": {"type": "integer"}}}}
    spec = {"swagger": "2.0", "paths": {"/pets": {"post": {"operationId": "addPet", "parameters": [body]}}}}
    (tmp_path / "s.json").write_text(json.dumps(spec))
    (document,) = iter_documents(tmp_path / "s.json")
    assert document.text == "Parameters: age (integer)"


def test_two_words_of_a_tools_name_ask_for_it_but_not_of_a_title():
    text = "Tells about the weather of a city."
    tools = [{"name": name, "description": text} for name in ("get_weather", "rain")]
    corpus = load_corpus([*tools, {"title": "get weather", "text": text}], deduplicate=False)
    assert [pair.query for pair in structural_pairs(corpus.chunks)] == ["get weather"]
    assert [bool(chunk.parts) for chunk in corpus.chunks] == [True, False, False]
