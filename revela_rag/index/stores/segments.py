"""Runs of vectors on disk that never change: the originals, whatever helps to search them faster.

A segment is a FAISS file of unit vectors under rows of the text store. What is deleted later is listed in a small file
beside it, so that a new generation links the segment instead of writing it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import DiskError, IndexingError
from revela_rag.forks import survive_forks
from revela_rag.index.stores.faiss_file import check_faiss

__all__ = ["Found", "Segment", "bitmap", "dead_file", "link", "read_faiss", "read_rows", "write_faiss"]

#: Rows (q, k) int64, -1 where nothing was found, and cosines (q, k) float32.
Found = tuple[np.ndarray, np.ndarray]
_DEAD = ".dead.npy"


class Segment:
    """Exact search over some vectors, in memory or mapped from a file.

    Attributes:
        rows: (n,) int64, of all vectors, the dead ones included.
        dead: (m,) int64, sorted; rows that are not to be found here any more.
    """

    def __init__(self, index: Any, *, file: Path | None = None, dead: np.ndarray | None = None) -> None:
        import faiss

        survive_forks()
        self._index = index
        self.file = file
        self.rows = faiss.vector_to_array(index.id_map)
        self.dead = np.empty(0, dtype=np.int64) if dead is None else dead
        self._order: np.ndarray | None = None

    @classmethod
    def of(cls, rows: np.ndarray, vectors: np.ndarray) -> Segment:
        """(n, d) float32 unit vectors under (n,) rows, in memory."""
        import faiss

        index = faiss.index_factory(vectors.shape[1], "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
        index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), rows.astype(np.int64))
        return cls(index)

    @classmethod
    def open(cls, file: Path, dimension: int) -> Segment:
        """Map a file; nothing of it is read before a search needs it."""
        return cls(read_faiss(file, dimension), file=file, dead=read_rows(dead_file(file)))

    def __len__(self) -> int:
        return len(self.rows) - len(self.dead)

    @property
    def alive(self) -> np.ndarray:
        """Rows that can be found, in the order of their vectors."""
        return self.rows[~np.isin(self.rows, self.dead)] if len(self.dead) else self.rows

    def vectors(self, positions: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, d) float32 at these places; a view of the file for a slice."""
        import faiss

        flat: Any = faiss.downcast_index(self._index.index)
        size = len(self.rows) * flat.d
        return faiss.rev_swig_ptr(flat.get_xb(), size).reshape(-1, flat.d)[positions] if size else np.empty((0, flat.d))

    def living(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and vectors of all that can be found."""
        keep = ~np.isin(self.rows, self.dead)
        return self.rows[keep], self.vectors()[keep]

    def locate(self, rows: np.ndarray) -> np.ndarray:
        """Place of each row, -1 where it is not among the living."""
        if self._order is None:
            self._order = np.argsort(self.rows, kind="stable")
        if not len(self.rows):
            return np.full(len(rows), -1)
        found = self._order[np.searchsorted(self.rows, rows, sorter=self._order).clip(max=len(self.rows) - 1)]
        return np.where((self.rows[found] == rows) & ~np.isin(rows, self.dead), found, -1)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """Exact top k per query among ``allowed``, a bitmap from :func:`bitmap`, or all that are there, dead or not."""
        import faiss

        parameters = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(allowed)  # type: ignore[call-arg, arg-type]
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, rows = self._index.search(queries, min(k, len(self.rows)), params=parameters)
        return rows, scores

    def write(self, file: Path) -> None:
        """Write the vectors into ``file``."""
        write_faiss(self._index, file)


def bitmap(rows: np.ndarray, highest: int) -> np.ndarray:
    """(n,) rows as bits, as FAISS selects by them; rows lie between 0 and ``highest``."""
    bits = np.zeros(highest + 1, dtype=bool)
    bits[rows] = True
    return np.packbits(bits, bitorder="little")


def dead_file(file: Path) -> Path:
    """Where the dead rows of a FAISS file are listed."""
    return file.with_name(file.stem + _DEAD)


def read_rows(file: Path) -> np.ndarray:
    """Rows listed in a file; none when there is no such file."""
    if not file.exists():
        return np.empty(0, dtype=np.int64)
    try:
        return np.asarray(np.load(file, allow_pickle=False), dtype=np.int64).reshape(-1)
    except (OSError, ValueError, EOFError) as error:
        raise IndexingError(f"{str(file)!r} is damaged; build the index again. ({error})") from error


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copies where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def read_faiss(file: Path, dimension: int) -> Any:
    """Map a FAISS file of inner products.

    Raises:
        IndexingError: it is missing, damaged or of another shape.
    """
    import faiss

    try:
        check_faiss(file, dimension)
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, OSError, MemoryError) as error:
        raise IndexingError(f"{str(file)!r} is missing or damaged; build the index again. ({error})") from error
    if index.d != dimension or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise IndexingError(f"{str(file)!r} holds vectors of length {index.d}, not {dimension}; build again.")
    return index


def write_faiss(index: Any, file: Path) -> None:
    """Write a FAISS file; FAISS itself overlooks an error of the last flush, Python's files do not.

    Raises:
        DiskError: not all of it arrived.
    """
    import faiss

    failures: list[OSError] = []

    def write(data: Any) -> int:
        try:
            return int(stream.write(data))
        except OSError as error:
            failures.append(error)
            return 0

    put: Callable[[Any], int] = write
    try:
        with file.open("wb") as stream:
            faiss.write_index(index, faiss.PyCallbackIOWriter(put))  # type: ignore[attr-defined]
    except (RuntimeError, OSError) as error:
        free = shutil.disk_usage(file.parent).free
        reason = failures[0] if failures else error
        raise DiskError(f"Writing {str(file)!r} failed ({free:,} bytes free): {reason}") from error
