from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def run(name: str, *arguments: object, cwd: Path) -> str:
    """Run an example as a reader of the documentation would, and return what it prints."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    offline = {"HF_HUB_OFFLINE": "1", "LANGSMITH_TRACING": "false"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | offline, timeout=500)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    pages = {
        "leave.md": "# Leave\n\nEvery employee has thirty days of paid holiday in a year.",
        "login.md": "# Login\n\nA forgotten password is reset by the link on the login page.",
        "trains.md": "# Travel\n\nTrain tickets are booked by the office; flights need an approval.",
    }
    for name, text in pages.items():
        (folder / name).write_text(text)
    return folder


def test_every_example_has_a_test_and_fits_on_a_page():
    scripts = {path.name: path for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == {
        "adapt_your_docs.py",
        "langchain_chain.py",
        "llamaindex_query_engine.py",
        "agent_tool.py",
    }
    assert all(len(path.read_text().splitlines()) < 60 for path in scripts.values())


@pytest.mark.parametrize("name", ["langchain_chain.py", "llamaindex_query_engine.py"])
def test_the_page_that_answers_comes_first(name, handbook, tmp_path):
    lines = run(name, handbook, "How do I get a new password?", cwd=tmp_path).splitlines()
    hits = [line for line in lines if ".md" in line]
    assert "login.md" in hits[0]
    assert [float(line.split()[0]) for line in hits] == sorted((float(line.split()[0]) for line in hits), reverse=True)
    assert any(line.startswith("Answer:") for line in lines)


def test_langchain_chain_on_its_default_folder(tmp_path):
    assert "py_scanstring" in run("langchain_chain.py", cwd=tmp_path)


def test_agent_tool(handbook, tmp_path):
    lines = run("agent_tool.py", handbook, "Book a meeting room for Friday", cwd=tmp_path).splitlines()
    assert lines[0].endswith("book_room")
    assert any(line.startswith("[") and ".md]" in line for line in lines)


def test_adapt_your_docs(tmp_path):
    printed = run("adapt_your_docs.py", "--output", "model", "--max-steps", "2", cwd=tmp_path)
    assert printed.strip()
    assert (tmp_path / "model" / "modules.json").is_file()
    assert (tmp_path / "model" / "revela.json").is_file()
