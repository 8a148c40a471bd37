"""JSON and YAML files as values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from revela_rag.errors import CorpusError

__all__ = ["YAML_SUFFIXES", "parse_file", "parse_yaml"]

YAML_SUFFIXES = (".yaml", ".yml")
_DEEPEST = 200  # levels of YAML: libyaml overflows the stack in building some ten thousand


def parse_file(path: Path) -> Any:
    """The value that a file holds, read as YAML by its suffix and as JSON else.

    Raises:
        CorpusError: the file is broken, or nested deeper than any real one.
    """
    kind = "YAML" if path.suffix.lower() in YAML_SUFFIXES else "JSON"
    try:
        content = path.read_bytes()
        return parse_yaml(content) if kind == "YAML" else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is not readable {kind}: {error}") from error


def parse_yaml(content: bytes) -> Any:
    """The value of YAML, every scalar as text: typed, an enum's ``NO`` would be False and a version a number.

    Raises:
        ValueError: it is broken, or nested deeper than any real one.
    """
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        depth = 0
        for event in yaml.parse(content, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        return yaml.load(content, Loader=loader)  # builds lists, mappings and texts only
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
