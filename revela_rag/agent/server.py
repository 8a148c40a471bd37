"""An MCP server over indexes, for agents of any maker: stdio, or streamable HTTP."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from revela_rag import __version__
from revela_rag.agent.tools import AgentTool
from revela_rag.errors import MissingExtraError, RevelaError

try:
    import anyio
    import anyio.to_thread
    import mcp_types as types
    import uvicorn
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.shared.exceptions import MCPError
except ImportError as error:
    raise MissingExtraError("mcp", "mcp", "an MCP server") from error

__all__ = ["is_local", "listen", "mcp_server", "serve_http", "serve_stdio"]

logger = logging.getLogger(__name__)

_AT_ONCE = 4  # calls that run at the same time
_READS_ONLY = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_INSTRUCTIONS = (
    "Tools over a corpus that is indexed: find passages by meaning and words, grep for exact text, read documents by "
    "line, list what there is. Name the documents and lines that an answer rests on."
)


def mcp_server(tools: Sequence[AgentTool], *, name: str = "revela", instructions: str = _INSTRUCTIONS) -> Server[Any]:
    """A server that offers tools; it reads only.

    Results come as text, with what they rest on, and as structured content. What a model can mend (an unknown
    document, a pattern that is none) is a result, too, marked as an error.

    Args:
        tools: of one or several indexes, each name once; see :func:`revela_rag.agent.agent_tools`.
        name: what the server calls itself.
        instructions: tells the model what the tools are for.
    """
    named = {tool.name: tool for tool in tools}
    listed = [
        types.Tool(name=tool.name, description=tool.description, input_schema=tool.schema, annotations=_READS_ONLY)
        for tool in tools
    ]
    running = anyio.CapacityLimiter(_AT_ONCE)

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = named.get(params.name)
        if tool is None:
            known = ", ".join(named)
            raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name!r}; there are {known}.")
        try:
            text, found = await anyio.to_thread.run_sync(tool.call, params.arguments or {}, limiter=running)
        except RevelaError as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=found)

    return Server(
        name, version=__version__, instructions=instructions, on_list_tools=list_tools, on_call_tool=call_tool
    )


def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over stdin and stdout, until it closes stdin; what else is printed meanwhile goes to stderr.

    Ctrl-C ends the process at once, as a thread that reads stdin cannot be stopped. Call it in the main thread.
    """

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        anyio.run(run)
    finally:
        signal.signal(signal.SIGINT, before)


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; ``port`` 0 takes a free one.

    Raises:
        RevelaError: the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family)
    except OSError as error:
        raise RevelaError(f"{host}:{port} cannot be listened on: {error}. Choose another host or port.") from error


def serve_http(
    server: Server[Any],
    listening: socket.socket,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve many clients over streamable HTTP, at ``/mcp``, until the process is stopped.

    Nobody is asked who they are: whoever reaches the port can read the texts. Requests under a host name that is not
    this machine's are refused, so that pages in a browser cannot reach it by a name of their own (DNS rebinding).

    Args:
        server: what to serve.
        listening: see :func:`listen`.
        host: what ``listening`` is bound to.
        allowed_hosts: further names under which clients reach this machine.
        started: called before the first request is served.
    """
    names = [*dict.fromkeys([*_names_of(host), *allowed_hosts])]
    security = TransportSecuritySettings(
        allowed_hosts=[each for name in names for each in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{name}{end}" for name in names for scheme in ("http", "https") for end in ("", ":*")
        ],
    )
    app = server.streamable_http_app(stateless_http=True, json_response=True, transport_security=security, host=host)
    # uvicorn would log requests to stdout
    config = uvicorn.Config(app, log_config=None, access_log=False, log_level="warning")

    async def run() -> None:
        started()
        await uvicorn.Server(config).serve(sockets=[listening])

    anyio.run(run)


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names_of(host: str) -> list[str]:
    """The names under which clients may ask for this machine."""
    names = ["127.0.0.1", "localhost", "[::1]"]
    if is_local(host):
        return names
    own = socket.gethostname()
    found = {own, socket.getfqdn(), host}
    try:
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(own, None)}
    except OSError:
        logger.debug("the addresses of %s are not known", own)
    return [*names, *sorted(f"[{name}]" if ":" in name else name for name in found)]
