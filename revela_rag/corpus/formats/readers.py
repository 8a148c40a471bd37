"""File contents to documents."""

from __future__ import annotations

import re
from collections.abc import Callable

from revela_rag.corpus.code.detect import looks_like_markdown
from revela_rag.corpus.formats.documents.notebook import read_notebook
from revela_rag.corpus.formats.documents.office import needs_extra
from revela_rag.corpus.formats.documents.reading import Reading
from revela_rag.corpus.formats.encodings import decode, why_not_text
from revela_rag.corpus.formats.guard import guarded
from revela_rag.corpus.formats.markup.asciidoc import read_asciidoc
from revela_rag.corpus.formats.markup.html import read_html
from revela_rag.corpus.formats.markup.org import read_org
from revela_rag.corpus.formats.markup.page import Page
from revela_rag.corpus.formats.markup.tex import read_tex
from revela_rag.corpus.formats.names import OFFICE_FORMATS, PROSE_FORMATS, format_of
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.types import Document

__all__ = ["Unreadable", "html_page", "read_bytes", "read_page"]

_CPP = re.compile(r"^[^\S\n]*+(?:class \w+|namespace\b|template *<|public:)", re.M)
#: Pages up to this length are read in this process: what a parser may do in vain with them takes no time.
_SMALL_PAGE = 100_000
_MAX_MEAN_LINE = 1000
_LOCK = re.compile(r"(?:^|[/.-])lock\.ya?ml$", re.I)  # what a package manager writes for itself


def read_bytes(data: bytes, source_id: str, report: CorpusReport | None = None) -> Document:
    """Turn the content of a file into a document; its name decides the format.

    Args:
        data: the content.
        source_id: the file's name, and the document's id.
        report: receives what was not read in full or in order.

    Raises:
        Unreadable: binary, broken, encrypted, empty or minified content, with the reason.
    """
    kind = format_of(source_id) or "text"
    if kind in ("pdf", "eml") or kind in OFFICE_FORMATS:
        read = _reading(data, kind)
        if report is not None:
            for what, where in read.notes:
                report.note(what, f"{source_id} {where}")
        headings = tuple((level, words, start, end) for level, words, start, end in read.headings)
        return Document(source_id, read.text, read.title, kind, read.metadata, headings=headings)
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
        return Document(source_id, read_notebook(text), format="notebook")
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


def _reading(data: bytes, kind: str) -> Reading:
    if kind in OFFICE_FORMATS and (reason := needs_extra(kind)):
        raise Unreadable(reason)
    if kind == "pdf":
        return Reading(*guarded("pdf", data))
    return Reading(*(guarded("mail", data) if kind == "eml" else guarded("office", data, kind=kind)))
