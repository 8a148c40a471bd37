"""What ``revela doctor`` looks at."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from revela_rag.checks import Check
from revela_rag.memory import available_memory

__all__ = ["diagnose"]

_DISTRIBUTION = "revela-rag"
_EXTRAS = ("training", "langchain", "llama-index", "agents", "mcp", "chroma", "parquet", "documents", "report", "demo")
_GIGABYTE = 1e9


def diagnose() -> list[Check]:
    """Look at everything; no check raises."""
    checks = [_python(), *_packages()]
    for name, essential, remedy, look in (
        ("torch", True, "pip install torch", _torch),
        ("faiss", True, "pip install --force-reinstall faiss-cpu", _faiss),
        ("sqlite", True, "use a Python that was built with SQLite", _sqlite),
        ("bm25", True, "pip install --force-reinstall PyStemmer", _bm25),
        ("chroma", False, _pip("chroma"), _chroma),
        ("language model", False, "reinstall revela-rag, or pass --lm", _language_model),
        ("demo model", False, _pip("demo"), _demo_model),
        ("disk", False, "free some space", _disk),
        ("memory", False, "close other programs", _memory),
    ):
        checks.append(_guarded(name, essential, remedy, look))
    return checks


def _guarded(name: str, essential: bool, remedy: str, look: Callable[[], tuple[bool, str]]) -> Check:
    try:
        good, detail = look()
    except Exception as error:  # whatever is broken, the other checks go on
        if not essential and isinstance(error, ImportError):
            return Check(name, "missing", "not installed", remedy)
        good, detail = False, f"{type(error).__name__}: {error}"
    if good:
        return Check(name, "ok", detail)
    return Check(name, "failed" if essential else "warning", detail, remedy)


def _pip(extra: str) -> str:
    return f"pip install '{_DISTRIBUTION}[{extra}]'"


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs")


def _packages() -> Iterator[Check]:
    """The distribution, what it requires, and its extras, by their metadata: nothing is imported."""
    try:
        yield Check(_DISTRIBUTION, "ok", version(_DISTRIBUTION))
        wanted = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Check(_DISTRIBUTION, "failed", "not installed, only its source is on the path", "pip install -e .")
        return
    lines, missing = _state(wanted, None)
    status: Literal["ok", "failed"] = "failed" if missing else "ok"
    yield Check("requirements", status, ", ".join(lines), f"pip install {_quoted(missing)}" if missing else "")
    for extra in _EXTRAS:
        lines, missing = _state(wanted, extra)
        detail = ", ".join(lines)
        yield Check(f"extra {extra}", "missing" if missing else "ok", detail, _pip(extra) if missing else "")


def _quoted(requirements: Iterable[str]) -> str:
    return " ".join(f"'{requirement}'" for requirement in requirements)


def _state(wanted: list[str], extra: str | None) -> tuple[list[str], list[str]]:
    """What is installed of one extra (None: of the core), and the requirements that are not met."""
    from packaging.requirements import Requirement

    lines: list[str] = []
    missing: list[str] = []
    for text in wanted:
        requirement = Requirement(text)
        marker = requirement.marker
        applies = marker is None or marker.evaluate({"extra": extra or ""})
        if not applies or (extra is not None and (marker is None or marker.evaluate({"extra": ""}))):
            continue
        if requirement.name == _DISTRIBUTION:  # an extra made of others
            for part in sorted(requirement.extras):
                more, lacking = _state(wanted, part)
                lines += more
                missing += lacking
            continue
        plain = f"{requirement.name}{requirement.specifier}"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            lines.append(f"{requirement.name} not installed")
            missing.append(plain)
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        lines.append(f"{requirement.name} {found}" + ("" if fits else f" (needs {requirement.specifier})"))
        if not fits:
            missing.append(plain)
    return lines, missing


def _torch() -> tuple[bool, str]:
    import torch

    if torch.cuda.is_available():
        device = f"cuda, {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        bf16 = torch.cuda.is_bf16_supported()
    elif torch.backends.mps.is_available():
        device, bf16 = "mps", False
    else:
        device = "cpu"
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
        bf16 = bool(supported())
    total = float(torch.ones(8, 8).matmul(torch.ones(8, 8)).sum())
    detail = f"{torch.__version__}, {device}, bf16 {'yes' if bf16 else 'no'}, {torch.get_num_threads()} threads"
    return total == 512.0, detail


def _faiss() -> tuple[bool, str]:
    import faiss
    import numpy as np

    index = faiss.IndexIDMap2(faiss.IndexFlatIP(4))
    index.add_with_ids(np.eye(4, dtype=np.float32), np.arange(10, 14))
    _, ids = index.search(np.eye(4, dtype=np.float32)[2:3], 1)
    return int(ids[0, 0]) == 12, f"{faiss.__version__}, add and search work"


def _sqlite() -> tuple[bool, str]:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t (k text primary key, v text)")
        connection.execute("insert into t values ('a', 'b')")
        (value,) = connection.execute("select v from t where k = 'a'").fetchone()
    connection.close()
    return value == "b", f"{sqlite3.sqlite_version}, write and read work"


def _bm25() -> tuple[bool, str]:
    from revela_rag.lexical import LexicalIndex

    found = LexicalIndex.build(["a", "b"], ["boats sail", "readFile(path)"]).search("reading files", 1)
    return bool(found) and found[0][0] == "b", f"PyStemmer {version('PyStemmer')}, search works"


def _chroma() -> tuple[bool, str]:
    import chromadb
    import numpy as np

    from revela_rag.index.stores.chroma_safety import settings

    client = chromadb.EphemeralClient(settings=settings())
    name = "revela-doctor"
    collection = client.get_or_create_collection(
        name, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    collection.upsert(ids=["a", "b"], embeddings=np.eye(2, dtype=np.float32))
    found: Any = collection.query(query_embeddings=np.array([[0.1, 1.0]], dtype=np.float32), n_results=1)
    client.delete_collection(name)
    return found["ids"] == [["b"]], f"{chromadb.__version__}, add and search work"


def _language_model() -> tuple[bool, str]:
    spec = find_spec("revela_training")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in (Path(folder) / "objective" / "small_lm").rglob("*.safetensors")]
    if not files:
        return False, "the bundled small LM is not in this installation"
    size = sum(file.stat().st_size for file in files)
    return True, f"bundled, {size / 1e6:.1f} MB of weights"


def _demo_model() -> tuple[bool, str]:
    from revela_rag.model.find import DEFAULT_BASE, resolve_model

    place = resolve_model(DEFAULT_BASE)
    return True, f"{DEFAULT_BASE}, " + (
        "hash as published" if Path(place).is_dir() else f"from the hub's cache: {place}"
    )


def _disk() -> tuple[bool, str]:
    free = shutil.disk_usage(Path.cwd()).free
    return free > _GIGABYTE, f"{free / _GIGABYTE:.1f} GB free here"


def _memory() -> tuple[bool, str]:
    available = available_memory()
    if available is None:
        return True, "not known on this platform"
    return available > 2 * _GIGABYTE, f"{available / _GIGABYTE:.1f} GB available"
