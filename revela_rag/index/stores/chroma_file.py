"""``chroma.sqlite3``: what Chroma changes in it where it only reads, so that all the rest can be hashed.

Each client that is opened adds a row to one table, ``acquire_write``, to take SQLite's lock. That changes the page the
table begins on and the counters in the file's head, and after some hundred times appends a page: found by opening a
database 1,500 times. Nothing else changes, as long as no migration is due and the file has no free pages to take.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from revela_rag.errors import IndexingError

__all__ = ["DATABASE", "JOURNAL", "changed_by_readers", "check_integrity", "compact", "connect", "is_cut"]

DATABASE = "chroma.sqlite3"
JOURNAL = DATABASE + "-journal"
_LOCK_TABLE = "acquire_write"
#: Change counter and number of pages; version valid for, and version of the SQLite that wrote last.
_COUNTERS = ((24, 32), (92, 100))
_LOOKS, _BETWEEN = 3, 0.02  # seconds


@contextmanager
def connect(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a database of Chroma for reading, not trusting what its schema says."""
    # a client that was killed while it wrote leaves a journal, which only a connection that may write rolls back
    mode = "rw" if file.with_name(JOURNAL).exists() else "ro"
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True)) as database:
        database.executescript("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
        yield database


def compact(file: Path) -> None:
    """Write the database anew: without the free pages that Chroma's queue leaves, with one row in the lock table."""
    fresh = file.with_name(file.name + ".new")
    with closing(sqlite3.connect(file)) as database:
        if _root(database):
            with database:
                database.execute(f"DELETE FROM {_LOCK_TABLE} WHERE id > 1")
        database.execute("VACUUM INTO ?", (str(fresh),))
    fresh.replace(file)


def changed_by_readers(file: Path) -> tuple[tuple[int, int], ...]:
    """Start and stop of the bytes that change when Chroma opens a compact database; the file may grow besides."""
    with connect(file) as database:
        size = database.execute("PRAGMA page_size").fetchone()[0]
        root = _root(database)
    return (*_COUNTERS, ((root - 1) * size, root * size)) if root > 1 else _COUNTERS


def _root(database: sqlite3.Connection) -> int:
    """The page on which the lock table begins; 0 where there is none."""
    found = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (_LOCK_TABLE,)).fetchone()
    return int(found[0]) if found else 0


def check_integrity(file: Path) -> None:
    """Have SQLite look at every page, index and value.

    Raises:
        IndexingError: it found something.
    """
    try:
        with connect(file) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check(3)")]
    except sqlite3.Error as error:
        found = [str(error)]
    if found != ["ok"]:
        raise IndexingError(f"{str(file)!r} is damaged: {'; '.join(found)[:500]}")


def is_cut(file: Path) -> bool:
    """Whether the file ends in the middle of a page, or before the last page that its head counts."""
    for _ in range(_LOOKS):
        if _is_whole(file):
            return False
        if file.with_name(JOURNAL).exists():  # a client is writing, or was killed: SQLite puts that right
            return False
        time.sleep(_BETWEEN)
    return True


def _is_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(100)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return False
    page = int.from_bytes(head[16:18], "big")
    page = 65_536 if page == 1 else page
    held = file.stat().st_size
    return page >= 512 and held % page == 0 and held >= page * int.from_bytes(head[28:32], "big")
