"""File contents to documents: HTML, PDF and notebooks become text with Markdown headings."""

from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from revela_rag.corpus.languages import PROSE_FORMATS, format_of
from revela_rag.corpus.text import bounded_references, clean_text, decode, squeeze
from revela_rag.corpus.types import Document

__all__ = ["Unreadable", "html_document", "read_bytes"]

_DROPPED = ("script", "style", "noscript", "template", "nav", "svg", "iframe", "form", "head", "button", "footer")
_BLOCKS = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "main",
        "aside",
        "header",
        "table",
        "ul",
        "ol",
        "dl",
        "dd",
        "dt",
        "blockquote",
        "figure",
        "figcaption",
        "body",
        "html",
        "tr",
        "details",
        "summary",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "pre",
        "li",
        "hr",
    ]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BAD_TITLE = re.compile(r"untitled|microsoft word|\.(?:docx?|pdf|tex|indd|pptx?)\b|^\W*$", re.I)
_HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_LINE_ENDS = re.compile(r"(?:(?<![ \t])[ \t]++)?\n[ \t]*+(?=\n|- )")
_CPP = re.compile(r"^[^\S\n]*+(?:class \w+|namespace\b|template *<|public:)", re.M)
#: Elements without an end: of those without a slash the parser keeps a list, and goes through it at every end tag.
_VOID = re.compile(r"<(br|hr|img|input|wbr)\b([^<>]*+)(?<!/)>", re.I)
_RESCANS, _RESCANNED = 16, 1_000_000  # times a text, and characters more, that the parser may read in vain
_MAX_MEAN_LINE = 1000


class Unreadable(Exception):
    """The content cannot be used; the message is the reason that goes into the report."""


def read_bytes(data: bytes, source_id: str) -> Document:
    """Turn the content of a file into a document; its name decides the format.

    Raises:
        Unreadable: binary, broken, encrypted, empty or minified content, with the reason.
    """
    kind = format_of(source_id) or "text"
    if kind == "pdf":
        return _pdf(data, source_id)
    text = decode(data)
    if text is None:
        raise Unreadable("binary or undecodable content")
    if not text.strip():
        raise Unreadable("empty file")
    if kind == "notebook":
        return Document(source_id, _notebook(text), format="markdown")
    if kind not in PROSE_FORMATS and len(text) > 20_000 and len(text) > _MAX_MEAN_LINE * (text.count("\n") + 1):
        raise Unreadable("minified or generated code")
    if kind in ("c", "cpp") and source_id.endswith(".h"):
        kind = "cpp" if _CPP.search(text) else "c"
    return Document(source_id, text, format=kind)


def html_document(document: Document) -> Document:
    """An HTML document as Markdown: headings, paragraphs, lists, code blocks; no scripts, no navigation.

    Raises:
        Unreadable: the parser takes it in no way.
    """
    soup = _soup(document.text)
    title = document.title or (squeeze(soup.title.get_text()) if soup.title else "")
    for tag in soup.find_all(_DROPPED):
        tag.decompose()
    for tag in soup.select('[role="navigation"], [role="search"], a.headerlink, a.anchor'):
        tag.decompose()
    return replace(document, text=_html_text(soup), title=title, format="markdown")


def _soup(text: str) -> Any:
    """The tree of an HTML text; where the parser gives up on an odd marked section, ``<![`` is text."""
    from bs4 import BeautifulSoup

    text = _VOID.sub(r"<\1\2 />", bounded_references(text))
    for markup in (text, text.replace("<![", "&lt;![")):
        try:
            return BeautifulSoup(_closed(markup), "html.parser")
        except Exception:  # it raises whatever the damage leads to
            continue
    raise Unreadable("broken HTML")


def _closed(text: str) -> str:
    """An HTML text whose ``<`` are text from where the parser would go over the rest again and again.

    It reads every tag, comment and section that is never closed to the end of the text, only to give it up.
    """
    probe = HTMLParser(convert_charrefs=False)
    start, budget = 0, _RESCANS * len(text) + _RESCANNED
    while start >= 0:
        probe.reset()
        probe.feed(text[start:])
        rest = len(probe.rawdata)  # what follows the first thing that is not closed
        at = len(text) - rest
        budget -= rest
        if budget < 0:
            return text[:at] + text[at:].replace("<", "&lt;")
        start = text.find(">", at + 1) + 1 if text.startswith("<", at) else 0
        start = start or text.find("<", at + 1)
    return text


def _html_text(soup: Any) -> str:
    """Text of a tree in document order, without recursion: deep nesting is data, not an error."""
    pieces: list[str] = []
    stack: list[tuple[Any, str]] = [(soup, "enter")]
    while stack:
        node, step = stack.pop()
        name = getattr(node, "name", None)
        if name is None:
            if type(node).__name__ == "NavigableString":
                pieces.append(re.sub(r"\s+", " ", str(node)))
            continue
        if step == "leave":
            pieces.append("\n\n")
        elif name == "br":
            pieces.append("\n")
        elif name == "pre":
            pieces.append(f"\n\n```\n{node.get_text().strip(chr(10))}\n```\n\n")
        elif name in _HEADINGS:
            pieces.append(f"\n\n{'#' * _HEADINGS[name]} {squeeze(node.get_text(' '))}\n\n")
        else:
            if name in _BLOCKS:
                pieces.append("\n- " if name == "li" else "\n\n")
                if name != "li":
                    stack.append((node, "leave"))
            elif name in ("td", "th"):
                pieces.append(" | ")
            stack.extend((child, "enter") for child in reversed(list(node.children)))
    text = _LINE_ENDS.sub("\n", "".join(pieces))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _pdf(data: bytes, source_id: str) -> Document:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted PDF")
        pages = [page.extract_text() or "" for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except Unreadable:
        raise
    except Exception as error:  # pypdf raises whatever the damage leads to
        raise Unreadable("broken PDF") from error
    text = clean_text(_HYPHENATED.sub("", "\f".join(pages)))
    if not text.strip():
        raise Unreadable("PDF without text")
    return Document(source_id, text, title="" if _BAD_TITLE.search(title) else squeeze(title))


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
