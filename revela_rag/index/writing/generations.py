"""Generations: a write happens in a new directory, one atomic rename makes it the index.

Readers need no lock: they see the old manifest or the new one. Writers take turns by a file lock. A killed writer
leaves a directory that no manifest names; the next writer removes it. The embeddings it made stay for that one
(:mod:`revela_rag.index.writing.kept`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

from revela_rag.errors import DiskError, IndexingError
from revela_rag.index.manifest import GENERATION, MANIFEST_FILE, Manifest
from revela_rag.index.writing.kept import KEPT_FILE, holds_kept

__all__ = ["LOCK_FILE", "LOCK_TIMEOUT", "QUEUE_FILE", "Workspace", "disk_errors", "publish", "writing"]

#: Who waits for the lock holds the queue, so that a writer that has just ended does not overtake those that wait.
LOCK_FILE, QUEUE_FILE = ".lock", ".queue"
#: Seconds a writer waits for another one.
LOCK_TIMEOUT = 10.0
_TEMPORARY = MANIFEST_FILE + ".new"
_POLL = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a writer holds: the index as it is, and a name for the generation it may write.

    Attributes:
        root: directory of the index.
        current: the manifest in force, or None in a new index.
        folder: directory of the new generation; made by :meth:`begin`.
    """

    root: Path
    current: Manifest | None
    folder: Path

    def begin(self) -> Path:
        """Make the new generation's directory."""
        self.folder.mkdir()
        return self.folder


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn an OSError met while writing the index in ``root`` into a DiskError that says what it means."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise _disk(error, root) from error


@contextmanager
def writing(
    root: Path, *, timeout: float = LOCK_TIMEOUT, create: bool = False, overwrite: bool = False
) -> Iterator[Workspace]:
    """Hold the writer's lock of the index in ``root``; on any error remove what was written but kept embeddings.

    Args:
        root: directory of the index.
        timeout: seconds to wait for another writer.
        create: make the directory if it is missing; it may then hold nothing but an index or its leftovers.
        overwrite: go on although the manifest is damaged.

    Raises:
        IndexingError: another writer holds the lock, ``root`` is something else than an index.
        DiskError: the disk is full or cannot be written.
    """
    made = _prepare(root, create)
    lock = FileLock(root / LOCK_FILE)
    deadline = monotonic() + timeout
    try:
        with FileLock(root / QUEUE_FILE).acquire(timeout, poll_interval=_POLL):
            lock.acquire(max(0.0, deadline - monotonic()), poll_interval=_POLL)
    except Timeout as error:
        raise IndexingError(
            f"Another process is writing this index: {str(root / LOCK_FILE)!r} stayed locked for {timeout:g} s. "
            "Wait for it to end, or stop it, and try again; lock_timeout sets how long to wait."
        ) from error
    except OSError as error:
        raise _disk(error, root) from error
    try:
        current = _current(root, overwrite)
        workspace = Workspace(root, current, root / _next_name(root))
        try:
            yield workspace
        except BaseException:
            if _named(root) == workspace.folder.name:
                raise  # interrupted while it tidied up: the new index is in force
            shutil.rmtree(workspace.folder, ignore_errors=True)
            (root / _TEMPORARY).unlink(missing_ok=True)
            if made and not (root / MANIFEST_FILE).exists() and not holds_kept(root):
                shutil.rmtree(root, ignore_errors=True)
            raise
    finally:
        lock.release()


def publish(workspace: Workspace, manifest: Manifest) -> None:
    """Make the new generation the index, then remove the old one."""
    for file in workspace.folder.rglob("*"):
        _sync(file)
    _sync(workspace.folder)
    temporary = workspace.root / _TEMPORARY
    temporary.write_text(manifest.to_json(), encoding="utf-8")
    _sync(temporary)
    temporary.replace(workspace.root / MANIFEST_FILE)
    with suppress(OSError):  # the new index is in force: what fails now is no failed write
        _sync(workspace.root)
        _sweep(workspace.root, manifest)


def _prepare(root: Path, create: bool) -> bool:
    """Check the directory; True when this call made it."""
    if not create:
        if not (root / MANIFEST_FILE).is_file():
            Manifest.read(root)  # says what is wrong
        return False
    if root.exists() and not root.is_dir():
        raise IndexingError(f"{str(root)!r} is a file; choose another path for the index.")
    if not root.exists():
        try:
            root.mkdir(parents=True)
        except FileExistsError:
            return False
        except OSError as error:
            raise _disk(error, root) from error
        return True
    try:
        Manifest.read(root)
    except IndexingError as error:  # none, or damaged: then everything here must at least be ours
        foreign = _foreign(root)
        if foreign:
            raise IndexingError(
                f"{str(root)!r} is not empty and not an index (it holds {foreign!r}); choose another path."
            ) from error
    return False


def _foreign(root: Path) -> str | None:
    """Something in a directory without a valid manifest that no index left there."""
    names = sorted(entry.name for entry in root.iterdir())
    generations = [name for name in names if GENERATION.fullmatch(name)]
    ours = {*generations, _TEMPORARY, LOCK_FILE, QUEUE_FILE, *([MANIFEST_FILE] if generations else [])}
    return next((name for name in names if name not in ours and not KEPT_FILE.fullmatch(name)), None)


def _current(root: Path, overwrite: bool) -> Manifest | None:
    """The manifest in force; cleans up after writers that died, unless a damaged manifest hides which is which."""
    current = None
    if (root / MANIFEST_FILE).exists():
        try:
            current = Manifest.read(root)
        except IndexingError:
            if not overwrite:
                raise
            return None
    _sweep(root, current)
    return current


def _named(root: Path) -> str | None:
    """The generation in force; None where no manifest can be read."""
    try:
        return Manifest.read(root).generation
    except IndexingError:
        return None


def _next_name(root: Path) -> str:
    names = [entry.name for entry in root.iterdir() if GENERATION.fullmatch(entry.name)]
    return f"generation-{max((int(name.partition('-')[2]) for name in names), default=0) + 1:06d}"


def _sweep(root: Path, current: Manifest | None) -> None:
    """Remove generations that no manifest names. What cannot be removed now is removed by a later writer."""
    for entry in root.iterdir():
        if GENERATION.fullmatch(entry.name) and (current is None or entry.name != current.generation):
            shutil.rmtree(entry, ignore_errors=True)
    (root / _TEMPORARY).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Make a file or directory survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk(error: OSError, root: Path) -> DiskError:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        reason = "the disk is full"
    elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        reason = f"no permission to write ({reason})"
    return DiskError(
        f"Writing the index {str(root)!r} failed: {reason}. The index is as it was before; free some space or "
        "choose another path."
    )
