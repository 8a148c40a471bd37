"""Two processes over gloo compute what one does with the same groups in a step.

Tolerances: gradients 1e-4 of the largest entry of each tensor, losses 1e-3 after twelve steps. The rest is the order
in which float32 numbers are added.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from world_worker import CASES, run

from revela_training.loop.distributed import World

pytestmark = pytest.mark.slow


def torchrun(*command: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Two processes; everything they say is in the result."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(
    base_dir: Path, lm_dir: Path, code_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folders with what one process and what two processes made of every case."""
    sources = [str(base_dir), str(lm_dir), str(code_folder)]
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    done = torchrun(str(Path(__file__).with_name("world_worker.py")), str(two), *sources)
    assert done.returncode == 0, done.stderr[-4000:]
    for case in CASES:
        if case != "lora-split":
            run(case, World(), sources, one)
    return one, two


def alone(case: str) -> str:
    """The case that one process can run."""
    return "lora" if case == "lora-split" else case


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(runs: tuple[Path, Path], case: str) -> None:
    one = load_file(runs[0] / f"{alone(case)}-gradients.safetensors")
    two = load_file(runs[1] / f"{case}-gradients.safetensors")
    assert one.keys() == two.keys()
    assert any(".retriever." in f".{name}" for name in one) and any(
        "lm_head" in name or "embed" in name for name in one
    )
    for name, value in one.items():
        difference = float((two[name] - value).abs().max())
        assert difference <= 1e-4 * float(value.abs().max()) + 1e-8, (name, difference)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_curve_is_that_of_one_process(runs: tuple[Path, Path], case: str) -> None:
    one = json.loads((runs[0] / f"{alone(case)}-log.json").read_text())
    two = json.loads((runs[1] / f"{case}-log.json").read_text())
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    assert one[-1]["lm_loss"] < one[0]["lm_loss"] - 0.2, "it learned something"
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "lm_loss", "baseline_loss", "max_weight", "contrastive_loss"):
            assert (name in a) == (name in b)
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-3), (name, a["step"])


def test_a_split_lm_is_resumed_to_the_same_weights(runs: tuple[Path, Path]) -> None:
    straight = load_file(runs[1] / "lora-split-weights.safetensors")
    resumed = load_file(runs[1] / "lora-split-resumed.safetensors")
    assert straight.keys() == resumed.keys()
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("shard", [False, True], ids=["whole", "split"])
def test_the_command_adapts_with_two_processes_and_writes_once(
    base_dir: Path, lm_dir: Path, code_folder: Path, tmp_path: Path, shard: bool
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f"lm_warmup_steps = 2\ngroup_size = 4\ngroups_per_step = 1\nmax_tokens = 24\nshard = {str(shard).lower()}\n"
        'adapter = "lora"\nlora_rank = 4\nstrengths = [1.0]\n'
    )
    output = tmp_path / "out" / "model"
    done = torchrun(
        *("--module", "revela_rag.cli", "adapt", str(code_folder), "--output", str(output), "--base", str(base_dir)),
        *("--lm", str(lm_dir), "--config", str(settings), "--max-steps", "4", "--json"),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [path.name for path in output.parent.iterdir()] == ["model"], "work folders are removed"
    stored = json.loads((output / "revela.json").read_text())
    assert stored["training"]["processes"] == 2
    assert done.stdout.count(json.dumps(stored["summary"])) == 2, "all processes return the same"
