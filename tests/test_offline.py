"""Nothing leaves the machine: the commands run in a Python that ends at the first connection or look-up of a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Runs at the start of every Python, those that a command starts, too. Sockets of the machine itself have a path.
GUARD = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"):
        stop(event, arguments)
    if event == "socket.connect" and not isinstance(arguments[1], (str, bytes)):
        stop(event, arguments)

def stop(event, arguments):
    os.write(2, f"reached out: {event} {arguments[1:]}\\n".encode())
    os._exit(77)

sys.addaudithook(refuse)
"""


#: All in one process, which loads its libraries once.
COMMANDS = """
from typer.main import get_command
from revela_rag.cli import app

for line in (
    "adapt docs --output model --config small.toml --max-steps 4",
    "index docs --model model --output faiss",
    "index docs --output faiss",
    "index docs --model all-MiniLM-L6-v2 --store chroma --output chroma",
    "search faiss garden",
    "search chroma garden",
    "doctor",
):
    get_command(app).main(["-q", *line.split()], standalone_mode=False)
"""


def guarded(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "guard").mkdir(exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder / "guard"), *sys.path])
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)


def test_the_guard_sees_a_connection(tmp_path: Path) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=1)"
    assert guarded(tmp_path, code).returncode == 77


@pytest.mark.slow
def test_no_command_reaches_out(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    words = ["river", "engine", "window", "garden", "letter", "mirror", "bridge", "candle", "forest", "harbour"]
    for one in words:
        sections = [
            f"## The {one} and the {two}\n\nBehind the {two} there is a {one}, as the {two} shows.\n" for two in words
        ]
        (docs / f"{one}.md").write_text("\n".join(sections), encoding="utf-8")
    settings = "group_size = 4\ngroups_per_step = 1\nadapter = 'linear'\npseudo_queries = 20\n"
    (tmp_path / "small.toml").write_text(settings, encoding="utf-8")
    result = guarded(tmp_path, COMMANDS)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "model" / "modules.json").is_file()
