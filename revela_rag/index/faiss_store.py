"""Vectors in FAISS: exact inner product over unit vectors, that is, cosine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import DiskError, IndexingError

__all__ = ["FaissStore"]

_FILE = "vectors.faiss"
_FACTORY = "IDMap2,Flat"


class FaissStore:
    """``IDMap2,Flat`` in one file. The ids are rows of the text store, which are never used twice."""

    def __init__(self, index: Any, file: Path | None) -> None:
        self._index = index
        self._file = file  # None: read only

    @classmethod
    def create(cls, folder: Path, *, dimension: int, source: Path | None = None) -> FaissStore:
        """Start a draft in ``folder``."""
        import faiss

        if source is None:
            index = faiss.index_factory(dimension, _FACTORY, faiss.METRIC_INNER_PRODUCT)
        else:
            index = _read(source / _FILE, dimension)
        return cls(index, folder / _FILE)

    @classmethod
    def in_memory(cls, dimension: int) -> FaissStore:
        """An empty store that lives in memory alone."""
        import faiss

        return cls(faiss.index_factory(dimension, _FACTORY, faiss.METRIC_INNER_PRODUCT), None)

    @classmethod
    def open(cls, folder: Path, *, dimension: int, count: int) -> FaissStore:
        """Open for reading."""
        index = _read(folder / _FILE, dimension)
        if index.ntotal != count:
            raise IndexingError(
                f"{str(folder / _FILE)!r} holds {index.ntotal} vectors, the manifest says {count}; build again."
            )
        return cls(index, None)

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new rows."""
        if len(rows):
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), rows.astype(np.int64))

    def remove(self, rows: np.ndarray) -> None:
        """Remove rows."""
        import faiss

        if len(rows):
            self._index.remove_ids(faiss.IDSelectorBatch(rows.astype(np.int64)))

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[list[tuple[int, float]]]:
        """Exact top k per query."""
        import faiss

        k = min(k, self._index.ntotal if allowed is None else len(allowed))
        if k < 1 or not len(queries):
            return [[] for _ in range(len(queries))]
        parameters = None
        if allowed is not None:
            bits = np.zeros(int(allowed.max()) + 1, dtype=bool)
            bits[allowed] = True
            packed = np.packbits(bits, bitorder="little")
            selector = faiss.IDSelectorBitmap(packed)  # type: ignore[call-arg, arg-type]
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
        scores = np.clip(scores, -1.0, 1.0)
        return [
            [(int(row), float(score)) for row, score in zip(*pair, strict=True) if row >= 0]
            for pair in zip(rows, scores, strict=True)
        ]

    def save(self) -> None:
        """Write the file and make sure all of it arrived."""
        import faiss

        assert self._file is not None
        try:
            faiss.write_index(self._index, str(self._file))
        except RuntimeError as error:
            free = shutil.disk_usage(self._file.parent).free
            raise DiskError(f"Writing {str(self._file)!r} failed ({free:,} bytes free): {error}") from error
        # FAISS ignores an error of the last flush, so compare with what an index of this shape takes
        empty = faiss.index_factory(self._index.d, _FACTORY, faiss.METRIC_INNER_PRODUCT)
        expected = len(faiss.serialize_index(empty)) + self._index.ntotal * (4 * self._index.d + 8)
        written = self._file.stat().st_size
        if written != expected:
            raise DiskError(
                f"Only {written:,} of {expected:,} bytes of {str(self._file)!r} were written; free some space."
            )
        self.close()

    def close(self) -> None:
        """Forget the index; searches that still run keep it alive until they end."""
        self._file = None


def _read(file: Path, dimension: int) -> Any:
    import faiss

    try:
        file.stat()
        index = faiss.read_index(str(file))
    except (RuntimeError, OSError, MemoryError) as error:
        raise IndexingError(f"{str(file)!r} is missing or damaged; build the index again. ({error})") from error
    if index.d != dimension or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise IndexingError(f"{str(file)!r} holds vectors of length {index.d}, not {dimension}; build again.")
    return index
