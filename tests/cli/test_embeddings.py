"""Embeddings behind an API on the command line: named by module and name, asked about, adapted, indexed, searched."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULE = """
calls = []


class Letters:
    model = "letters"

    def embed_documents(self, texts):
        calls.append(texts)
        return [[0.1 + text.count(letter) for letter in "etaoinshrdlucmfw"] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


embeddings = Letters()
"""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "stack_of_a_test.py").write_text(MODULE)
    docs = tmp_path / "pages"
    docs.mkdir()
    for one in ("river", "engine", "window", "garden", "letter", "mirror", "bridge", "candle", "forest", "harbour"):
        for two in ("opens", "paints", "sells", "hides", "cleans", "builds", "moves", "closes", "carries", "repairs"):
            text = f"# The {one} that {two} it\n\nEvery day a {one} {two} some more, and nobody else does.\n"
            (docs / f"{one}-{two}.md").write_text(text)
    yield "stack_of_a_test:embeddings"
    sys.modules.pop("stack_of_a_test", None)


def test_the_whole_road(stack: str, revela: Callable[..., Any]) -> None:
    options = ("pages", "--output", "map", "--embeddings", stack, "--max-steps", "3")
    refused = revela("adapt", *options, code=1)
    assert "is to embed" in refused.stderr and "Add --yes" in refused.stderr
    assert "Stopped before anything was sent" in refused.stderr
    sent = [text for call in sys.modules["stack_of_a_test"].calls for text in call]
    assert not [text for text in sent if "Every day" in text]
    assert not Path("map").exists()

    made = revela("adapt", *options, "--yes")
    assert f"--model map --embeddings {stack}" in made.stderr
    assert Path("map/embedding_map.json").is_file()
    indexed = revela("index", "pages", "--output", "ix", "--model", "map", "--embeddings", stack)
    assert "100 chunks" in indexed.stdout and f"--embeddings {stack} --model map" in indexed.stderr
    found = revela("search", "ix", "a bridge that moves", "--model", "map", "--embeddings", stack, "-k", "1")
    assert "bridge-" in found.stdout
    assert "Encoder.over" in revela("search", "ix", "a bridge", code=1).stderr
    revela("index", "pages", "--output", "raw", "--embeddings", stack)
    assert "fingerprint" in revela("search", "raw", "a", "--model", "map", "--embeddings", stack, code=1).stderr


@pytest.mark.parametrize(
    ("named", "words"),
    [("nonsense", "MODULE:NAME"), ("no_such_module_here:x", "cannot be imported"), ("json:nothing", "no attribute")],
)
def test_what_cannot_be_imported_is_named(named: str, words: str, stack: str, revela: Callable[..., Any]) -> None:
    assert words in revela("adapt", "pages", "--output", "map", "--embeddings", named, code=1).stderr


def test_options_that_exclude_each_other(stack: str, revela: Callable[..., Any]) -> None:
    both = ("--embeddings", stack, "--base", "all-MiniLM-L6-v2")
    assert "exclude each other" in revela("adapt", "pages", "--output", "map", *both, code=2).stderr
    ray = ("--embeddings", stack, "--engine", "ray")
    assert "--engine ray loads a model" in revela("index", "pages", "--output", "ix", *ray, code=2).stderr
