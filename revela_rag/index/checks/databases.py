"""A SQLite database that may be of an attacker: opened for reading only, with the schema it must have and no other."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

__all__ = ["check_schema", "open_immutable"]

_LONGEST = 100_000  # characters of a schema's SQL


def open_immutable(file: Path) -> sqlite3.Connection:
    """Open a database that nobody changes, believing nothing that it says of itself.

    Raises:
        sqlite3.Error: it cannot be opened, or is none.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(file.resolve()))}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
    try:
        connection.executescript("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA query_only = ON;")
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
    except BaseException:
        connection.close()
        raise
    return connection


def check_schema(connection: sqlite3.Connection, schema: str, earlier: Iterable[str] = ()) -> None:
    """Refuse a database with any table, index, view or trigger that ``schema`` would not make.

    A view or a computed column in place of a table answers with whatever expression its author chose.

    Args:
        connection: to the database; nothing but its list of names has been read.
        schema: SQL that makes an empty one.
        earlier: definitions of single tables as earlier versions made them.

    Raises:
        sqlite3.DatabaseError: naming the first that is different.
    """
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(schema)
        known = set(_listed(empty))
    known |= {(kind, name, _plain(sql)) for kind, name, _ in known for sql in earlier}
    for found in _listed(connection):
        if found not in known:
            raise sqlite3.DatabaseError(f"its schema has the {found[0]} {found[1][:80]!r}, {found[2][:80]!r}")


def _listed(connection: sqlite3.Connection) -> Iterable[tuple[str, str, str]]:
    rows = connection.execute("SELECT type, name, substr(sql, 1, ?) FROM sqlite_master", (_LONGEST,))
    return [(str(kind), str(name), _plain(sql or "")) for kind, name, sql in rows]


def _plain(sql: str) -> str:
    return re.sub(r"\s+", " ", str(sql)).strip()
