"""How much memory there is to work with."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory"]

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
