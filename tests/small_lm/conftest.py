"""Fixtures: the recipe's scripts as modules, and a folder of tiny packages to collect from."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "small_lm"
NAMES = ("licences", "collect", "prepare", "groups", "train", "export", "evaluate")


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts; forgotten afterwards, as their names are common words."""
    monkeypatch.syspath_prepend(str(RECIPE))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        sys.modules.pop(name, None)


def write_package(root, name, licence, topic):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "PKG-INFO").write_text(f"Name: {name}\nVersion: 1.0\nLicense: {licence}\n\nAbout {topic}.\n")
    functions = "\n\n".join(
        f'def {topic}_{word}(value, other=None):\n    """Return the {word} {topic} of a value, or the other one.\n\n'
        f'    Raises ValueError when there is no {topic} at all.\n    """\n'
        f'    if value is None:\n        raise ValueError("no {topic} to {word}")\n    return value.{word}(other)\n'
        for word in ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    )
    (folder / f"{topic}.py").write_text(f"# Copyright somebody, all about the license\n\n{functions}")
    (folder / f"{topic}_more.py").write_text(functions.replace("value", f"{topic}s").replace("other", "fallback"))
    guide = "\n".join(
        f"Chapter {number} explains how the {topic} number {number} is put beside a {topic} of another kind."
        for number in range(60)
    )
    (folder / "guide.md").write_text(guide)
    (folder / "tests").mkdir()
    (folder / "tests" / f"test_{topic}.py").write_text(functions)
    return folder


@pytest.fixture
def packages(tmp_path):
    """Permissive packages, one under the GPL, one without a licence."""
    root = tmp_path / "packages"
    for name, licence, topic in [
        ("apples", "MIT", "apple"),
        ("boats", "BSD-3-Clause", "boat"),
        ("clouds", "Apache-2.0", "cloud"),
        ("doors", "MIT License", "door"),
        ("engines", "GPL-3.0-only", "engine"),
        ("forests", "", "forest"),
    ]:
        write_package(root, name, licence, topic)
    return root
