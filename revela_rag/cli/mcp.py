"""``revela mcp``."""

from __future__ import annotations

import logging
import re
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revela_rag.cli.console import note, results_last

if TYPE_CHECKING:
    from revela_rag.agent import AgentTool, CorpusTools
    from revela_rag.index import Mode
    from revela_rag.model.encoder import Encoder

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela mcp indexes/docs
  revela mcp docs=indexes/docs code=indexes/code
  revela mcp indexes/docs --http --port 8765

Clients start it themselves, over stdio (give absolute paths):
  Claude Code     claude mcp add docs -- revela mcp /home/me/indexes/docs
  Claude Desktop, Cursor, Windsurf and others, in their mcp.json:
    {"mcpServers": {"docs": {"command": "revela", "args": ["mcp", "/home/me/indexes/docs"]}}}
  VS Code, in .vscode/mcp.json:
    {"servers": {"docs": {"type": "stdio", "command": "revela", "args": ["mcp", "/home/me/indexes/docs"]}}}
Or they reach one that runs, with --http:
    {"mcpServers": {"docs": {"type": "http", "url": "http://127.0.0.1:8765/mcp"}}}
"""

_NAMED = re.compile(r"([A-Za-z0-9_-]{1,40})=(.+)", re.S)
_SHOWN = 3  # names of documents that tell a model what an index holds

logger = logging.getLogger(__name__)


def command(
    index: Annotated[
        list[str], typer.Argument(metavar="INDEX", help="Directories that revela index wrote, or NAME=DIRECTORY.")
    ],
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP at /mcp instead of stdio.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port, with --http; 0 takes a free one.")] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another host name under which clients reach it, with --http."),
    ] = None,
    about: Annotated[
        str, typer.Option(help="What the corpus is, for the model: 'the handbook of ACME'.", show_default="some names")
    ] = "",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the indexes' model is now, if it moved.")
    ] = None,
    lexical: Annotated[bool, typer.Option("--lexical", help="Search by BM25 alone; needs no model.")] = False,
    max_characters: Annotated[int, typer.Option(min=500, help="Of text in a result.")] = 20_000,
) -> None:
    """Serve indexes to agents: search, grep, read, list and neighbours as tools of an MCP server, which reads only.

    An index of tool definitions offers find_tools. With several indexes, or NAME=DIRECTORY, tools are called
    NAME_search and so on. What others write to an index is seen by the next call.
    """
    named = _named(index)
    with results_last():
        from revela_rag.agent.server import is_local, listen, mcp_server, serve_http, serve_stdio
        from revela_rag.model.encoder import Encoder

        encoder = Encoder(model) if model is not None else None
        mode: Mode = "lexical" if lexical else "auto"
        corpora = {name: _open(path, encoder, mode, max_characters) for name, path in named.items()}
        tools = [tool for name, corpus in corpora.items() for tool in _tools(name, corpus, about)]
        server = mcp_server(tools)
    if not lexical:
        threading.Thread(target=_warm, args=(list(corpora.values()),), daemon=True).start()
    if not http:
        serve_stdio(server)
        return
    listening = listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/mcp"
    if not is_local(host):
        note(
            f"WARNING: {host} is not this machine alone. Nobody is asked for a password: whoever reaches {url}\n"
            "can read every text of the index. Put it behind a proxy that asks for one, or use --host 127.0.0.1."
        )
    started = partial(note, f"Serving {url} until Ctrl-C")
    serve_http(server, listening, host=host, allowed_hosts=allow_host or (), started=started)


def _named(given: list[str]) -> dict[str, Path]:
    """Every index with the name that stands before its tools; a single one needs none.

    Raises:
        typer.BadParameter: two have one name.
    """
    found: dict[str, Path] = {}
    for each in given:
        match = _NAMED.fullmatch(each)
        if match and not Path(each).exists():
            name, path = match.group(1), Path(match.group(2))
        else:
            path = Path(each)
            own = re.sub(r"[^A-Za-z0-9_-]+", "_", path.absolute().name).strip("_")[:40] or "index"
            name = "" if len(given) == 1 else own
        if name in found:
            raise typer.BadParameter(f"two indexes are called {name!r}; give NAME=DIRECTORY for one of them")
        found[name] = path
    return found


def _open(path: Path, encoder: Encoder | None, mode: Mode, max_characters: int) -> CorpusTools:
    from revela_rag.agent import CorpusTools
    from revela_rag.index import Index

    return CorpusTools(Index.open(path, encoder=encoder), max_characters=max_characters, mode=mode)


def _tools(name: str, corpus: CorpusTools, about: str) -> list[AgentTool]:
    from revela_rag.agent import agent_tools

    listed = corpus.list(limit=_SHOWN)
    names = ", ".join(repr(each["document"][:100]) for each in listed["documents"])
    said = about or (f"{listed['total']} documents, such as {names}" if names else "")
    return agent_tools(corpus, prefix=name, about=said)


def _warm(corpora: list[CorpusTools]) -> None:
    """Load what searches need before the first one asks."""
    for corpus in corpora:
        try:
            corpus.search("warm up", k=1)
        except Exception as error:  # searches will say so; the other tools work all the same
            logger.warning("Searches of %s will fail: %s", corpus.index.path, error)
