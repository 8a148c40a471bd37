"""A disk that is full, with so many kilobytes left: real ones on a file system of its own (root on Linux), or a limit.

    python benchmarks/fire/disk.py --step 100

With each hundred kilobytes a write is tried. It may succeed, or end with a DiskError and nothing left of it, after
which the index is what it was, byte by byte. Then there is room, and the same write must succeed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from harness import RandomEncoder, chunks, found, fresh, in_child, leftovers, show

from revela_rag.errors import DiskError
from revela_rag.index import Index

_START, _MORE, _MEGABYTES = 60, 900, 24


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system in ``folder``; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "tmpfs", str(folder)]
    try:
        mounted = sys.platform == "linux" and not subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def build(root: Path, store: str) -> None:
    """The index before the write."""
    options: Any = {"encoder": RandomEncoder(), "store": store}
    Index.build(chunks(_START), path=root, **options).close()


def write(root: Path, limit: int | None = None) -> str:
    """Bring the index to another state; gives ``"done"``, or the message of the DiskError."""
    if limit is not None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with Index.open(root, encoder=RandomEncoder()) as index:  # type: ignore[arg-type]
            index.sync(chunks(_MORE, 10))
    except DiskError as error:
        return str(error)
    return "done"


def fill(folder: Path, free: int) -> Path:
    """Take the space of the disk but for so many bytes."""
    import shutil

    ballast = folder / "ballast"
    ballast.write_bytes(b"")
    size = shutil.disk_usage(folder).free - free
    with ballast.open("wb") as file:
        for _ in range(max(0, size) // 4096):
            file.write(b"x" * 4096)
    return ballast


def full(store: str, step: int, folder: Path, mounted: bool) -> dict[str, Any]:
    """Try the write with ever more space until it succeeds."""
    root, before, tried, errors, broken, left = folder / store, set(range(_START)), 0, 0, 0, 0
    in_child(partial(build, fresh(root), store))
    while True:
        tried += 1
        room = (tried - 1) * step * 1000
        attempt: Callable[[], str] = partial(write, root, None if mounted else room)
        if mounted:
            ballast = fill(folder, room)
        said = in_child(attempt)
        if mounted:
            ballast.unlink()
        if said == "done":
            break
        errors += 1
        left += bool(leftovers(root))
        broken += in_child(partial(found, root)) != before
    broken += in_child(partial(found, root)) != set(range(10, _MORE))
    kind = "file system of its own" if mounted else "limit on files"
    return {
        "store": store,
        "disk": kind,
        "tried": tried,
        "errors": errors,
        "left": left,
        "broken": broken,
        "KB": room // 1000,
    }


def main() -> None:
    """Run as the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=100, help="kilobytes")
    parser.add_argument("--store", nargs="*", default=["faiss", "chroma"])
    parser.add_argument("--limit", action="store_true", help="limit the size of files instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, small_disk(Path(place)) as mounted:
        real = mounted and not arguments.limit
        rows = [full(store, arguments.step, Path(place), real) for store in arguments.store]
    show(rows, None)
    sys.exit(any(row["left"] or row["broken"] or not row["errors"] for row in rows))


if __name__ == "__main__":
    main()
