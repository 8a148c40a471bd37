"""Where an unfinished adaptation keeps what it has, so that the next run goes on from there."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from revela_rag.errors import DiskError, TrainingError
from revela_training.loop.distributed import World

__all__ = ["Workspace"]

logger = logging.getLogger(__name__)

#: Texts in a block of vectors: what an interruption loses.
EMBEDDED_AT_ONCE = 256


class Workspace:
    """A folder beside the output, removed when the output is complete.

    With several processes the first one writes and the others wait for it and read.

    Args:
        output: the directory the model will be written to; one that all processes see.
        identity: what the job is made of; a resumed job must have the same.
        resume: go on from an earlier run instead of starting afresh.
        world: the processes that share the folder; None for this one alone.

    Raises:
        TrainingError: asked to resume a job with other settings or another corpus, or another process is
            adapting to the same output.
        DiskError: the folder cannot be written.
    """

    def __init__(self, output: Path, *, identity: dict[str, Any], resume: bool, world: World | None = None) -> None:
        self.folder = output.parent / f".{output.name}.work"
        self.resuming = False
        self._world = world or World()
        self._lock: FileLock | None = None
        if self._world.leads:
            self._lock = self._take_lock(output)
            try:
                self._prepare(output, identity, resume)
            except BaseException:
                self.close()
                raise
        self.resuming = bool(self._world.from_leader(float(self.resuming)))
        if not self._world.leads and not self.folder.is_dir():
            raise DiskError(
                f"{self.folder}, made by the first process, cannot be seen by process {self._world.rank}. "
                "Choose an output on a file system that all nodes share."
            )

    @staticmethod
    def _take_lock(output: Path) -> FileLock:
        path = output.parent / f".{output.name}.work.lock"
        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise TrainingError(
                f"Another process is adapting to {output} (it holds {path}). Wait for it, or choose another output."
            ) from None
        except OSError as error:
            raise DiskError(f"Cannot write to {path.parent}: {error.strerror}. Choose another output.") from error
        return lock

    def _prepare(self, output: Path, identity: dict[str, Any], resume: bool) -> None:
        stored = self._read_identity()
        if resume and stored is not None:
            changed = sorted(key for key in identity | stored if identity.get(key) != stored.get(key))
            if changed:
                was = ", ".join(f"{key} (was {stored.get(key)})" for key in changed)
                raise TrainingError(
                    f"Cannot resume {output}, as these have changed since it was started: {was}. "
                    "Run with the same settings, or without --resume to start afresh."
                )
            self.resuming = True
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "job.json").write_text(json.dumps(identity, indent=2), encoding="utf-8")
        except OSError as error:
            raise DiskError(
                f"Cannot write to {self.folder}: {error.strerror}. Free space or choose another output."
            ) from error

    def _read_identity(self) -> dict[str, Any] | None:
        try:
            stored = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) else None

    @property
    def checkpoints(self) -> Path:
        """Folder of the Trainer's checkpoints."""
        return self.folder / "checkpoints"

    def within(self, name: str) -> Workspace:
        """A part of the workspace with arrays and checkpoints of its own; the whole keeps the lock."""
        part = copy.copy(self)
        part.folder = self.folder / name
        part._lock = None
        if self._world.leads:
            try:
                part.folder.mkdir(exist_ok=True)
            except OSError as error:
                raise DiskError(
                    f"Cannot write to {part.folder}: {error.strerror}. Free space and run again with --resume."
                ) from error
        return part

    def alone(self) -> Workspace:
        """The same for the first process, which nobody waits for."""
        part = copy.copy(self)
        part._world, part._lock = World(), None
        return part

    def vectors(
        self, name: str, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray], *, bar: Any = None
    ) -> np.ndarray:
        """Vectors (n, d) of at least one text, as `array` but block by block, so that an interruption loses one.

        Args:
            name: of the files, which the texts are part of as well.
            texts: what to embed.
            embed: makes the vectors of some.
            bar: told how many are done.
        """
        blocks = []
        for start in range(0, len(texts), EMBEDDED_AT_ONCE):
            some = texts[start : start + EMBEDDED_AT_ONCE]
            blocks.append(self.array(f"{name}-{digest(some)}", functools.partial(embed, some)))
            if bar is not None:
                bar.update(len(some))
        return np.concatenate(blocks)

    def array(self, name: str, compute: Callable[[], np.ndarray], *, mapped: bool = False) -> np.ndarray:
        """An array that is computed once, by the first process, and read back by the others and after a restart.

        Args:
            name: of the file; all processes must ask for the same arrays in the same order.
            compute: makes it.
            mapped: give it back memory-mapped and read-only instead of in memory.

        Raises:
            DiskError: it cannot be written.
        """
        path = self.folder / f"{name}.npy"
        value = self._read(path, mapped) if self._world.leads else None
        if self._world.leads and value is None:
            value = compute()
            self._write(path, value)
            value = self._read(path, mapped) if mapped else value
        self._world.wait()
        value = self._read(path, mapped) if value is None else value
        if value is None:
            raise DiskError(f"Cannot read {path}, which the first process wrote. Choose an output all nodes share.")
        return value

    @staticmethod
    def _read(path: Path, mapped: bool) -> np.ndarray | None:
        if not path.is_file():
            return None
        try:
            return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError):
            logger.warning("%s is damaged and is computed again", path)
            return None

    @staticmethod
    def _write(path: Path, value: np.ndarray) -> None:
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                np.save(file, value, allow_pickle=False)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise DiskError(
                f"Cannot write {path}: {error.strerror}. Free space and run again with --resume."
            ) from error

    def remove(self) -> None:
        """Delete the folder; the output is complete."""
        if self._world.leads:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let another process have the output; safe to call twice."""
        if self._lock is not None and self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()


def digest(texts: Iterable[str]) -> str:
    """Hash of a list of texts, to recognise a corpus again."""
    state = hashlib.sha256()
    for text in texts:
        state.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return state.hexdigest()[:16]
