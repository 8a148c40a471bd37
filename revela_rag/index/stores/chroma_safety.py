"""What a Chroma database may make Chroma do when it is opened or written: nothing but hold vectors.

A collection's stored configuration and schema may name an embedding function, which Chroma builds from the arguments
beside the name whenever it adds, modifies or describes the collection (its older versions also when they open it).
Some of these functions load a model and run its code. An index embeds its texts itself and needs none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from revela_rag.errors import IndexingError

__all__ = ["check_collection", "check_database", "named_functions", "settings", "stored_settings"]

DATABASE = "chroma.sqlite3"
_KEY = "embedding_function"
_NONE = ("legacy", "unknown")  # the types that Chroma writes where there is no function
_LONGEST = 4_000_000  # characters of a configuration; those of Chroma have about a thousand


def settings() -> Any:
    """Settings of a Chroma client of ours: not those of a file ``.env`` in the working directory.

    Such a file could name any class to import, or the older store of Chroma, which unpickles.
    """
    from chromadb.config import Settings

    options: dict[str, Any] = {"_env_file": None, "chroma_api_impl": "chromadb.api.rust.RustBindingsAPI"}
    return Settings(anonymized_telemetry=False, **options)


def check_database(data: Path) -> None:
    """Refuse a Chroma directory in which any collection names an embedding function, before Chroma opens it.

    Args:
        data: a directory that holds ``chroma.sqlite3`` and may be written, or an empty one.

    Raises:
        IndexingError: it names one, or its database cannot be read.
    """
    file = data / DATABASE
    if not file.exists():
        return
    if not file.is_file():
        raise IndexingError(f"{str(file)!r} is not a regular file; build the index again.")
    try:  # writable, so that SQLite can undo what a killed process left half-written
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as database:
            for collection, text in _stored(database):
                _refuse(named_functions(json.loads(text, object_pairs_hook=_once)), collection, file)
    except (sqlite3.Error, ValueError, RecursionError) as error:
        raise IndexingError(f"The Chroma store {str(data)!r} is missing or damaged; build again. ({error})") from error


def check_collection(collection: Any, data: Path) -> None:
    """Refuse a collection that names a function as Chroma has read it, which is what Chroma would build one from.

    A database can be made to answer two programs differently (views, computed columns).

    Raises:
        IndexingError: it names one.
    """
    _refuse(named_functions(stored_settings(collection)), collection.name, data)


def stored_settings(collection: Any) -> list[Any]:
    """Configuration and schema of an open collection, as JSON; reading its ``schema`` would build what that names."""
    return [collection.configuration_json, collection._model.serialized_schema]


def _refuse(names: Iterator[str], collection: str, place: Path) -> None:
    for name in names:
        raise IndexingError(
            f"The collection {collection!r} in {str(place)!r} names the embedding function {name!r}, which Chroma "
            "would build and which could run code. An index needs none: it was changed by another program. Do not use "
            "it; build the index again from its sources."
        )


def named_functions(stored: Any) -> Iterator[str]:
    """The names of all embedding functions, dense or sparse, anywhere in a stored configuration or schema."""
    if isinstance(stored, dict):
        for key, value in stored.items():
            if key == _KEY and value is not None and not (isinstance(value, dict) and value.get("type") in _NONE):
                yield str(value.get("name") if isinstance(value, dict) else value)
            else:
                yield from named_functions(value)
    elif isinstance(stored, list):
        for value in stored:
            yield from named_functions(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; no key may hide another from us that Chroma would read."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a configuration has a key twice, among {', '.join(key for key, _ in pairs)[:200]}")
    return found


def _stored(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Name, and configuration or schema as JSON, of every collection; versions of Chroma differ in the columns."""
    columns = {str(row[1]) for row in database.execute("PRAGMA table_info(collections)")}
    for column in sorted(name for name in columns if name.endswith("_str")):
        query = f'SELECT name, "{column}" FROM collections WHERE "{column}" IS NOT NULL'
        for name, text in database.execute(query):
            if not isinstance(text, str) or len(text) > _LONGEST:
                raise ValueError(f"{column} of the collection {name!r} is not the configuration of one")
            if text.strip():
                yield str(name), text
