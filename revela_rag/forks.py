"""What lets a forked child compute: a server that loads its index before it forks (gunicorn --preload) has such."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["survive_forks"]


@cache
def survive_forks() -> None:
    """From now on a child of this process computes with one thread, and opens Chroma anew.

    The threads of OpenMP, with which torch and FAISS compute, stay behind in the parent: a child that goes on to use
    more than one waits for them for ever. Called by whatever is about to compute.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_anew)


def _start_anew() -> None:
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    if (faiss := sys.modules.get("faiss")) is not None:
        faiss.omp_set_num_threads(1)
    if (chroma := sys.modules.get("chromadb.api.shared_system_client")) is not None:
        # it would give the child its parent's, and letting go of those, at exit too, waits for threads that are gone
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(chroma.SharedSystemClient._identifier_to_system))
        chroma.SharedSystemClient.clear_system_cache()
