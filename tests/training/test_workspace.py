from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from revela_rag.errors import DiskError, TrainingError
from revela_training.loop.workspace import Workspace, digest


def test_arrays_are_computed_once_and_survive_a_restart(tmp_path: Path) -> None:
    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.arange(3.0)

    for resume in (False, True):
        work = Workspace(tmp_path / "out", identity={"a": 1}, resume=resume)
        assert work.array("x", compute).tolist() == [0, 1, 2]
        work.close()
    assert len(calls) == 1


def test_a_damaged_array_is_computed_again(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "out", identity={}, resume=False)
    work.array("x", lambda: np.arange(3.0))
    (work.folder / "x.npy").write_bytes(b"nonsense")
    assert work.array("x", lambda: np.ones(2)).tolist() == [1, 1]


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    Workspace(tmp_path / "out", identity={"seed": 1, "corpus": "x"}, resume=False).close()
    with pytest.raises(TrainingError, match=r"seed \(was 1\)"):
        Workspace(tmp_path / "out", identity={"seed": 2, "corpus": "x"}, resume=True)


def test_without_resume_old_work_is_thrown_away(tmp_path: Path) -> None:
    old = Workspace(tmp_path / "out", identity={"seed": 1}, resume=False)
    old.array("x", lambda: np.ones(1))
    old.close()
    new = Workspace(tmp_path / "out", identity={"seed": 2}, resume=False)
    assert not (new.folder / "x.npy").exists()
    assert not new.resuming


def test_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workspace(tmp_path / "out", identity={}, resume=False)

    def full(file: object, *_: object, **__: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DiskError, match="No space left"):
        work.array("x", lambda: np.ones(1))
    assert [path.name for path in work.folder.iterdir()] == ["job.json"]


def test_digest_sees_boundaries() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_two_runs_cannot_write_one_output(tmp_path: Path) -> None:
    first = Workspace(tmp_path / "out", identity={}, resume=False)
    with pytest.raises(TrainingError, match="Another process is adapting"):
        Workspace(tmp_path / "out", identity={}, resume=True)
    assert (first.folder / "job.json").is_file()
    first.close()
    Workspace(tmp_path / "out", identity={}, resume=True).close()
