from __future__ import annotations

import pytest

from revela_rag.agent import CorpusTools, agent_tools
from revela_rag.errors import IndexingError

from .conftest import build

NAMES = ["search", "grep", "read", "list", "neighbours"]


def by_name(tools):
    return {tool.name: tool for tool in agent_tools(tools)}


def test_each_tool_says_what_it_does_and_takes(handbook):
    tools = agent_tools(handbook)
    assert [tool.name for tool in tools] == NAMES
    for tool in tools:
        assert 40 < len(tool.description) <= 1024 and "Args" not in tool.description and "\n" not in tool.description
        assert all(entry["description"] for entry in tool.schema["properties"].values())
    schema = tools[1].schema
    assert schema["required"] == ["pattern"]
    assert list(schema["properties"]) == ["pattern", "path", "filter", "ignore_case", "limit"]
    assert schema["properties"]["limit"]["description"] == "how many lines, at most 500."
    assert schema["properties"]["limit"]["default"] == 50


def test_names_and_descriptions_are_told_apart(handbook):
    tools = agent_tools(handbook, prefix="docs", about="the handbook of ACME")
    assert [tool.name for tool in tools] == [f"docs_{name}" for name in NAMES]
    assert all(tool.description.endswith("The corpus: the handbook of ACME.") for tool in tools)
    with pytest.raises(IndexingError, match="The prefix 'my docs' must be"):
        agent_tools(handbook, prefix="my docs")


def test_an_index_of_tools_offers_find_tools(tmp_path):
    definitions = [{"name": "send_mail", "description": "Send a mail.", "parameters": {}}]
    tools = CorpusTools(build(definitions, tmp_path / "index"))
    assert list(by_name(tools)) == ["find_tools", "grep", "read", "list"]
    text, result = by_name(tools)["find_tools"].call({"request": "send a mail"})
    assert text.startswith("[send_mail] (score ") and text.endswith(")\nSend a mail.")
    assert result["tools"][0]["name"] == "send_mail"


def test_calls_are_checked(handbook):
    tools = by_name(handbook)
    with pytest.raises(IndexingError, match="The arguments of read do not fit: document: Field required"):
        tools["read"].call({"start_line": 1})
    with pytest.raises(IndexingError, match="limit: Input should be a valid integer"):
        tools["grep"].call({"pattern": "x", "limit": "many"})
    with pytest.raises(IndexingError, match="colour: Extra inputs"):
        tools["search"].call({"query": "x", "colour": "red"})
    assert tools["read"].call({"document": "docs/leave.md", "start_line": "3"})[1]["segments"]


def test_results_are_shown_with_their_places(handbook):
    tools = by_name(handbook)
    found = handbook.search("rotate", k=1)["hits"][0]
    assert tools["search"].call({"query": "rotate", "k": 1})[0] == (
        f"[docs/keys.md:7-8] Keys > Rotate the keys (id {found['id']}, score {found['score']})\n"
        "Run the rotate command every month.\nIt makes a new key."
    )
    assert tools["grep"].call({"pattern": "month", "limit": 2})[0] == (
        "docs/keys.md:7: Run the rotate command every month.\n"
        'src/dates.py:13: year, month, day = text.split("-")\n'
        "(Stopped after 2 lines; narrow the pattern, path or filter, or raise limit (at most 500).)"
    )
    assert tools["read"].call({"document": "docs/keys.md", "start_line": 8})[0] == (
        "docs/keys.md, 12 lines\n\n[8] Keys > Rotate the keys\nIt makes a new key.\n\n"
        "[12] Keys > Lost keys\nTell the office at once."
    )
    assert tools["list"].call({"limit": 2})[0] == (
        "docs/keys.md  (3 passages)\ndocs/leave.md  (1 passage)\n2 of 3 documents\n"
        "(1 more; go on with offset=2, or narrow the path.)"
    )
    assert tools["neighbours"].call({"chunk_id": found["id"], "before": 0, "after": 0})[0] == (
        f"docs/keys.md\n\n[7-8] Keys > Rotate the keys (id {found['id']})\n"
        "Run the rotate command every month.\nIt makes a new key."
    )


def test_lines_that_are_not_known_are_given_as_a_range(made):
    tools = made({"a.py": 'A = 1\nimport re\nimport os\nB = "needle"\nC = 3\n'})
    text, result = by_name(tools)["grep"].call({"pattern": "needle"})
    assert (result["matches"][0]["line"], result["matches"][0]["lines"]) == (None, [1, 6])
    assert text == 'a.py:1-6: B = "needle"'
    assert "[1-6, shortened]" in by_name(tools)["read"].call({"document": "a.py"})[0]
