from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from revela_rag.errors import CorpusError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A training package that records how it was called, prints like a trainer and succeeds."""
    recorded: list[dict[str, Any]] = []
    metrics = {"nDCG@10": {"mean": 0.5, "low": 0.4, "high": 0.6}}

    def adapt(source: Any, **options: Any) -> Any:
        recorded.append({"source": source, **options})
        print("{'loss': 1.0}")
        if source == "stop":
            raise KeyboardInterrupt
        if source == "locked":
            raise PermissionError(13, "Permission denied", "out/model")
        if source == "empty":
            raise CorpusError("empty holds no text. Point to a folder with documents")
        return types.SimpleNamespace(
            path=Path(options["output"]),
            adapted=True,
            strength=0.5,
            summary="adapted: 0.4 to 0.5",
            report={
                "gate": {"evaluations": {"base": {"metrics": metrics, "per_query": {}}}},
                "seconds": 3.0,
                "corpus": {"skipped": {"unsupported type .xyz": ["a", "b"]}},
                "refused": [{"adapter": "lora", "summary": "kept the base model: no gain; try another"}],
            },
        )

    fake = types.ModuleType("revela_training")
    fake.adapt = adapt  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "revela_training", fake)
    return recorded


def test_an_interruption_says_what_to_paste(calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    result = revela(
        "adapt", "stop", "--output", "my out", "--preset", "code", "--adapter", "lora", "--max-steps", "7", code=130
    )
    assert "revela adapt stop --output 'my out' --preset code --adapter lora --max-steps 7 --resume" in " ".join(
        result.stderr.split()
    )


def test_what_was_skipped_is_told(calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    assert "skipped 2 × unsupported type .xyz" in revela("adapt", "docs", "--output", "out").stderr


def test_an_adapter_tried_in_vain_is_told(calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    result = revela("adapt", "docs", "--output", "out")
    assert "lora first: kept the base model: no gain\n" in result.stderr
    assert result.stdout.startswith("adapted: 0.4 to 0.5\n")


def test_options_arrive(calls: list[dict[str, Any]], revela: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("seed = 3\n", encoding="utf-8")
    result = revela(
        *("-q", "adapt", "docs", "--output", "out", "--base", "b", "--lm", "l", "--preset", "code"),
        *("--time-limit", "1h30m", "--resume", "--config", config),
    )
    (call,) = calls
    assert call == {
        "source": "docs",
        "output": Path("out"),
        "base": "b",
        "lm": "l",
        "preset": "code",
        "max_steps": None,
        "time_limit": 5400.0,
        "resume": True,
        "config": config,
        "show_progress": False,
    }
    assert result.stdout.splitlines() == ["adapted: 0.4 to 0.5", "Model: out"]
    assert "revela index docs --model out" in result.stderr


def test_json_is_all_that_stdout_holds(calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    result = json.loads(revela("adapt", "docs", "-o", "out", "--max-steps", "5", "--json").stdout)
    assert result["model"] == "out" and result["adapted"] is True
    assert result["evaluations"]["base"]["nDCG@10"]["mean"] == 0.5
    assert calls[0]["max_steps"] == 5 and calls[0]["preset"] == "auto"


def test_errors_exit_with_1(calls: list[dict[str, Any]], revela: Callable[..., Any]) -> None:
    result = revela("adapt", "empty", "-o", "out", code=1)
    assert "Error: empty holds no text" in result.stderr and "Error" not in result.stdout
    assert "Permission denied: 'out/model'" in revela("adapt", "locked", "-o", "out", code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-steps", "5", "--time-limit", "5m"),
        ("--max-steps", "0"),
        ("--preset", "poetry"),
        ("--config", "missing.toml"),
    ],
)
def test_wrong_usage(calls: list[dict[str, Any]], revela: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    revela("adapt", "docs", "-o", "out", *arguments, code=2)
    assert not calls


def test_missing_extra_says_what_to_install(revela: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "revela_training", None)
    result = revela("adapt", "docs", "-o", "out", code=1)
    assert "pip install 'revela-rag[training]'" in result.stderr
