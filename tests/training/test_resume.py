"""A run that is killed and resumed, again and again, ends where it would have ended."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from world_worker import build, settings

from revela_rag.errors import DiskError, TrainingError
from revela_training.loop.checkpoint import (
    latest_checkpoint,
    load_optimizer_state,
    load_state,
    optimizer_state,
    random_state,
    restore_random_state,
    save_state,
    whole_checkpoint,
)
from revela_training.loop.distributed import World
from revela_training.loop.trainer import train

NEVER = 10**6


@pytest.fixture
def sources(base_dir: Path, lm_dir: Path, code_folder: Path) -> list[str]:
    return [str(base_dir), str(lm_dir), str(code_folder)]


def process(folder: Path, tick: int, case: str, sources: list[str]) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("killed_worker.py")
    return subprocess.run(
        [sys.executable, str(script), str(folder), str(tick), case, *sources],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("case", "seed"), [("lora", 1), ("linear", 2)])
def test_killed_at_random_and_in_the_middle_of_files(tmp_path: Path, sources: list[str], case: str, seed: int) -> None:
    straight = process(tmp_path / "straight", NEVER, case, sources)
    assert straight.returncode == 0, straight.stderr[-3000:]
    draw = random.Random(seed)
    # a checkpoint is four files: ticks 4 and 5 are inside the first one
    ticks = [draw.randint(1, 3), draw.randint(4, 5), draw.randint(8, 12), draw.randint(1, 5)]
    told = ""
    for tick in ticks:
        killed = process(tmp_path / "cut", tick, case, sources)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        told += killed.stdout
    assert "while writing" in told and "at a step" in told and "from checkpoint-" in told, told
    last = process(tmp_path / "cut", NEVER, case, sources)
    assert last.returncode == 0, last.stderr[-3000:]
    assert "from checkpoint-" in last.stdout
    wanted = load_file(tmp_path / "straight" / "final.safetensors")
    found = load_file(tmp_path / "cut" / "final.safetensors")
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    tmp_path: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses to write more than a file of a checkpoint needs; the error is a real one."""
    world = World()
    config = settings("linear", world).replace(checkpoint_steps=3)
    straight, *rest = build(config, world, *sources)
    train(straight, *rest, config, folder=tmp_path / "straight", show_progress=False, world=world)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    model, *rest = build(config, world, *sources)
    folder = tmp_path / "cut"

    class FillsUp(World):
        waits = 0

        def wait(self) -> None:
            self.waits += 1
            if self.waits == 4:  # the first checkpoint waits three times
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(DiskError, match=r"checkpoint of step 6.*Step 3 is kept.*--resume"):
            train(model, *rest, config, folder=folder, show_progress=False, world=FillsUp())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-3"]
    assert {path.suffix for path in (folder / "checkpoint-3").iterdir()} == {".safetensors", ".json"}
    resumed, *rest = build(config, world, *sources)
    train(resumed, *rest, config, folder=folder, resume=True, show_progress=False, world=world)
    for (name, wanted), found in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(wanted, found), name


def test_a_checkpoint_appears_at_once_and_old_ones_go(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        with whole_checkpoint(tmp_path, step, World()) as folder:
            (folder / f"checkpoint-{step}").mkdir()
            (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
            assert not (tmp_path / f"checkpoint-{step}").exists()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-100"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_torch_reports_a_full_disk_as_a_runtime_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="step 5"), whole_checkpoint(tmp_path, 5, World()):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    with pytest.raises(RuntimeError, match="shapes"), whole_checkpoint(tmp_path, 5, World()):
        raise RuntimeError("shapes differ")
    with pytest.raises(DiskError), whole_checkpoint(tmp_path, 5, World()):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_optimizer_is_stored_without_pickle_and_exactly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    first, second = (torch.optim.AdamW(model.parameters(), lr=0.1 / 3, betas=(0.9, 0.98)) for model in models)
    models[0](torch.randn(4, 3)).sum().backward()
    first.step()
    save_state(optimizer_state(first), tmp_path / "optimizer.safetensors")
    load_optimizer_state(second, load_state(tmp_path / "optimizer.safetensors"))
    assert second.param_groups[0]["lr"] == 0.1 / 3
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert first.state[one].keys() == second.state[other].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(first.state[one][name], second.state[other][name]) for name in first.state[one])


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.normal(), torch.rand(()).item()]

    draw()  # leaves a spare normal number in both
    save_state(random_state(), tmp_path / "random.safetensors")
    wanted = draw()
    draw()
    restore_random_state(load_state(tmp_path / "random.safetensors"))
    assert draw() == wanted


def test_a_damaged_state_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.safetensors"
    with pytest.raises(TrainingError, match="without --resume"):
        load_state(path)
    path.write_bytes(b"cut in the midd")
    with pytest.raises(TrainingError, match="without --resume"):
        load_state(path)
