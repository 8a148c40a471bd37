"""Embeddings of a write that is not done yet, kept beside the index, so that an interruption loses seconds of work."""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["KEPT_FILE", "KeptVectors", "forget", "holds_kept"]

logger = logging.getLogger(__name__)

#: One file for each model, named by its fingerprint; SQLite has a journal beside it while it writes.
KEPT_FILE = re.compile(r"\.embedded-([0-9a-f]{16})\.sqlite(?:-journal)?")
_WORTH_KEEPING = 2.0  # seconds of embedding
_FIRST, _FEWEST, _MOST = 128, 16, 2048  # texts in a block; at most what an encoder sorts together
_QUICK, _SLOW = 1.0, 8.0  # seconds: blocks are made larger below, and smaller above
_VARIABLES = 500
_SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"


class KeptVectors:
    """Embeds texts block by block; use it as a context.

    What took more than some seconds is written to a file in ``root``, by hash of the text, and taken from there by a
    later run of the same model. A file that cannot be written or read costs the embeddings, not the write.

    Args:
        root: directory of the index.
        encoder: the model.
    """

    def __init__(self, root: Path, encoder: Encoder) -> None:
        self._encoder = encoder
        self._root = root
        self._file = _file(root, encoder.fingerprint)
        self._size = _FIRST
        self._pending: list[tuple[bytes, bytes]] = []
        self._seconds = 0.0  # that the pending ones took
        self._connection: sqlite3.Connection | None = None
        self._usable = True
        if self._file.exists() and (count := self._opened()):
            logger.warning("Going on from %d embeddings that an interrupted run left in %r.", count, str(root))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One (d,) float32 vector per text."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        found = self._known(keys)
        new = [place for place, key in enumerate(keys) if key not in found]
        start = 0
        while start < len(new):
            size = getattr(self._encoder, "window", self._size)
            block, start = new[start : start + size], start + size
            began = time.monotonic()
            vectors = self._encoder.encode_documents([texts[place] for place in block])
            seconds = time.monotonic() - began
            found.update((keys[place], vector) for place, vector in zip(block, vectors, strict=True))
            self._pending += [(keys[i], np.ascontiguousarray(found[keys[i]], "<f4").tobytes()) for i in block]
            self._seconds += seconds
            if self._seconds >= _WORTH_KEEPING:
                self._write()
            if seconds < _QUICK:
                self._size = min(2 * self._size, _MOST)
            elif seconds > _SLOW:
                self._size = max(self._size // 2, _FEWEST)
        return [found[key] for key in keys]

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        if self._connection is None:
            return found
        length = 4 * self._encoder.dimension
        try:
            for start in range(0, len(keys), _VARIABLES):
                some = keys[start : start + _VARIABLES]
                sql = f"SELECT text, vector FROM vectors WHERE text IN ({', '.join('?' * len(some))})"
                for key, data in self._connection.execute(sql, some):
                    if isinstance(data, bytes) and len(data) == length:
                        vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
                        if np.isfinite(vector).all():
                            found[key] = vector
        except sqlite3.Error as error:
            self._give_up(error)
        return found

    def _opened(self) -> int:
        """Open the file, and give how many it holds."""
        try:
            self._connection = sqlite3.connect(self._file, timeout=10.0, check_same_thread=False)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA synchronous = OFF")  # a kill loses nothing; a power cut may, and is seen
            with self._connection:
                self._connection.execute(_SCHEMA)
            return int(self._connection.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])
        except sqlite3.Error as error:
            self._give_up(error)
            return 0

    def _write(self) -> None:
        pending, self._pending, self._seconds = self._pending, [], 0.0
        if self._usable and self._connection is None:
            self._opened()
        if self._connection is None:
            return
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", pending)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without the file: it is damaged, or there is no room for it."""
        logger.info("Embeddings are not kept in %r: %s", str(self._file), error)
        self.close()
        self._usable = False
        forget(self._root, self._encoder.fingerprint)

    def close(self) -> None:
        """Let go of the file; it stays for a later run."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> KeptVectors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        count = 0
        if error is not None and self._connection is not None:
            self._write()
            with suppress(sqlite3.Error, AttributeError):
                count = self._connection.execute("SELECT COUNT(*) FROM vectors").fetchone()[0]
        self.close()
        if count:
            logger.warning(
                "%d embeddings are kept in %r; the same call again goes on from there.", count, str(self._root)
            )


def forget(root: Path, fingerprint: str | None = None) -> None:
    """Remove what was kept for a model, or for all; the write is done."""
    files = [entry for entry in root.iterdir() if KEPT_FILE.fullmatch(entry.name)]
    for file in files:
        if fingerprint is None or file.name.startswith(_file(root, fingerprint).name):
            with suppress(OSError):  # a later write removes it
                file.unlink()


def holds_kept(root: Path) -> bool:
    """Whether an interrupted write left embeddings in ``root``."""
    return any(KEPT_FILE.fullmatch(entry.name) for entry in root.iterdir())


def _file(root: Path, fingerprint: str) -> Path:
    named = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
    return root / f".embedded-{named}.sqlite"
