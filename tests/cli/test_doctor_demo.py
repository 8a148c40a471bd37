from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from revela_rag.cli import diagnostics
from revela_rag.errors import MissingExtraError


def test_doctor(revela: Callable[..., Any]) -> None:
    result = json.loads(revela("doctor", "--json").stdout)
    checks = {check["name"]: check for check in result["checks"]}
    assert result["ok"] is True
    for essential in ("python", "revela-rag", "requirements", "torch", "faiss", "sqlite", "bm25"):
        assert checks[essential]["status"] == "ok", checks[essential]
    assert {"extra training", "extra demo", "demo model", "language model", "disk", "memory"} <= set(checks)
    assert "numpy" in checks["requirements"]["detail"] and "threads" in checks["torch"]["detail"]


def test_doctor_exits_with_1_when_something_essential_is_broken(
    revela: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "chromadb", None)
    result = revela("doctor", code=1)
    assert "FAILED  faiss" in result.stdout and "pip install --force-reinstall faiss-cpu" in result.stdout
    assert "--  chroma" in result.stdout, "a missing extra is not a failure"
    assert "broken" in result.stdout


def test_missing_and_outdated_packages_are_named() -> None:
    wanted = ["numpy>=1.0", "no-such-package>=2; extra == 'x'", "typer>=999; extra == 'x'"]
    lines, missing = diagnostics._state(wanted, "x")
    assert missing == ["no-such-package>=2", "typer>=999"]
    assert lines[0] == "no-such-package not installed" and "needs >=999" in lines[1]
    assert diagnostics._state(wanted, None)[1] == []


def test_extras_made_of_extras_are_followed() -> None:
    wanted = ["no-such-package; extra == 'a'", "revela-rag[a]; extra == 'b'"]
    assert diagnostics._state(wanted, "b")[1] == ["no-such-package"]


@pytest.fixture
def demo_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def run_demo(*, console: Any, **options: Any) -> dict[str, Any]:
        calls.append(options)
        console.print("a table")
        if options["quick"]:
            raise MissingExtraError("peft", "demo", "the demo")
        return {"summary": "better", "seconds": 1.0}

    fake = types.ModuleType("revela_rag.demo")
    fake.run_demo = run_demo  # type: ignore[attr-defined]
    fake.run_raw_demo = lambda **options: run_demo(**options, raw=True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "revela_rag.demo", fake)
    return calls


def test_demo(demo_calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    assert "a table" in revela("demo", "--output", "x", "--fresh").stdout
    result = revela("demo", "--json")
    assert json.loads(result.stdout)["summary"] == "better" and "a table" in result.stderr
    assert demo_calls == [
        {"output": Path("x"), "quick": False, "fresh": True},
        {"output": Path("revela-demo"), "quick": False, "fresh": False},
    ]


def test_demo_of_a_plain_language_model(demo_calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    assert "a table" in revela("demo", "--raw-lm").stdout
    assert demo_calls == [{"output": Path("revela-demo"), "quick": False, "raw": True}]


def test_demo_without_its_extra(demo_calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    assert "revela-rag[demo]" in revela("demo", "--quick", code=1).stderr
