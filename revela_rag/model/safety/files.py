"""Regular files of bounded size, and the JSON in them."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from revela_rag.errors import ModelError

__all__ = ["check_folder", "inside", "json_object", "read_json", "walk"]

_MOST_ENTRIES = 10_000  # in one folder
_SMALL, _LARGE = 16 * 2**20, 256 * 2**20  # bytes of settings; of vocabularies
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
_BOUNDED = (".json", ".txt", ".md", ".jinja", ".model")
_NEVER_READ = ("trainer_state.json",)  # grows with a training


def check_folder(folder: Path) -> list[str]:
    """The names of the files in a folder, none of which is a pipe, a device or too large to be what it seems.

    Raises:
        ModelError: naming the one that is.
    """
    names = []
    try:
        for count, entry in enumerate(folder.iterdir(), start=1):
            if count > _MOST_ENTRIES:
                raise ModelError(f"{str(folder)!r} holds more than {_MOST_ENTRIES:,} files; is it a model's directory?")
            if not entry.exists() or entry.is_dir():  # a link to nothing is a missing file
                continue
            about = entry.stat()
            if not stat.S_ISREG(about.st_mode):
                raise ModelError(f"{str(entry)!r} is not a regular file but a pipe or device; do not load this model.")
            most = _most(entry.name)
            if most is not None and about.st_size > most:
                raise ModelError(
                    f"{str(entry)!r} has {about.st_size:,} bytes, more than the {most:,} that such a file can need; "
                    "do not load this model."
                )
            names.append(entry.name)
    except OSError as error:
        raise ModelError(f"The model directory {str(folder)!r} cannot be read: {error}") from error
    return names


def _most(name: str) -> int | None:
    if not name.endswith(_BOUNDED) or name in _NEVER_READ:
        return None
    return _LARGE if name in _VOCABULARIES or name.endswith((".model", ".index.json")) else _SMALL


def inside(path: Path, root: Path) -> bool:
    """Whether a path that a file of the model names stays in the model's directory, links followed."""
    return path.resolve().is_relative_to(root.resolve())


def read_json(file: Path) -> Any:
    """What a JSON file says.

    Raises:
        ModelError: it is no regular file, too large, or no JSON.
    """
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ModelError(f"{str(file)!r} is not a regular file; do not load this model.")
        if about.st_size > (most := _most(file.name) or _SMALL):
            raise ModelError(f"{str(file)!r} has {about.st_size:,} bytes, more than {most:,}; do not load this model.")
        return json.loads(file.read_bytes())
    except ModelError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{str(file)!r} cannot be read as JSON ({error}); export the model again.") from error


def json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        ModelError: as :func:`read_json`, or it holds something else than an object.
    """
    if not file.exists():
        return {}
    found = read_json(file)
    if not isinstance(found, dict):
        raise ModelError(
            f"{str(file)!r} is not valid JSON of a model: it holds {type(found).__name__} instead of an object; "
            "export the model again."
        )
    return found


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested objects and lists; the items of a list come under its key."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        key, found = waiting.pop()
        yield key, found
        if isinstance(found, dict):
            waiting += [(str(name), inner) for name, inner in found.items()]
        elif isinstance(found, list):
            waiting += [(key, inner) for inner in found]
