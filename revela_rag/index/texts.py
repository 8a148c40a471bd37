"""Chunks in SQLite: text, metadata and the integer row that names a chunk's vector.

Rows are ``AUTOINCREMENT``: a row is never used for two chunks, not even after a delete, and cannot collide as
hashes could. What filters can ask for is repeated in the table ``attributes``, one row a value
(:func:`revela_rag.index.filters.attributes_of`), so that a key is read without its chunks.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.corpus.metadata import is_missing, plain
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.types import Chunk, Part, titled
from revela_rag.errors import DiskError, IndexingError
from revela_rag.index.checks.databases import check_schema, open_immutable
from revela_rag.index.filters import Condition, attributes_of
from revela_rag.index.filters.attributes import Attributes, described
from revela_rag.surrogates import encodable

__all__ = ["TEXTS_FILE", "Record", "TextStore", "embedded", "record"]

TEXTS_FILE = "texts.sqlite"
_SCHEMA = """
CREATE TABLE chunks (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, title TEXT NOT NULL,
    document_id TEXT NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, parts TEXT NOT NULL,
    metadata TEXT NOT NULL, origin TEXT NOT NULL DEFAULT '{}');
CREATE TABLE attributes (
    key TEXT NOT NULL, type TEXT NOT NULL, value NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (key, type, value, row)) WITHOUT ROWID;
CREATE INDEX attributes_row ON attributes (row);
PRAGMA user_version = 2;
"""
#: Version 0 had no column ``origin``; in ``attributes``, version 1 had no nested keys, marks or fields of the chunk.
_VERSION = 2
_FIRST_CHUNKS = _SCHEMA[_SCHEMA.index("CREATE TABLE chunks") : _SCHEMA.index(", origin")].strip() + ")"
_COLUMNS = "id, text, title, document_id, position, kind, parts, metadata, origin"
_GIVEN_ID = "\0id"  # the key in `attributes` of the id that a chunk's origin had; no metadata has it
_VARIABLES = 500  # bound per statement; SQLite allows at least 999

#: One chunk as it is stored: the values of ``_COLUMNS``.
Record = tuple[str, str, str, str, int, str, str, str, str]


def record(chunk: Chunk, report: CorpusReport) -> Record:
    """A chunk as it is stored; equal records mean that nothing needs writing.

    Metadata is stored as :func:`~revela_rag.corpus.metadata.plain` makes it where it is no JSON; what is missing (NaN)
    is left out and counted in ``report``.

    Raises:
        IndexingError: the metadata cannot be written as JSON.
    """
    left_out = [key for key, value in chunk.metadata.items() if any(map(is_missing, _values_in(value)))]
    for key in left_out:
        report.leave_out(str(key))
    try:
        metadata = _SORTED.encode({key: value for key, value in chunk.metadata.items() if key not in left_out})
        origin = _SORTED.encode(dict(chunk.origin))
        parts = json.dumps([[part.role, part.text] for part in chunk.parts]) if chunk.parts else "[]"
    except (TypeError, ValueError) as error:
        raise IndexingError(
            f"The metadata of chunk {chunk.id!r} ({chunk.document_id!r}) cannot be stored: {error}. "
            "Use strings, numbers, booleans and lists of them."
        ) from error
    texts = (encodable(value) for value in (chunk.id, chunk.text, chunk.title, chunk.document_id))
    id_, text, title, document = texts
    return (id_, text, title, document, int(chunk.position), str(chunk.kind), parts, metadata, origin)


def _as_json(value: Any) -> Any:
    made = plain(value)
    if made is None:
        raise TypeError(f"a {type(value).__name__} is no JSON")
    return made


_SORTED = json.JSONEncoder(sort_keys=True, default=_as_json)


def _values_in(given: Any) -> Iterator[Any]:
    """The values of a list, tuple, set, array or object, also further inside, or the one that is none of these."""
    if isinstance(given, np.ndarray):
        yield from given.flat
    elif isinstance(given, list | tuple | set | frozenset | Mapping):
        for value in given.values() if isinstance(given, Mapping) else given:
            yield from _values_in(value)
    else:
        yield given


def embedded(values: Record) -> str:
    """The text of a record that is embedded."""
    return f"{values[2]}\n{values[1]}" if values[2] else values[1]


def _chunk(values: Sequence[Any]) -> Chunk:
    id_, text, title, document, position, kind, parts, metadata, origin = values
    return Chunk(
        id=id_,
        text=text,
        document_id=document,
        position=position,
        kind=kind,
        title=title,
        parts=tuple(Part(role, part) for role, part in json.loads(parts)),
        metadata=_object(metadata),
        origin=_object(origin),
    )


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} is no metadata")
    return found


class TextStore:
    """The chunks of one generation. A published generation is opened immutable and shared by threads."""

    def __init__(self, connection: sqlite3.Connection, file: Path, *, writable: bool) -> None:
        self._connection = connection
        self._file = file
        self._writable = writable
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, connection.close)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        self._columns = _COLUMNS if version else _COLUMNS.replace("origin", "'{}'")
        if writable and version < _VERSION:
            self._upgrade(version)
        #: What filters read of a published generation.
        self.attributes = Attributes(self._query, named=self._named, current=version >= _VERSION)

    @classmethod
    def create(cls, file: Path) -> TextStore:
        """Open a draft for writing; makes the tables when the file is new."""
        fresh = not file.exists()
        with _errors(file, writing=True):
            connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            # a draft is thrown away whole when anything goes wrong, so it needs no journal of its own
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            if fresh:
                connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            return cls(connection, file, writable=True)

    @classmethod
    def open(cls, file: Path) -> TextStore:
        """Open for reading.

        Raises:
            IndexingError: the file is missing or damaged.
        """
        with _errors(file, writing=False):
            connection = open_immutable(file)
            try:
                check_schema(connection, _SCHEMA, [_FIRST_CHUNKS])
            except sqlite3.Error:
                connection.close()
                raise
            store = cls(connection, file, writable=False)
            connection.execute(f"SELECT {store._columns} FROM chunks LIMIT 1").fetchone()
            connection.execute("SELECT key, type, value, row FROM attributes LIMIT 1").fetchone()
        return store

    def __len__(self) -> int:
        return int(self._query("SELECT COUNT(*) FROM chunks")[0][0])

    def check_integrity(self) -> None:
        """Have SQLite look at every page, index and value.

        Raises:
            IndexingError: it found something, or metadata of chunks that are not there.
        """
        found = [str(line) for (line,) in self._query("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise IndexingError(f"{str(self._file)!r} is damaged: {'; '.join(found)[:500]}")
        sql = "SELECT COUNT(*) FROM attributes WHERE row NOT IN (SELECT row FROM chunks)"
        if lost := self._query(sql)[0][0]:
            raise IndexingError(f"{str(self._file)!r} is damaged: {lost:,} entries of metadata are of no chunk.")

    def records(self, ids: Sequence[str]) -> dict[str, tuple[int, Record]]:
        """Row and record of those ids that are there."""
        found: dict[str, tuple[int, Record]] = {}
        for some in _slices(ids):
            sql = f"SELECT row, {self._columns} FROM chunks WHERE id IN ({_marks(some)})"
            found.update({values[1]: (values[0], values[1:]) for values in self._query(sql, some)})
        return found

    def chunks(self, rows: Sequence[int]) -> dict[int, Chunk]:
        """Chunk of each row."""
        found: dict[int, Chunk] = {}
        for some in _slices(rows):
            sql = f"SELECT row, {self._columns} FROM chunks WHERE row IN ({_marks(some)})"
            try:
                found.update({values[0]: _chunk(values[1:]) for values in self._query(sql, some)})
            except (ValueError, TypeError, RecursionError) as error:
                raise IndexingError(f"{str(self._file)!r} is damaged ({error}); build the index again.") from error
        return found

    def get(self, ids: Sequence[str] | None, condition: Condition | None = None) -> list[Chunk]:
        """Chunks in the order of ``ids``, as for :meth:`find`, or all by row, of those that meet a condition."""
        rows = self.rows().tolist() if ids is None else self._named("$id", ids)
        if condition is not None:
            allowed = set(self.select(condition).tolist())
            rows = [row for row in rows if row in allowed]
        chunks = self.chunks(rows)
        if len(chunks) < len(set(rows)):
            raise IndexingError(f"{str(self._file)!r} is damaged: it has ids of chunks that it lost; build again.")
        return [chunks[row] for row in rows]

    def find(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """The rows of each id that is there, in order: a chunk's own, or the one its origin had."""
        cleaned = list(dict.fromkeys(map(encodable, ids)))
        own, given = dict[str, list[int]](), dict[str, list[int]]()
        for some in _slices(cleaned):
            sql = f"SELECT row, id FROM chunks WHERE id IN ({_marks(some)})"
            own |= {id_: [row] for row, id_ in self._query(sql, some)}
            sql = f"SELECT row, value FROM attributes WHERE key = ? AND type = 's' AND value IN ({_marks(some)})"
            for row, id_ in self._query(sql, [_GIVEN_ID, *some]):
                given.setdefault(id_, []).append(row)
        return {id_: found for id_ in cleaned if (found := own.get(id_) or given.get(id_))}

    def _named(self, what: str, names: Sequence[str]) -> list[int]:
        """Rows of chunks with some ids, or of some documents."""
        if what == "$id":
            return [row for found in self.find(names).values() for row in found]
        return [row for row, _, _ in self.of_documents(names)]

    def of_documents(self, documents: Sequence[str]) -> list[tuple[int, str, str]]:
        """Row, id and document of every chunk of some documents."""
        found: list[tuple[int, str, str]] = []
        for some in _slices(list(dict.fromkeys(map(encodable, documents)))):
            sql = f"SELECT row, id, document_id FROM chunks WHERE document_id IN ({_marks(some)}) ORDER BY row"
            found += self._query(sql, some)
        return found

    def rows(self) -> np.ndarray:
        """All rows, (n,) int64, ascending."""
        return np.array([row for (row,) in self._query("SELECT row FROM chunks ORDER BY row")], dtype=np.int64)

    def ids(self) -> Iterator[tuple[int, str, str]]:
        """Row, id and document of every chunk, by row, without holding them all."""
        yield from self._pages("id, document_id")

    def documents(self) -> Iterator[str]:
        """The id of every chunk's document, by row, without holding them all."""
        for _, document in self._pages("document_id"):
            yield document

    def texts(self, rows: np.ndarray | None = None) -> Iterator[str]:
        """The embedded text of every chunk, by row, without holding them all; of some ascending rows where given."""
        if rows is None or len(rows) == len(self):
            found = self._pages("title, text")
        else:
            sql = "SELECT row, title, text FROM chunks WHERE row IN ({}) ORDER BY row"
            found = (page for some in _slices(rows) for page in self._query(sql.format(_marks(some)), some))
        for _, title, text in found:
            yield titled(title, text)

    def places(self) -> Iterator[tuple[int, str, int]]:
        """Row, document and position of every chunk, by row, without holding them all."""
        yield from self._pages("document_id, position")

    def bodies(self, rows: Sequence[int] | None = None) -> Iterator[list[tuple[int, bytes]]]:
        """Row and text, in UTF-8 and without the title, of every chunk by row, or of some; some hundreds a time."""
        if rows is not None:
            for some in _slices(rows):
                sql = f"SELECT row, CAST(text AS BLOB) FROM chunks WHERE row IN ({_marks(some)}) ORDER BY row"
                yield self._query(sql, some)
            return
        last = -1
        sql = f"SELECT row, CAST(text AS BLOB) FROM chunks WHERE row > ? ORDER BY row LIMIT {_VARIABLES}"
        while page := self._query(sql, (last,)):
            yield page
            last = page[-1][0]

    def _pages(self, columns: str) -> Iterator[Any]:
        last = -1
        sql = f"SELECT row, {columns} FROM chunks WHERE row > ? ORDER BY row LIMIT 1000"
        while page := self._query(sql, (last,)):
            yield from page
            last = page[-1][0]

    def select(self, condition: Condition) -> np.ndarray:
        """Rows whose metadata meets a condition, (n,) int64, ascending; of a published generation only."""
        return np.flatnonzero(condition.mask(self.attributes))

    def insert(self, records: Sequence[Record]) -> list[int]:
        """Add new records; gives their rows."""
        sql = f"INSERT INTO chunks ({_COLUMNS}) VALUES ({_marks(range(9))})"
        rows = []
        with self._lock, _errors(self._file, writing=self._writable):
            for values in records:
                rows.append(int(self._connection.execute(sql, values).lastrowid or 0))
                self._describe(rows[-1], values)
        return rows

    def update(self, row: int, values: Record) -> None:
        """Replace the record under a row."""
        sql = (
            "UPDATE chunks SET id=?, text=?, title=?, document_id=?, position=?, kind=?, parts=?, metadata=?, "
            "origin=? WHERE row=?"
        )
        with self._lock, _errors(self._file, writing=self._writable):
            self._connection.execute(sql, (*values, row))
            self._connection.execute("DELETE FROM attributes WHERE row=?", (row,))
            self._describe(row, values)

    def delete(self, rows: Iterable[int]) -> None:
        """Remove rows."""
        listed = [(int(row),) for row in rows]
        with self._lock, _errors(self._file, writing=self._writable):
            self._connection.executemany("DELETE FROM attributes WHERE row=?", listed)
            self._connection.executemany("DELETE FROM chunks WHERE row=?", listed)

    def _describe(self, row: int, values: Record) -> None:
        _, _, _, document, _, kind, _, metadata, origin = values
        found = attributes_of(described(json.loads(metadata), document, kind))
        listed = [(*attribute, row) for attribute in found if attribute[0] != _GIVEN_ID]
        if given := json.loads(origin).get("id"):
            listed.append((_GIVEN_ID, "s", encodable(given), row))
        self._connection.executemany("INSERT OR IGNORE INTO attributes VALUES (?, ?, ?, ?)", listed)

    def _upgrade(self, version: int) -> None:
        """Bring a draft that was copied from an earlier version to this one."""
        if not version:
            self._connection.execute("ALTER TABLE chunks ADD COLUMN origin TEXT NOT NULL DEFAULT '{}'")
        self._columns = _COLUMNS
        self._connection.execute("DELETE FROM attributes")
        for page in self._pages(_COLUMNS):
            self._describe(page[0], tuple(page[1:]))
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def save(self) -> None:
        """Write a draft out and close it."""
        with self._lock, _errors(self._file, writing=self._writable):
            self._connection.execute("COMMIT")
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()

    def _query(self, sql: str, bound: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _errors(self._file, writing=self._writable):
            return self._connection.execute(sql, tuple(bound)).fetchall()


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _slices(values: Sequence[Any] | np.ndarray) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _VARIABLES):
        yield [value if isinstance(value, str) else int(value) for value in values[start : start + _VARIABLES]]


@contextmanager
def _errors(file: Path, *, writing: bool) -> Iterator[None]:
    """Say what SQLite's errors mean here."""
    where = repr(str(file))
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise IndexingError(f"{where} is closed; open the index again. ({error})") from error
    except (sqlite3.Error, UnicodeError) as error:  # text that is not UTF-8 is the latter
        message = str(error).lower()
        if writing and ("full" in message or "disk i/o" in message or "unable to open" in message):
            raise DiskError(f"{where} cannot be written: {error}; free some space.") from error
        raise IndexingError(f"{where} is missing or damaged; build the index again. ({error})") from error
