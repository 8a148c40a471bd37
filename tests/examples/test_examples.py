from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
slow = pytest.mark.slow


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run an example as a script, in an empty directory and without a hub, and return what it prints."""

    def call(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LANGSMITH_TRACING", "false")
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return call


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


def test_every_example_is_run_below_and_fits_on_a_page():
    scripts = {path.name: path for path in EXAMPLES.glob("*.py")}
    names = ("adapt_your_docs", "agent_tool", "chroma_server", "langchain_chain", "llamaindex_query_engine")
    assert set(scripts) == {f"{name}.py" for name in names}
    assert all(len(path.read_text().splitlines()) <= 70 for path in scripts.values())


@slow
@pytest.mark.parametrize("name", ["langchain_chain.py", "llamaindex_query_engine.py"])
def test_the_page_that_answers_comes_first(name, run, handbook):
    lines = run(name, handbook, "How do I get a new password?").splitlines()
    hits = [line for line in lines if line.startswith(("0.", "-0.")) and ".md" in line]
    scores = [float(line.split()[0]) for line in hits]
    assert len(hits) == 3 and "login.md" in hits[0]
    assert scores == sorted(scores, reverse=True)
    assert any(line.startswith("Answer:") for line in lines)


@slow
@pytest.mark.parametrize(
    ("name", "found"),
    [("langchain_chain.py", "def py_scanstring"), ("llamaindex_query_engine.py", "def detect_encoding")],
)
def test_the_default_folder_and_question(name, found, run):
    assert found in run(name)


@slow
def test_agent_tool(run, handbook):
    lines = run("agent_tool.py", handbook, "Book a meeting room for Friday").splitlines()
    assert lines[0].endswith("book_room")
    assert any(line.startswith("[") and ".md]" in line for line in lines)


@slow
def test_adapt_your_docs(run, tmp_path):
    source = Path(json.__file__).parent
    assert run("adapt_your_docs.py", source, "--output", "model", "--max-steps", "2").strip()
    assert (tmp_path / "model" / "modules.json").is_file()
    assert (tmp_path / "model" / "revela.json").is_file()
