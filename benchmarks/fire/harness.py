"""What the scripts of this folder share: work that is done in a child which dies, and a look at what it left.

Children are forked from a process that has imported everything and computed nothing, so that a kill costs a tenth of a
second. Nothing here opens an index in that process itself.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import numpy as np

from revela_rag.corpus.types import Chunk, chunk_id
from revela_rag.index import Index
from revela_rag.index.checks.verify import verify_index
from revela_rag.index.manifest import MANIFEST_FILE

for module in ("faiss", "chromadb", *(f"revela_rag.index.stores.{store}_store" for store in ("faiss", "chroma"))):
    importlib.import_module(module)  # once, here, and not in every child

__all__ = [
    "DIMENSION",
    "RandomEncoder",
    "chunk",
    "chunks",
    "found",
    "fresh",
    "in_child",
    "killed",
    "leftovers",
    "said",
    "show",
    "started",
]

DIMENSION = 32
_NAMES = (MANIFEST_FILE, ".lock", ".queue")


class RandomEncoder:
    """A unit vector for each text, drawn from the text's hash."""

    fingerprint, model_path, dimension, max_length = "f" * 64, "nowhere", DIMENSION, 16
    query_prompt = document_prompt = ""

    def encode_documents(self, texts: Any, *, show_progress: bool = False) -> np.ndarray:
        """(n, 32) float32."""
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
        rows = np.array([np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds], dtype=np.float32)
        rows = rows.reshape(-1, DIMENSION)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    encode_queries = encode_documents


def chunk(number: int) -> Chunk:
    """The chunk of a number."""
    text, document = f"text {number} calls getUser{number}Name", f"doc-{number % 7}"
    metadata = {"number": number, "even": number % 2 == 0}
    return Chunk(chunk_id(document, text), text, document, number, "code", metadata=metadata)


def chunks(stop: int, start: int = 0) -> list[Chunk]:
    """The chunks of a range of numbers."""
    return [chunk(number) for number in range(start, stop)]


def started(work: Callable[[Callable[[str], None]], None]) -> tuple[int, int]:
    """Do some work in a forked child; gives its id and what can be read of what it says.

    Args:
        work: is given a function that says a line.
    """
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    code = 1
    try:
        os.close(read)
        work(lambda line: os.write(write, f"{line}\n".encode()) and None)
        code = 0
    except BaseException:
        os.write(write, f"error {traceback.format_exc()}".encode())
    finally:
        os._exit(code)


def said(read: int) -> list[str]:
    """Every line that a child said; waits until it has ended."""
    with os.fdopen(read, "rb") as stream:
        return stream.read().decode(errors="replace").splitlines()


def killed(work: Callable[[Callable[[str], None]], None], after: float) -> list[str]:
    """Start work, kill it with SIGKILL so many seconds after it said ``ready``, and give what it said."""
    child, read = started(work)
    heard = b""
    while b"ready\n" not in heard:
        part = os.read(read, 4096)
        if not part:
            break
        heard += part
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines = heard.decode(errors="replace").splitlines() + said(read)
    if any(line.startswith("error ") for line in lines):
        raise RuntimeError("\n".join(lines))
    return lines


def in_child(work: Callable[[], Any], seconds: float = 300) -> Any:
    """The result of some work that is done in a child: what a literal of Python can say, such as sets of numbers."""

    def send(say: Callable[[str], None]) -> None:
        say("value " + repr(work()).encode().hex())

    child, read = started(send)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    lines = said(read)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.waitpid(child, 0)
    if not lines or not lines[-1].startswith("value "):
        raise RuntimeError("\n".join(lines) or "the child ended without a word")
    return ast.literal_eval(bytes.fromhex(lines[-1][6:]).decode())


def found(root: Path, *, verify: bool = True) -> set[int]:
    """The numbers of the chunks of a sound index, by all that holds them; an error where they differ.

    Args:
        root: of the index.
        verify: read every byte.
    """
    if verify and (faults := [check for check in verify_index(root) if check.status == "failed"]):
        raise AssertionError(f"{root}: {faults}")
    with Index.open(root, encoder=RandomEncoder()) as index:  # type: ignore[arg-type]
        dense = {hit.chunk.metadata["number"] for hit in index.search("q", k=100_000, mode="dense")}
        words = {hit.chunk.metadata["number"] for hit in index.search("text", k=100_000, mode="lexical")}
        if dense != words or len(dense) != len(index):
            raise AssertionError(f"{root}: {len(index)} chunks, {len(dense)} by meaning, {len(words)} by words")
        return dense


def leftovers(root: Path) -> list[str]:
    """What lies in an index's directory and is of no use."""
    if not root.exists():
        return []
    current = json.loads((root / MANIFEST_FILE).read_text())["generation"] if (root / MANIFEST_FILE).exists() else ""
    return sorted(entry.name for entry in root.iterdir() if entry.name not in (*_NAMES, current))


def fresh(root: Path) -> Path:
    """An empty place."""
    shutil.rmtree(root, ignore_errors=True)
    return root


def show(rows: list[dict[str, Any]], output: str | None) -> None:
    """Print rows as a table, and write them as JSON."""
    if rows:
        names = list(rows[0])
        widths = [
            max(len(str(row.get(name, ""))) for row in [*rows, dict(zip(names, names, strict=True))]) for name in names
        ]
        for row in [dict(zip(names, names, strict=True)), *rows]:
            line = "  ".join(str(row.get(name, "")).ljust(width) for name, width in zip(names, widths, strict=True))
            print(line.rstrip(), flush=True)
    if output:
        Path(output).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.stdout.flush()
