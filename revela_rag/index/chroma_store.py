"""Vectors in Chroma: an approximate HNSW graph in cosine space.

Every generation has a Chroma directory of its own, which no writer touches once it is published: a change copies it
first, as for FAISS. That is what makes writes atomic; Chroma itself promises nothing of the kind to other processes.
Chroma holds vectors only; texts, metadata and filters stay in SQLite, so both stores find the same things.
"""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import IndexingError, MissingExtraError

__all__ = ["ChromaStore"]

_FOLDER = "chroma"
_COLLECTION = "revela"
_HNSW = {"space": "cosine", "ef_construction": 200, "ef_search": 256, "max_neighbors": 32}
_WRITING, _SETTLED = 1_000_000, 2  # values of sync_threshold


class ChromaStore:
    """A collection in a ``PersistentClient``; ids are rows of the text store, vectors are always ours."""

    def __init__(self, client: Any, collection: Any, folder: Path | None) -> None:
        self._client = client
        self._collection = collection
        self._folder = folder  # None: read only
        self._close = weakref.finalize(self, _close, client)

    @classmethod
    def create(cls, folder: Path, *, dimension: int, source: Path | None = None) -> ChromaStore:
        """Start a draft in ``folder``."""
        target = folder / _FOLDER
        if source is not None:
            shutil.copytree(source / _FOLDER, target)
            _set_threshold(target, _WRITING)
            client, collection = _connect(target)
        else:
            client = _client(target)
            settings = {**_HNSW, "sync_threshold": _WRITING}
            collection = client.create_collection(
                _COLLECTION, configuration={"hnsw": settings}, embedding_function=None
            )
        return cls(client, collection, folder)

    @classmethod
    def open(cls, folder: Path, *, dimension: int, count: int) -> ChromaStore:
        """Open for reading."""
        if not (folder / _FOLDER).is_dir():
            raise IndexingError(f"{str(folder / _FOLDER)!r} is missing; build the index again.")
        client, collection = _connect(folder / _FOLDER)
        store = cls(client, collection, None)
        try:
            held = collection.count()
        except Exception as error:
            raise _damaged(folder / _FOLDER, error) from error
        if held != count:
            store.close()
            raise IndexingError(
                f"{str(folder / _FOLDER)!r} holds {held} vectors, the manifest says {count}; build again."
            )
        return store

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new rows."""
        step = self._client.get_max_batch_size()
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            self._collection.add(ids=[str(row) for row in rows[some]], embeddings=vectors[some])

    def remove(self, rows: np.ndarray) -> None:
        """Remove rows."""
        step = self._client.get_max_batch_size()
        for start in range(0, len(rows), step):
            self._collection.delete(ids=[str(row) for row in rows[start : start + step]])

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[list[tuple[int, float]]]:
        """Approximate top k per query."""
        count = self._collection.count()
        k = min(k, count if allowed is None else len(allowed))
        if k < 1 or not len(queries):
            return [[] for _ in range(len(queries))]
        try:
            found = self._collection.query(
                query_embeddings=np.ascontiguousarray(queries, dtype=np.float32),
                n_results=k,
                ids=None if allowed is None else [str(row) for row in allowed],
                include=["distances"],
            )
        except Exception as error:
            raise _damaged(_FOLDER, error) from error
        return [
            [(int(id_), float(np.clip(1.0 - distance, -1.0, 1.0))) for id_, distance in zip(*pair, strict=True)]
            for pair in zip(found["ids"], found["distances"], strict=True)
        ]

    def save(self) -> None:
        """Write everything out, so that readers find nothing left to replay, and close."""
        assert self._folder is not None
        some = self._collection.get(limit=1, include=["embeddings"])
        self.close()
        if len(some["ids"]):
            # Chroma flushes its graph after a call that passes the threshold; a reader that finds records
            # unflushed writes them into the files of the generation, which must not change any more
            _set_threshold(self._folder / _FOLDER, _SETTLED)
            client, collection = _connect(self._folder / _FOLDER)
            for _ in range(_SETTLED):
                collection.upsert(ids=some["ids"], embeddings=some["embeddings"])
            client.close()

    def close(self) -> None:
        """Let go of the files."""
        self._close()


def _client(folder: Path) -> Any:
    try:
        import chromadb
        from chromadb.config import Settings
    except ImportError as error:
        raise MissingExtraError("chromadb", "chroma", "an index with store='chroma'") from error
    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


def _connect(folder: Path) -> tuple[Any, Any]:
    try:
        client = _client(folder)
        return client, client.get_collection(_COLLECTION, embedding_function=None)
    except MissingExtraError:
        raise
    except Exception as error:  # Chroma raises many kinds, some of them Rust's
        raise _damaged(folder, error) from error


def _set_threshold(folder: Path, value: int) -> None:
    client, collection = _connect(folder)
    collection.modify(configuration={"hnsw": {"sync_threshold": value, "batch_size": min(value, 100)}})
    client.close()


def _close(client: Any) -> None:
    client.close()


def _damaged(folder: Path | str, error: Exception) -> IndexingError:
    return IndexingError(f"The Chroma store {str(folder)!r} is missing or damaged; build again. ({error})")
