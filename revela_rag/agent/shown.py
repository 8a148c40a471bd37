"""Results as text, as a model reads them with the fewest tokens: places first, then texts as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["shown"]

Row = Mapping[str, Any]


def shown(result: Mapping[str, Any]) -> str:
    """A result of :class:`~revela_rag.agent.CorpusTools` as text."""
    lines = []
    if "segments" in result:
        lines.append(f"{result['document']}, {result['last_line']} lines")
    if "passages" in result:
        lines.append(str(result["document"]))
    for kind, show in _SHOWN.items():
        lines += [show(row) for row in result.get(kind, ())]
    if "documents" in result:
        lines.append(f"{len(result['documents'])} of {result['total']} documents")
    lines += [f"({note})" for note in result.get("notes", ())]
    between = "\n" if "matches" in result or "documents" in result else "\n\n"
    return between.join(lines)


def _hit(row: Row) -> str:
    place = row["document"] + (_lines(*row["lines"]) if row["lines"] else "")
    place += f", {row['place']}" if "place" in row else ""
    title = f" {row['title']}" if row["title"] else ""
    return f"[{place}]{title} (id {row['id']}, score {row['score']})\n{row['text']}"


def _tool(row: Row) -> str:
    return f"[{row['name']}] (score {row['score']})\n{row['text']}"


def _match(row: Row) -> str:
    place = row["line"] if row["line"] is not None else "-".join(map(str, row["lines"]))
    return f"{row['document']}:{place}: {row['text'].strip()}"


def _segment(row: Row) -> str:
    some = "" if row["whole"] else ", shortened"
    title = f" {row['title']}" if row["title"] else ""
    return f"[{_lines(row['start_line'], row['end_line']).lstrip(':')}{some}]{title}\n{row['text']}"


def _passage(row: Row) -> str:
    title = f" {row['title']}" if row["title"] else ""
    return f"[{_lines(*row['lines']).lstrip(':')}]{title} (id {row['id']})\n{row['text']}"


def _document(row: Row) -> str:
    metadata = ", ".join(f"{key}={value}" for key, value in row["metadata"].items())
    count = f"{row['chunks']} passage{'s' if row['chunks'] != 1 else ''}"
    return f"{row['document']}  ({count}{'; ' if metadata else ''}{metadata})"


def _lines(first: int, last: int) -> str:
    return f":{first}" if first == last else f":{first}-{last}"


_SHOWN: dict[str, Callable[[Row], str]] = {
    "hits": _hit,
    "tools": _tool,
    "matches": _match,
    "segments": _segment,
    "passages": _passage,
    "documents": _document,
}
