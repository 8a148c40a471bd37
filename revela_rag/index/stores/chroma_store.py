"""Vectors in Chroma: an approximate HNSW graph in cosine space.

Every generation has a Chroma directory of its own, which no writer touches once it is published: a change copies it
first, as for FAISS. That is what makes writes atomic; Chroma itself promises nothing of the kind to other processes.
The directory's name is never used twice: Chroma caches what it has open by path, also after the files are gone.
Chroma writes where it reads, so that a store on read-only media is opened as a private copy; so is one of an earlier
version of Chroma, as a published generation is not to be migrated. What it writes else see
:mod:`revela_rag.index.stores.chroma_file`.

Chroma holds vectors only; texts, metadata and filters stay in SQLite, so both stores find the same things.

A graph promises nothing: after deletes and updates a vector may have lost every link that led to it and is never
found again. So the graph answers only where it pays: up to ``EXACT_BELOW`` vectors, and wherever it comes back with
fewer hits than it was asked for, the vectors are compared one by one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import DiskError, IndexingError, MissingExtraError, RevelaError
from revela_rag.forks import survive_forks
from revela_rag.index.stores.chroma_file import DATABASE, compact
from revela_rag.index.stores.chroma_safety import check_collection, check_database, settings
from revela_rag.index.stores.faiss_store import pairs
from revela_rag.index.stores.segments import Segment, bitmap

__all__ = ["EXACT_BELOW", "ChromaStore"]

#: Up to this many vectors a search compares all of them (15 MB at 384 dimensions, about 1 ms).
EXACT_BELOW = 10_000

_PAGE = 10_000  # vectors read at once
_LITTLE = 4 * 2**20  # bytes free, with which an error of Chroma is taken for want of space
_FOLDER = "chroma"
_COLLECTION = "revela"
_HNSW = {"space": "cosine", "ef_construction": 200, "ef_search": 256, "max_neighbors": 32}
_WRITING, _SETTLED = 1_000_000, 2  # values of sync_threshold


class ChromaStore:
    """A collection in a ``PersistentClient``; ids are rows of the text store, vectors are always ours."""

    def __init__(
        self, client: Any, collection: Any, data: Path | None, *, private: Path | None = None, held: int | None = None
    ) -> None:
        self._held = held  # vectors; None where they may change
        survive_forks()
        self._opened: tuple[int, Path] | None = None  # by which process and where, for reading
        self._client = client
        self._collection = collection
        self._data = data  # None: read only
        self._close = weakref.finalize(self, _close, client, private, os.getpid())
        self._exact: Segment | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(cls, folder: Path, *, dimension: int, kind: str = "flat", source: Path | None = None) -> ChromaStore:
        """Start a draft in ``folder``; Chroma has one kind."""
        target = folder / f"{_FOLDER}-{uuid.uuid4().hex[:8]}"
        if source is not None:
            _copy(_data(source), target)
            _set_threshold(target, _WRITING)
            client, collection = _connect(target)
        else:
            configuration = {"hnsw": {**_HNSW, "sync_threshold": _WRITING}}
            client, collection = _connect(target, create=configuration)
        return cls(client, collection, target)

    @classmethod
    def open(cls, folder: Path, *, dimension: int, count: int, kind: str = "flat") -> ChromaStore:
        """Open for reading."""
        data = _data(folder)
        private = None if _writable(data) else _private_copy(data)
        try:
            try:
                client, collection = _connect(private or data, name=data, migrate=private is not None)
            except _MigrationDueError:
                private = _private_copy(data)
                client, collection = _connect(private, name=data)
        except BaseException:
            _remove(private)
            raise
        store = cls(client, collection, None, private=private, held=count)
        store._opened = os.getpid(), private or data
        if (held := _count(collection, data)) != count:
            store.close()
            raise IndexingError(f"{str(data)!r} holds {held} vectors, the manifest says {count}; build again.")
        with _errors(data):  # load now what searches need: a writer may remove this generation while it is open here
            if 0 < count <= EXACT_BELOW:
                store._all()
            else:
                collection.query(query_embeddings=np.ones((1, dimension), dtype=np.float32), n_results=1, include=[])
        return store

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new rows."""
        step = self._client.get_max_batch_size()
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            with _errors(self._data):
                self._collection.add(ids=[str(row) for row in rows[some]], embeddings=vectors[some])

    def remove(self, rows: np.ndarray) -> None:
        """Remove rows."""
        step = self._client.get_max_batch_size()
        for start in range(0, len(rows), step):
            with _errors(self._data):
                self._collection.delete(ids=[str(row) for row in rows[start : start + step]])

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[list[tuple[int, float]]]:
        """Top k per query: exact in small stores and filters, approximate above."""
        count = self._size()
        k = min(k, count if allowed is None else len(allowed))
        if k < 1 or not len(queries):
            return [[] for _ in range(len(queries))]
        if count <= EXACT_BELOW:
            return self._compare(queries, k, allowed)
        with _errors(self._data):
            found = self._here().query(
                query_embeddings=np.ascontiguousarray(queries, dtype=np.float32),
                n_results=k,
                ids=None if allowed is None else [str(row) for row in allowed],
                include=["distances"],
            )
        if any(len(ids) < k for ids in found["ids"]):
            return self._compare(queries, k, allowed)
        return [
            [(int(id_), float(np.clip(1.0 - distance, -1.0, 1.0))) for id_, distance in zip(*pair, strict=True)]
            for pair in zip(found["ids"], found["distances"], strict=True)
        ]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of some rows."""
        if self._size() <= EXACT_BELOW:
            everything = self._all()
            return everything.vectors(everything.locate(rows))
        with _errors(self._data):
            found = self._here().get(ids=[str(row) for row in rows], include=["embeddings"])
        vectors = dict(zip(map(int, found["ids"]), np.asarray(found["embeddings"], dtype=np.float32), strict=True))
        return np.stack([vectors[int(row)] for row in rows])

    def rows(self) -> np.ndarray:
        """The rows of all vectors."""
        collection = self._here()
        with _errors(self._data):
            pages = [collection.get(limit=_PAGE, offset=at, include=[]) for at in range(0, self._size(), _PAGE)]
        return np.array([int(id_) for page in pages for id_ in page["ids"]], dtype=np.int64)

    def _size(self) -> int:
        """How many vectors there are; without asking Chroma where a writer may have taken the files away."""
        return _count(self._collection, self._data) if self._held is None else self._held

    def _compare(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> list[list[tuple[int, float]]]:
        """Exact top k per query."""
        everything = self._all()
        bits = None if allowed is None else bitmap(allowed, int(max(everything.rows.max(), allowed.max())))
        return pairs(*everything.search(np.ascontiguousarray(queries, dtype=np.float32), k, bits))

    def _all(self) -> Segment:
        """Every vector of the collection; read once."""
        if self._exact is not None:
            return self._exact
        collection = self._here()
        with self._lock:
            if self._exact is None:
                rows, vectors = [], []
                for start in range(0, self._size(), _PAGE):
                    with _errors(self._data):
                        page = collection.get(limit=_PAGE, offset=start, include=["embeddings"])
                    rows += [int(id_) for id_ in page["ids"]]
                    vectors.append(np.asarray(page["embeddings"], dtype=np.float32))
                self._exact = Segment.of(np.array(rows, dtype=np.int64), np.concatenate(vectors))
            return self._exact

    def _here(self) -> Any:
        """The collection; a forked child connects again, as the threads of Chroma stayed in the parent."""
        with self._lock:
            if self._opened is not None and self._opened[0] != os.getpid():
                self._close.detach()  # it is for the parent to close
                self._client, self._collection = _connect(self._opened[1], migrate=False)  # as it was opened
                self._close = weakref.finalize(self, _close, self._client, None, os.getpid())
                self._opened = os.getpid(), self._opened[1]
            return self._collection

    def save(self) -> None:
        """Write everything out, so that readers find nothing left to replay, and close."""
        assert self._data is not None
        with _errors(self._data):
            some = self._collection.get(limit=1, include=["embeddings"])
            self.close()
            if len(some["ids"]):
                self._settle(self._data, some)
            compact(self._data / DATABASE)

    @staticmethod
    def _settle(data: Path, some: Any) -> None:
        # Chroma flushes its graph after a call that passes the threshold; a reader that finds records
        # unflushed writes them into the files of the generation, which must not change any more
        _set_threshold(data, _SETTLED)
        client, collection = _connect(data)
        for _ in range(_SETTLED):
            collection.upsert(ids=some["ids"], embeddings=some["embeddings"])
        client.close()

    def close(self) -> None:
        """Let go of the files."""
        self._close()


def _data(folder: Path) -> Path:
    """Chroma's directory in a generation; those of earlier versions have a bare name."""
    found = next((path for path in sorted(folder.glob(f"{_FOLDER}*")) if path.is_dir()), None)
    if found is None:
        raise IndexingError(f"{str(folder / _FOLDER)!r} is missing; build the index again.")
    return found


def _writable(data: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return all(os.access(path, os.W_OK, effective_ids=effective) for path in (data, data / DATABASE))


def _private_copy(data: Path) -> Path:
    private = None
    try:
        private = Path(tempfile.mkdtemp(prefix="revela-chroma-"))
        _copy(data, private)
    except BaseException as error:
        _remove(private)
        if not isinstance(error, OSError):
            raise
        if not data.is_dir():  # a writer took the generation away meanwhile
            raise IndexingError(f"{str(data)!r} is missing; build the index again.") from error
        raise DiskError(
            f"The Chroma store {str(data)!r} cannot be written, which Chroma does even to read, and copying it to a "
            f"temporary folder failed: {error.strerror or error}. Make it writable, or set TMPDIR to a folder with "
            "space for it."
        ) from error
    return private


def _copy(source: Path, target: Path) -> None:
    """Copy the files, but not their permissions: the copy is to be written."""
    for file in source.rglob("*"):
        if file.is_file():
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)


def _remove(private: Path | None) -> None:
    if private is not None:
        shutil.rmtree(private, ignore_errors=True)


class _MigrationDueError(IndexingError):
    """The database is of an earlier version of Chroma."""


def _client(data: Path, migrate: bool) -> Any:
    try:
        import chromadb
    except ImportError as error:
        raise MissingExtraError("chromadb", "chroma", "an index with store='chroma'") from error
    try:
        return chromadb.PersistentClient(str(data), settings=settings(migrate=migrate))
    except Exception as error:
        if not migrate and "unapplied migrations" in str(error).lower():
            raise _MigrationDueError(f"{str(data)!r} is of an earlier version of Chroma.") from error
        raise


def _connect(
    data: Path, create: dict[str, Any] | None = None, *, name: Path | None = None, migrate: bool = True
) -> tuple[Any, Any]:
    """A client and the collection, new where its configuration is given; errors speak of ``name``.

    Every client is made here, so that no database is opened unchecked.
    """
    with _errors(name or data):
        check_database(data)
        client = _client(data, migrate)
        try:
            if create is None:
                collection = client.get_collection(_COLLECTION, embedding_function=None)
                check_collection(collection, data)
                return client, collection
            return client, client.create_collection(_COLLECTION, configuration=create, embedding_function=None)
        except BaseException:
            client.close()
            raise


def _count(collection: Any, data: Path | None) -> int:
    with _errors(data):
        return int(collection.count())


def _set_threshold(data: Path, value: int) -> None:
    client, collection = _connect(data)
    collection.modify(configuration={"hnsw": {"sync_threshold": value, "batch_size": min(value, 100)}})
    client.close()


def _close(client: Any, private: Path | None, opened_by: int) -> None:
    if os.getpid() != opened_by:  # a forked child ends: the files are its parent's, and so are the threads of Chroma
        return
    client.close()
    _remove(private)


def _is_full(folder: Path) -> bool:
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return there is not None and shutil.disk_usage(there).free < _LITTLE


@contextmanager
def _errors(folder: Path | None) -> Iterator[None]:
    """Chroma raises many kinds of errors, some of them Rust's; say what they mean here."""
    try:
        yield
    except (RevelaError, OSError):
        raise
    except Exception as error:
        where, message = str(folder or _FOLDER), str(error).lower()
        full = any(sign in message for sign in ("disk is full", "no space", "file too large"))
        if full or (folder is not None and _is_full(folder)):  # Chroma does not always say so
            raise DiskError(f"The Chroma store {where!r} cannot be written: {error}; free some space.") from error
        raise IndexingError(f"The Chroma store {where!r} is missing or damaged; build again. ({error})") from error
