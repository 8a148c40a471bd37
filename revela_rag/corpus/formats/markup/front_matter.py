"""What stands before the text of a Markdown file, between lines of ``---`` (YAML) or ``+++`` (TOML)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from revela_rag.corpus.metadata import plain
from revela_rag.corpus.sources.structured import parse_yaml
from revela_rag.corpus.text import squeeze
from revela_rag.corpus.types import Scalar, Value

__all__ = ["FrontMatter", "front_matter"]

_BLOCK = re.compile(r"\A(?:---[ \t]*\n(.*?)\n(?:---|\.\.\.)|\+\+\+[ \t]*\n(.*?)\n\+\+\+)[ \t]*(?:\n|\Z)", re.S)
_LINE = re.compile(r"^([A-Za-z][\w-]*):[ \t]*(\S[^\n]*)$", re.M)
_TITLES = ("title", "name")
#: What says what the document is about: it is text.
_ABOUT = ("description", "summary", "abstract", "excerpt", "keywords", "tags")
_KEPT = (*_ABOUT, "name", "categories", "author", "authors", "date", "version")
_LONGEST = 65_536  # characters that are parsed; more is no front matter of a person


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a front matter says.

    Attributes:
        text: the document with what it is about in the place of the front matter, on as many lines.
        title: may be empty.
        metadata: the other fields that help to find or to filter.
    """

    text: str
    title: str = ""
    metadata: dict[str, Scalar | list[Scalar]] = field(default_factory=dict)


def front_matter(text: str) -> FrontMatter:
    """Take the front matter off a Markdown text; one that is none stays text."""
    block = _BLOCK.match(text)
    if block is None:
        return FrontMatter(text)
    fields = _fields(block.group(1), block.group(2))
    if not fields and (block.group(1) or block.group(2) or "").strip():
        return FrontMatter(text)
    for table in ("extra", "params"):  # of Zola and Hugo
        if isinstance(fields.get(table), Mapping):
            fields = {**fields[table], **fields}
    title = next((squeeze(fields[key]) for key in _TITLES if isinstance(fields.get(key), str)), "")
    kept = {key: made for key in _KEPT if (made := _flat(plain(fields.get(key)))) not in (None, "", [])}
    about = [_sentence(kept[key]) for key in _ABOUT if key in kept]
    lead = "\n".join(dict.fromkeys(line for line in about if line))
    lines = text.count("\n", 0, block.end())
    gap = "\n" * (lines - lead.count("\n")) if lead else "\n" * lines
    return FrontMatter(lead + gap + text[block.end() :], title, kept)


def _fields(yaml: str | None, toml: str | None) -> dict[str, Any]:
    try:
        if toml is not None:
            return tomllib.loads(toml) if len(toml) <= _LONGEST else {}
        value = parse_yaml((yaml or "")[:_LONGEST].encode("utf-8", "replace"))
        if isinstance(value, dict):
            return {str(key).lower(): entry for key, entry in value.items()}
    except (ValueError, RecursionError):  # a colon in a title without quotes is not YAML, and common
        return {key.lower(): value.strip().strip("\"'") for key, value in _LINE.findall(yaml or "")}
    return {}


def _flat(value: Value | None) -> Any:
    """A value without objects, or None."""
    return None if any(isinstance(entry, dict) for entry in (value if isinstance(value, list) else [value])) else value


def _sentence(value: Scalar | list[Scalar]) -> str:
    """A value on one line that opens no heading."""
    said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return squeeze(said).lstrip("# ")
