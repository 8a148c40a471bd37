"""HTML to text: a page as paragraphs, lists, tables and code, with its headings where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from itertools import islice
from typing import Any

from revela_rag.corpus.formats.markup.page import Page
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.text import bounded_references, squeeze

__all__ = ["read_html"]

_NAMES = re.compile(r"\w+").findall
_DROPPED = frozenset(_NAMES("script style noscript template nav svg iframe head footer select textarea datalist"))
_BLOCKS = frozenset(
    _NAMES(
        "p div section article main aside header table ul ol dl dd dt blockquote figure figcaption body html tr "
        "details summary hr form fieldset legend caption address center"
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset({"td", "th"})
_PERMALINKS = frozenset({"headerlink", "anchor"})
_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)
#: What a reader opens with a click: it is hidden until then, and text all the same.
_OPENED = re.compile(r"accordion|collaps|faq|question|answer|toggle|panel|\btab|details|expand", re.I)
_OPENS = ("aria-expanded", "aria-controls", "data-toggle", "data-bs-toggle")
_FORM_WORDS = 40  # a form with so many words beside its controls is a page
_DEEPEST = 500
_LOOKED_AT = 100  # texts of an element that are looked at to judge it
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w")
_TICKS = re.compile("`{3,}")


def read_html(text: str) -> Page:
    """The text of a page without scripts, navigation, controls of forms and what is never shown.

    Raises:
        Unreadable: the parser takes it in no way.
    """
    from lxml import etree

    head, end, rest = _without_sections(bounded_references(text)).rpartition("-->")
    text = head + end + rest.replace("<!--", " ")  # a comment without an end hides nothing
    data = text.encode("utf-8", "replace")  # named, so that what the page says of its encoding does not count
    options: dict[str, Any] = {"encoding": "utf-8", "huge_tree": True, "remove_comments": True, "remove_pis": True}
    parser = etree.HTMLParser(collect_ids=False, **options)
    try:
        root = etree.fromstring(data, parser)
        if any("depth" in entry.message for entry in parser.error_log):
            root = etree.fromstring(data, etree.HTMLParser(target=_Shallow(etree.TreeBuilder()), **options))
    except (etree.LxmlError, ValueError) as error:
        if "empty" in str(error).lower():
            return Page()
        raise Unreadable("broken HTML") from error
    if root is None:
        return Page()
    title = root.find("head/title")
    if title is None:
        title = root.find(".//title")
    walker = _Walker()
    walker.walk(etree.iterwalk(root, events=("start", "end")))
    return Page(
        "".join(walker.pieces), "" if title is None else squeeze("".join(title.itertext())), walker.headings,
        walker.verbatim,
    )  # fmt: skip


def _without_sections(text: str) -> str:
    """A page whose ``<![CDATA[...]]>`` are the text they stand for; that of Confluence's macros is code."""
    first, *others = text.split("<![CDATA[")
    pieces = [first]
    for other in others:
        body, end, rest = other.partition("]]>")
        if not end:
            pieces.append(other)
        elif pieces[-1].endswith("plain-text-body>"):
            pieces += ["<pre>", escape(body), "</pre>", rest]
        else:
            pieces += [escape(body), rest]
    return "".join(pieces)


class _Shallow:
    """Builds a tree in which what is nested too deeply for the parser's own stands side by side."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._depth = 0
        self.data = builder.data
        self.close = builder.close

    def start(self, tag: str, attributes: Any) -> None:
        self._depth += 1
        if self._depth <= _DEEPEST:
            self._builder.start(tag, dict(attributes))

    def end(self, tag: str) -> None:
        if self._depth <= _DEEPEST:
            self._builder.end(tag)
        self._depth -= 1


class _Walker:
    """Writes the text of a tree in document order, without recursion: deep nesting is data, not an error."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.headings: list[tuple[int, str, int, int]] = []
        self.verbatim: list[tuple[int, int]] = []
        self._length = 0
        self._breaks = 0  # line ends before the next text
        self._space = False
        self._marker = ""
        self._captured: Any = None  # a heading, a code block or a cell, whose text is put together apart
        self._buffer: list[str] = []
        self._tables: list[_Table | None] = []  # those around; None for what only lays out a page

    def walk(self, events: Any) -> None:
        dropped: Any = None
        for event, node in events:
            if event == "start":
                if _is_dropped(node):
                    dropped = node
                    events.skip_subtree()
                else:
                    self._enter(node)
                    self._write(node.text)
            else:
                if node is dropped:
                    dropped = None
                else:
                    self._leave(node)
                self._write(node.tail)

    def _enter(self, node: Any) -> None:
        name = node.tag
        if self._captured is not None:
            if name == "br":
                self._buffer.append("\n")
            elif name in _BLOCKS or name == "li":
                self._buffer.append("\n" if self._captured.tag == "pre" else " ")
        elif name == "br":
            self._breaks = min(self._breaks + 1, 2)
        elif name in _HEADINGS or name == "pre" or (name in _CELLS and self._tables and self._tables[-1]):
            self._captured, self._buffer = node, []
        elif name == "li":
            self._break(1)
            self._marker = "- "
        elif name in _CELLS or name in _BLOCKS or name == "button":
            self._break(2)
            if name == "table":
                self._tables.append(_Table() if _is_data(node) else None)

    def _leave(self, node: Any) -> None:
        name = node.tag
        if self._captured is node:
            self._captured = None
            self._finish(name, "".join(self._buffer))
        elif self._captured is not None:
            if name in _BLOCKS:
                self._buffer.append("\n" if self._captured.tag == "pre" else " ")
        elif name == "tr" and self._tables and self._tables[-1]:
            self._row(self._tables[-1])
        elif name in _CELLS or name in _BLOCKS or name == "button":
            self._break(2)
            if name == "table" and self._tables:
                self._tables.pop()

    def _finish(self, name: str, text: str) -> None:
        """Write a heading, a code block or a cell."""
        if name == "pre":
            if text.strip():
                fence = "`" * max(3, 1 + max((len(ticks) for ticks in _TICKS.findall(text)), default=0))
                self.verbatim.append(self._block(f"{fence}\n{text.strip(chr(10))}\n{fence}"))
        elif name in _CELLS:
            table = self._tables[-1]
            if table:
                table.cells.append(squeeze(text))
                table.heads += name == "th"
        elif title := squeeze(text):
            level = _HEADINGS[name]
            self.headings.append((level, title, *self._block(f"{'#' * level} {title}")))

    def _row(self, table: _Table) -> None:
        if any(table.cells):
            self._breaks = 1 if table.rows else 2
            self._put(f"| {' | '.join(table.cells)} |")
            table.rows += 1
            if table.rows == 1 and table.heads == len(table.cells):
                self._breaks = 1
                self._put("|---" * len(table.cells) + "|")
        table.cells, table.heads = [], 0

    def _block(self, text: str) -> tuple[int, int]:
        self._break(2)
        self._marker = ""
        self._put(text)
        self._break(2)
        return self._length - len(text), self._length

    def _break(self, lines: int) -> None:
        if not self._marker:
            self._breaks = max(self._breaks, lines)

    def _write(self, text: str | None) -> None:
        if not text:
            return
        if self._captured is not None:
            self._buffer.append(text)
            return
        words = _SPACE.sub(" ", text)
        self._space |= words[0] == " "
        if words != " ":
            self._put(words.strip(" "))
            self._space = words[-1] == " "

    def _put(self, text: str) -> None:
        gap = "\n" * self._breaks or " " * self._space
        text = f"{gap if self._length else ''}{self._marker}{text}"
        self._breaks, self._space, self._marker = 0, False, ""
        self.pieces.append(text)
        self._length += len(text)


@dataclass(slots=True)
class _Table:
    """A table that is being written: its row so far, and how many cells of it are headings."""

    cells: list[str] = field(default_factory=list)
    heads: int = 0
    rows: int = 0

    def __bool__(self) -> bool:
        return True


def _is_data(table: Any) -> bool:
    """Whether a table holds values: several in a row, and no headings, code or tables in its cells."""
    inside = table.iter("table", "pre", *_HEADINGS)
    next(inside)  # itself
    if next(inside, None) is not None:
        return False
    row = next(table.iter("tr"), None)
    return row is not None and sum(child.tag in _CELLS for child in row) > 1


def _is_dropped(node: Any) -> bool:
    name = node.tag
    if name in _DROPPED:
        return True
    if name == "button":
        return not _is_question(node)
    if name == "form":
        return not _is_page(node)
    if not node.attrib:
        return False
    if node.get("role") in ("navigation", "search"):
        return True
    if name == "a":
        return _is_permalink(node)
    return _is_hidden(node)


def _is_hidden(node: Any) -> bool:
    never = "hidden" in node.attrib and (node.get("hidden") or "").lower() != "until-found"
    if not never and not _HIDDEN.search(node.get("style") or ""):
        return False
    named = " ".join(filter(None, (node.get("class"), node.get("id"), node.get("role"))))
    before = node.getprevious()
    opened = before is not None and (before.tag in ("button", "summary") or any(key in before.attrib for key in _OPENS))
    return not opened and not _OPENED.search(named) and node.get("aria-labelledby") is None


def _is_question(button: Any) -> bool:
    """Whether a button is what an accordion shows of an entry, not a control."""
    text = squeeze(_text(button))
    if any(above.tag in _HEADINGS or above.tag in ("summary", "dt") for above in islice(button.iterancestors(), 3)):
        return bool(text) and not _stands_beside_a_heading(button)
    if text.endswith(("?", "？")):
        return True
    opens = any(key in button.attrib for key in _OPENS)
    named = f"{button.get('class') or ''} {button.get('id') or ''}"
    return len(text.split()) >= 3 and (opens or _OPENED.search(named) is not None)


def _is_page(form: Any) -> bool:
    """Whether a form is around text, as some servers wrap it around every page."""
    if next(form.iter("h1", "h2", "h3", "main", "article"), None) is not None:
        return True
    texts = (node.text or "" for node in islice(form.iter("p", "li", "td", "div", "span", "pre", "dd"), _LOOKED_AT))
    return sum(len(text.split()) for text in texts) >= _FORM_WORDS


def _is_permalink(link: Any) -> bool:
    """Whether a link is the sign beside a heading, not the heading itself or what stands around it."""
    named = not _PERMALINKS.isdisjoint((link.get("class") or "").split())
    if not _WORD.search(_text(link)):
        return named or _heading_above(link) is not None
    return named and next(link.iter(*_HEADINGS), None) is None and _stands_beside_a_heading(link)


def _stands_beside_a_heading(node: Any) -> bool:
    """Whether a heading has words beside those of this element in it."""
    heading = _heading_above(node)
    return heading is not None and len(_WORD.findall(_text(heading))) > len(_WORD.findall(_text(node)))


def _heading_above(node: Any) -> Any:
    return next((above for above in islice(node.iterancestors(), 3) if above.tag in _HEADINGS), None)


def _text(node: Any) -> str:
    texts: Iterable[str] = islice(node.itertext(), _LOOKED_AT)
    return "".join(texts)
