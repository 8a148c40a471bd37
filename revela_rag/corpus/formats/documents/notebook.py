"""Jupyter notebooks to Markdown, cell by cell."""

from __future__ import annotations

import json
import re

from revela_rag.corpus.formats.documents.reading import PAGE_BREAK
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.prose.sections import fence_spans
from revela_rag.corpus.text import clean_text

__all__ = ["read_notebook"]

_TICKS = re.compile("`{3,}")
_OPENING = re.compile(r"[ \t]*(`{3,}|~{3,})")


def read_notebook(text: str) -> str:
    r"""Markdown cells as they are, code cells fenced, with ``\f`` between cells; outputs are dropped.

    Raises:
        Unreadable: broken, or without a cell that says something.
    """
    try:
        notebook = json.loads(text)
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        blocks = [_cell(cell, language) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Unreadable("broken notebook") from error
    if not any(blocks):
        raise Unreadable("empty notebook")
    return PAGE_BREAK.join(blocks)


def _cell(cell: dict[str, object], language: str) -> str:
    source = cell.get("source", cell.get("input", ""))
    source = source if isinstance(source, str) else "".join(source)  # type: ignore[arg-type]
    source = clean_text(source).replace("\f", "\n").strip()
    if not source or cell["cell_type"] not in ("code", "markdown", "heading"):
        return ""
    if cell["cell_type"] != "code":
        return _closed(source)
    fence = _fence(source)
    return f"{fence}{language}\n{source}\n{fence}"


def _fence(source: str) -> str:
    """More backticks than stand together anywhere in it."""
    return "`" * max([3, *(len(ticks) + 1 for ticks in _TICKS.findall(source))])


def _closed(markdown: str) -> str:
    """With its last fence closed: the next cell is no part of it."""
    spans = fence_spans(markdown)
    if not spans or spans[-1][1] < len(markdown):
        return markdown
    opening = _OPENING.match(markdown, spans[-1][0])
    last = markdown.rsplit("\n", 1)[-1].strip()
    mark = opening.group(1) if opening else ""
    return markdown if last.startswith(mark) and "\n" in markdown[spans[-1][0] :] else f"{markdown}\n{mark}"
