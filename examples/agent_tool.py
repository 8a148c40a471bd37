"""Give an agent a search tool and the tools it needs: python examples/agent_tool.py [folder] [request]."""

import argparse
import json
import tempfile
from pathlib import Path

from langchain_core.tools import tool

from langchain_revela import ToolRetriever, create_revela_tool
from revela_rag import Encoder, Index


@tool
def send_mail(to: str, subject: str, body: str) -> str:
    """Send an e-mail to a colleague."""
    return f"sent {subject} to {to}"


@tool
def book_room(day: str, people: int) -> str:
    """Book a meeting room for a day."""
    return f"room for {people} on {day}"


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=Path(json.__file__).parent, help="default: Python's json package")
parser.add_argument("request", nargs="?", default="Search the source code: how is a JSON string parsed?")
parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a model, for example one that `revela adapt` wrote")
arguments = parser.parse_args()
encoder = Encoder(arguments.model)

with (
    tempfile.TemporaryDirectory() as folder,
    Index.from_source(arguments.folder, encoder=encoder, path=Path(folder) / "index") as index,
):
    search = create_revela_tool(index, name="search_code", description="Search the source code.", k=2)

    # An agent with many tools is shown only those that fit the request ...
    for candidate, score in ToolRetriever([send_mail, book_room, search], model=encoder).search(arguments.request):
        print(f"{score:.3f}  {candidate.name}")

    # ... and calls one, as chat_model.bind_tools([search]) would have it do.
    call = {"name": "search_code", "args": {"query": arguments.request}, "id": "1", "type": "tool_call"}
    message = search.invoke(call)

print(message.content[:600])
