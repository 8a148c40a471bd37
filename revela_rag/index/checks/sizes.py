"""What an index takes, part by part: bytes on disk, and bytes that searches keep in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from revela_rag.index.manifest import Manifest
from revela_rag.index.rotation import ROTATION_FILE
from revela_rag.index.snapshot import LEXICAL_FOLDER
from revela_rag.index.texts import TEXTS_FILE

__all__ = ["Part", "index_parts"]

_ROW = 24  # bytes that a FAISS vector costs wherever it lies: its row, twice, and the order of rows


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an index.

    Attributes:
        name: ``"texts"`` (also metadata), ``"words"`` (BM25), ``"vectors"`` (compared exactly), ``"search"``
            (the graph, clusters or codes of the kind) or ``"rotation"`` (of ``dimensions``).
        disk: bytes of its files.
        memory: bytes that dense search reads of it for every query, and hybrid search of the words: what must be in
            memory to be fast. It may lie in mapped files, which the system takes back when memory runs short. The
            texts and the vectors of candidates are read from disk. Hybrid search makes a vector per document besides.
    """

    name: str
    disk: int
    memory: int

    def summary(self) -> str:
        """One line for people."""
        return f"{self.disk / 1e6:,.1f} MB on disk, {self.memory / 1e6:,.1f} MB in memory"


def index_parts(path: str | Path) -> list[Part]:
    """The parts that the index in ``path`` has; needs no model and opens nothing.

    Raises:
        IndexingError: there is no index, or its manifest is damaged.
    """
    root = Path(path).expanduser()
    manifest = Manifest.read(root)
    disk: dict[str, int] = {}
    for name in manifest.files:
        part = _part(name)
        disk[part] = disk.get(part, 0) + (root / manifest.generation / name).stat().st_size
    return [Part(name, disk[name], _memory(name, manifest, disk)) for name in _NAMES if name in disk]


_NAMES = ("texts", "words", "vectors", "search", "rotation")


def _part(file: str) -> str:
    if file == TEXTS_FILE:
        return "texts"
    if file.startswith(LEXICAL_FOLDER + "/"):
        return "words"
    if file == ROTATION_FILE:
        return "rotation"
    return "search" if file.startswith("approximate.") and not file.endswith(".dead.npy") else "vectors"


def _memory(name: str, manifest: Manifest, disk: Mapping[str, int]) -> int:
    if name == "texts":
        return 0
    if name == "vectors" and manifest.store == "faiss":
        return _ROW * manifest.count + (0 if "search" in disk else disk[name])
    return disk[name]
