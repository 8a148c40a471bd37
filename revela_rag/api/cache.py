"""Vectors kept on disk text by text, so that what was embedded once is never paid for again. One SQLite file.

A vector is found by a hash of the embeddings' name, the role and the text; the texts themselves are not kept. What was
put in stays when a run is killed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import DiskError
from revela_rag.paths import user_cache

__all__ = ["VectorCache", "open_cache"]

_FILE = "embeddings.sqlite"
_SELECT = 500  # keys in one query
_WAIT = 60.0  # seconds for another writer
_TABLES = (
    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, about TEXT NOT NULL, probes BLOB NOT NULL)",
)


def open_cache(cache: str | Path | bool | None) -> VectorCache | None:
    """The cache that a user asks for.

    Args:
        cache: a file or a directory; None or True for ``embeddings.sqlite`` in the user's cache; False for none.
    """
    if cache is False:
        return None
    path = user_cache() / _FILE if cache is None or cache is True else Path(cache).expanduser()
    return VectorCache(path / _FILE if path.is_dir() or not path.suffix else path)


class VectorCache:
    """Vectors of any number of models; shared by threads and processes.

    Args:
        path: the file, which is made when something is first put in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """(d,) float32 vectors of those keys that are there."""
        found: dict[bytes, np.ndarray] = {}
        if not self.path.is_file():
            return found
        wanted = list(dict.fromkeys(keys))
        with self._open() as connection:
            for start in range(0, len(wanted), _SELECT):
                some = wanted[start : start + _SELECT]
                query = f"SELECT key, vector FROM vectors WHERE key IN ({','.join('?' * len(some))})"
                found.update((key, np.frombuffer(data, dtype="<f4")) for key, data in connection.execute(query, some))
        return found

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep (n, d) vectors under n keys.

        Raises:
            DiskError: the disk is full, or the file cannot be written.
        """
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in zip(keys, vectors, strict=True)]
        with self._open() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def model(self, name: str) -> tuple[dict[str, Any], np.ndarray] | None:
        """What was remembered of a model, and the vectors (p, d) of its probes; None where nothing was."""
        if not self.path.is_file():
            return None
        with self._open() as connection:
            row = connection.execute("SELECT about, probes FROM models WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        about = json.loads(row[0])
        return about, np.frombuffer(row[1], dtype="<f4").reshape(-1, about["dimension"])

    def remember(self, name: str, about: Mapping[str, Any], probes: np.ndarray) -> None:
        """Remember a model, unless it is already."""
        row = (name, json.dumps({**about, "dimension": probes.shape[1]}), probes.astype("<f4").tobytes())
        with self._open() as connection, connection:
            connection.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", row)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one use: none is shared by threads, or by a process and its children."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT)) as connection:
                for table in _TABLES:
                    connection.execute(table)
                yield connection
        except (sqlite3.Error, OSError, ValueError) as error:
            raise DiskError(
                f"The cache of embeddings {str(self.path)!r} cannot be used: {error}. Free some space there, give "
                "another file with cache=, or none with cache=False; a damaged one can be deleted, which costs "
                "embedding its texts again."
            ) from error

    def __repr__(self) -> str:
        return f"VectorCache({str(self.path)!r})"
