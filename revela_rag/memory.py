"""How much memory there is to work with, and whether it ran out."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["available_memory", "is_out_of_memory"]

_RAN_OUT = re.compile(r"out of memory|(?:can't|cannot|could not|failed to) allocate", re.IGNORECASE)

_CONTAINER = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes this process can still take: on Linux what is free, within its container's limit if that has one.

    Elsewhere all there is; None where even that is unknown.
    """
    free = _machine()
    if free is None:
        return None
    try:
        limit, used = (
            (_CONTAINER / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
        return free if limit == "max" else max(0, min(free, int(limit) - int(used) + _reclaimable()))
    except (OSError, ValueError):
        return free


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of a CUDA or Apple device, or of the machine.

    Only some of these have a type of their own; the others are a ``RuntimeError`` whose words differ.
    """
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError with these words, too
    return isinstance(error, RuntimeError) and bool(_RAN_OUT.search(str(error)))


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _reclaimable() -> int:
    """Bytes of the container's use that are only cached files."""
    for line in _container("memory.stat").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _container(name: str) -> str:
    return (_CONTAINER / name).read_text(encoding="ascii")
