"""File contents to documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from revela_rag.corpus.code.detect import looks_like_markdown
from revela_rag.corpus.formats.asciidoc import read_asciidoc
from revela_rag.corpus.formats.encodings import decode, why_not_text
from revela_rag.corpus.formats.guard import guarded
from revela_rag.corpus.formats.html import read_html
from revela_rag.corpus.formats.names import PROSE_FORMATS, format_of
from revela_rag.corpus.formats.org import read_org
from revela_rag.corpus.formats.page import Page
from revela_rag.corpus.formats.tex import read_tex
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.text import clean_text
from revela_rag.corpus.types import Document

__all__ = ["Unreadable", "html_page", "read_bytes", "read_page"]

_CPP = re.compile(r"^[^\S\n]*+(?:class \w+|namespace\b|template *<|public:)", re.M)
#: Pages up to this length are read in this process: what a parser may do in vain with them takes no time.
_SMALL_PAGE = 100_000
_MAX_MEAN_LINE = 1000
_LOCK = re.compile(r"(?:^|[/.-])lock\.ya?ml$", re.I)  # what a package manager writes for itself


def read_bytes(data: bytes, source_id: str) -> Document:
    """Turn the content of a file into a document; its name decides the format.

    Raises:
        Unreadable: binary, broken, encrypted, empty or minified content, with the reason.
    """
    kind = format_of(source_id) or "text"
    if kind == "pdf":
        return Document(source_id, *guarded("pdf", data))
    if _LOCK.search(source_id):
        raise Unreadable("lock file")
    text = decode(data)
    if text is None:
        raise Unreadable(why_not_text(data))
    if not text.strip():
        raise Unreadable("empty file")
    if kind == "text" and looks_like_markdown(text):
        kind = "markdown"
    if kind == "notebook":
        return Document(source_id, _notebook(text), format="markdown")
    if kind not in PROSE_FORMATS and len(text) > 20_000 and len(text) > _MAX_MEAN_LINE * (text.count("\n") + 1):
        raise Unreadable("minified or generated code")
    if kind in ("c", "cpp") and source_id.endswith(".h"):
        kind = "cpp" if _CPP.search(text) else "c"
    return Document(source_id, text, format=kind)


#: How a document of a format becomes a page.
_PAGES: dict[str, Callable[[str], Page]] = {"asciidoc": read_asciidoc, "org": read_org, "tex": read_tex}


def read_page(document: Document) -> Page | None:
    """A document of a format that has a reader, or None.

    Raises:
        Unreadable: HTML that the parser cannot take within its budget.
    """
    if document.format == "html":
        return html_page(document.text)
    read = _PAGES.get(document.format)
    return read(document.text) if read else None


def html_page(text: str) -> Page:
    """What an HTML text says: headings, paragraphs, lists, tables, code; no scripts, no navigation.

    Raises:
        Unreadable: the parser takes it in no way, or not within its budget.
    """
    if len(text) <= _SMALL_PAGE:
        return read_html(text)
    read = guarded("html", text.encode("utf-8", "replace"))
    return Page(
        read["text"],
        read["title"],
        headings=[(level, name, start, end) for level, name, start, end in read["headings"]],
        verbatim=[(start, end) for start, end in read["verbatim"]],
    )


def _notebook(text: str) -> str:
    """Markdown cells as they are, code cells fenced; outputs are dropped."""
    try:
        notebook = json.loads(text)
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        blocks = []
        for cell in cells:
            source = cell.get("source", cell.get("input", ""))
            source = (source if isinstance(source, str) else "".join(source)).strip()
            if source and cell["cell_type"] == "code":
                blocks.append(f"```{language}\n{source}\n```")
            elif source and cell["cell_type"] in ("markdown", "heading"):
                blocks.append(source)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Unreadable("broken notebook") from error
    if not blocks:
        raise Unreadable("empty notebook")
    return clean_text("\n\n".join(blocks))
