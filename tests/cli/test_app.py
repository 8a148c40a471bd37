from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from revela_rag import __version__
from revela_rag.cli.durations import parse_duration

COMMANDS = ("adapt", "index", "search", "evaluate", "demo", "doctor")
HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "chromadb", "numpy", "revela_training")


def shell(*arguments: str | Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "revela_rag.cli"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "100", "HF_HUB_OFFLINE": "1"},
    )


def test_version(revela: Callable[..., Any]) -> None:
    assert revela("--version").stdout.strip() == f"revela {__version__}"


def test_help_lists_every_command(revela: Callable[..., Any]) -> None:
    text = revela("--help").stdout
    assert all(re.search(rf"^\W*{command}\b", text, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_line_for_line(revela: Callable[..., Any], command: str) -> None:
    lines = revela(command, "--help").stdout.splitlines()
    examples = lines[lines.index("Examples:") + 1 :]
    assert len(examples) >= 2
    assert all(line.startswith(f"  revela {command}") for line in examples if line)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['revela', '--help']\n"
        "from revela_rag.cli import main\n"
        "try: main()\n"
        f"finally: print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = shell(code=code)
    assert "LOADED []" in result.stdout, result.stderr


def test_no_command_and_wrong_usage_exit_with_2(revela: Callable[..., Any]) -> None:
    revela(code=2)
    revela("nonsense", code=2)
    revela("search", code=2)
    assert "No such option" in revela("doctor", "--nonsense", code=2).stderr


def test_an_error_of_ours_is_a_message_without_a_traceback(tmp_path: Path) -> None:
    result = shell("search", tmp_path / "nowhere", "question")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and "nowhere" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_status_and_says_how_to_go_on(tmp_path: Path, number: int, status: int) -> None:
    code = (
        "import signal, sys, time, types\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "fake = types.ModuleType('revela_training')\n"
        "def adapt(source, **options):\n"
        "    print('started', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "fake.adapt = adapt\n"
        "sys.modules['revela_training'] = fake\n"
        f"sys.argv = ['revela', 'adapt', 'my docs', '--output', {str(tmp_path / 'model')!r}]\n"
        "from revela_rag.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(number)
    text = process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert "Stopped." in text and "revela adapt 'my docs'" in text and "--resume" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h", 3600), ("45", 45), ("1.5m", 90), (" 2M ", 120), ("5min", 300)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5m", "m", "1m30", "0s", "1h2h", "10 m s"])
def test_malformed_durations(text: str, revela: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_duration(text)
    assert "Traceback" not in revela("adapt", "x", "-o", "y", f"--time-limit={text}", code=2).stderr
