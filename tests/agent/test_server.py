"""The MCP server, asked by the client of the official SDK: in this process, over stdio, and over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.importorskip("mcp")
import httpx2
from mcp import Client, MCPError, StdioServerParameters

from revela_rag.agent import agent_tools
from revela_rag.agent.server import is_local, listen, mcp_server
from revela_rag.cli.mcp import _named
from revela_rag.corpus import load_corpus
from revela_rag.errors import RevelaError
from revela_rag.index import Index

from .conftest import FakeEncoder, build

NAMES = ["search", "grep", "read", "list", "neighbours"]
REVELA = [sys.executable, "-m", "revela_rag.cli"]
#: The client starts servers in a bare environment.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name in ("PYTHONPATH", "OMP_NUM_THREADS")}


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


@contextlib.asynccontextmanager
async def over_stdio(*arguments: object) -> AsyncIterator[Client]:
    command = [*REVELA, "mcp", *map(str, arguments)]
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=ENVIRONMENT)
    async with Client(parameters, read_timeout_seconds=60) as client:
        yield client


@contextlib.contextmanager
def over_http(*arguments: object) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """The address of a server, its process, and what it said before it served."""
    command = [*REVELA, "mcp", *map(str, arguments), "--http", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"Serving (\S+) until", line):
                yield found.group(1), process, said
                return
        raise AssertionError("".join(said))
    finally:
        process.kill()
        process.communicate()


async def test_tools_are_listed_and_called(handbook):
    async with Client(mcp_server(agent_tools(handbook))) as client:
        assert "grep" in (client.instructions or "")
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == NAMES
        for tool, ours in zip(listed, agent_tools(handbook), strict=True):
            assert (tool.description, tool.input_schema) == (ours.description, ours.schema)
            assert tool.annotations and tool.annotations.read_only_hint
        result = await client.call_tool("read", {"document": "docs/keys.md", "start_line": 8})
        assert not result.is_error
        assert result.content[0].text == agent_tools(handbook)[2].call({"document": "docs/keys.md", "start_line": 8})[0]
        assert result.structured_content == handbook.read("docs/keys.md", 8)


async def test_what_a_model_can_mend_is_a_result(handbook):
    async with Client(mcp_server(agent_tools(handbook))) as client:
        for name, arguments, said in (
            ("read", {"document": "keys.md"}, "Similar names: 'docs/keys.md'"),
            ("grep", {"pattern": "("}, "missing )"),
            ("search", {}, "query: Field required"),
            ("list", {"limit": "x"}, "limit: Input should be a valid integer"),
        ):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert said in result.content[0].text
        with pytest.raises(MCPError, match="There is no tool 'rm'; there are search, grep"):
            await client.call_tool("rm", {})


async def test_many_calls_at_once(handbook):
    import anyio

    found: list[str] = []

    async def ask(client: Client, at: int) -> None:
        result = await client.call_tool("grep", {"pattern": "month", "limit": at})
        found.append(result.structured_content["matches"][0]["text"])

    async with Client(mcp_server(agent_tools(handbook))) as client, anyio.create_task_group() as group:
        for at in range(1, 25):
            group.start_soon(ask, client, at)
    assert found == ["Run the rotate command every month."] * 24


async def test_stdio_serves_an_index_and_sees_what_others_write(handbook):
    path = handbook.index.path
    async with over_stdio(path, "--lexical", "--about", "a handbook") as client:
        assert await names(client) == NAMES
        assert (await client.list_tools()).tools[0].description.endswith("The corpus: a handbook.")
        result = await client.call_tool("search", {"query": "rotate", "k": 1})
        assert result.structured_content["hits"][0]["document"] == "docs/keys.md"
        assert result.content[0].text.startswith("[docs/keys.md:7-8]")
        assert (await client.call_tool("grep", {"pattern": "quokka"})).structured_content["matches"] == []
        with Index.open(path, encoder=FakeEncoder()) as other:
            other.add(load_corpus([{"id": "new.md", "text": "A quokka smiles."}]).chunks)
        result = await client.call_tool("grep", {"pattern": "quokka"})
        assert result.content[0].text == "new.md:1: A quokka smiles."
        result = await client.call_tool("search", {"query": "quokka", "k": 1})
        assert result.structured_content["hits"][0]["document"] == "new.md"


async def test_several_indexes_are_told_apart(handbook, tmp_path):
    tools = [{"name": "send_mail", "description": "Send a mail.", "parameters": {}}]
    build(tools, tmp_path / "my tools").close()
    async with over_stdio(f"docs={handbook.index.path}", tmp_path / "my tools", "--lexical") as client:
        own = ["my_tools_find_tools", "my_tools_grep", "my_tools_read", "my_tools_list"]
        assert await names(client) == [*(f"docs_{name}" for name in NAMES), *own]
        result = await client.call_tool("my_tools_find_tools", {"request": "send a mail"})
        assert result.content[0].text.endswith("\nSend a mail.")
        about = {tool.name: tool.description for tool in (await client.list_tools()).tools}
        assert about["docs_list"].endswith(
            "The corpus: 3 documents, such as 'docs/keys.md', 'docs/leave.md', 'src/dates.py'."
        )


def test_stdout_holds_the_protocol_alone(handbook):
    said = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": said},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "search", "arguments": {"query": "keys"}},
        },
    ]
    process = subprocess.Popen(
        [*REVELA, "-v", "mcp", str(handbook.index.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    for message in messages:
        process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    rest, errors = process.communicate(timeout=60)  # closes stdin, which ends the server
    assert (process.returncode, rest) == (0, "")
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[0]["result"]["serverInfo"]["name"] == "revela"
    # the model of this index is nowhere: searches say so, and all else works
    assert answers[1]["result"]["isError"] and "/models/letters" in answers[1]["result"]["content"][0]["text"]
    assert "Searches of" in errors


async def test_http_serves_this_machine_alone(handbook):
    with over_http(handbook.index.path, "--lexical") as (url, process, said):
        assert url.startswith("http://127.0.0.1:") and said[-1:] == said
        async with Client(url) as client:
            assert await names(client) == NAMES
            result = await client.call_tool("grep", {"pattern": "month", "limit": 1})
            assert result.structured_content["matches"][0]["line"] == 7
        async with Client(url, mode="legacy") as client:
            assert (await client.call_tool("list", {})).structured_content["total"] == 3
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accepting = {"accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient() as http:
            for headers, status in (
                ({"host": "evil.example"}, 421),
                ({"host": "evil.example:80"}, 421),
                ({"origin": "http://evil.example"}, 403),
                ({"origin": "http://localhost:3000"}, 200),
                ({}, 200),
            ):
                assert (await http.post(url, json=body, headers=accepting | headers)).status_code == status
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert out == ""


async def test_http_for_others_warns_and_knows_its_names(handbook):
    with over_http(handbook.index.path, "--lexical", "--host", "0.0.0.0", "--allow-host", "search.example") as (
        url,
        _,
        said,
    ):
        assert said[-3].startswith("WARNING: 0.0.0.0 is not this machine alone. Nobody is asked for a password")
        url = url.replace("0.0.0.0", "127.0.0.1")
        async with Client(url) as client:
            assert await names(client) == NAMES
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accepting = {"accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient() as http:
            for host, status in (("search.example", 200), ("search.example:8443", 200), ("evil.example", 421)):
                assert (await http.post(url, json=body, headers={**accepting, "host": host})).status_code == status


def test_addresses():
    assert [is_local(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1")] == [True] * 4
    assert [is_local(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")] == [False] * 4
    with listen("127.0.0.1", 0) as first, pytest.raises(RevelaError, match="cannot be listened on"):
        listen("127.0.0.1", first.getsockname()[1])


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REVELA, "mcp", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_wrong_use_is_explained(handbook, tmp_path):
    missing = run(tmp_path / "nothing")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("Error: ")
    twice = run(f"a={handbook.index.path}", f"a={handbook.index.path}")
    assert twice.returncode == 2 and "two indexes are called 'a'" in twice.stderr


def test_the_extra_is_named(handbook):
    program = "import sys; sys.modules['mcp'] = None; sys.argv = ['revela', 'mcp', sys.argv[1]]\n"
    program += "from revela_rag.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", program, handbook.index.path], capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install 'revela-rag[mcp]'" in result.stderr


def test_help_shows_how_clients_are_set_up():
    shown = run("--help").stdout
    for line in shown.splitlines():
        if line.strip().startswith("{"):
            assert json.loads(line)
    assert shown.count('"revela"') == 2 and "claude mcp add" in shown


def test_closing_stdin_ends_the_server(handbook):
    ended = run(handbook.index.path, "--lexical")
    assert (ended.returncode, ended.stdout) == (0, "")


def test_ctrl_c_ends_a_server_that_waits(handbook):
    said = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    command = [*REVELA, "mcp", str(handbook.index.path), "--lexical"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        print(said, file=process.stdin, flush=True)
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT


def test_paths_with_an_equals_sign_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x=y").mkdir()
    assert _named(["x=y"]) == {"": Path("x=y")}
    assert _named(["x=z", "some index/"]) == {"x": Path("z"), "some_index": Path("some index")}
