"""AsciiDoc: headings, blocks, tables and attributes."""

from __future__ import annotations

import re

from revela_rag.corpus.formats.markup.page import Page
from revela_rag.corpus.prose.sections import clean_heading
from revela_rag.corpus.text import squeeze

__all__ = ["read_asciidoc"]

_HEADING = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*)")
_UNDERLINES = {"=": 1, "-": 2, "~": 3, "^": 4, "+": 5}
_UNDERLINE = re.compile(r"([=\-~^+])\1{2,}[ \t]*")
_ATTRIBUTE = re.compile(r":(!?[\w-]+!?):(?:[ \t]+(.*))?")
#: What frames code, which is kept as it is, and what frames text, which is read.
_VERBATIM = re.compile(r"(-{4,}|\.{4,}|`{3,}|\+{4,})[\w+#-]*[ \t]*")
_COMMENT = re.compile(r"/{4,}[ \t]*")
_FRAME = re.compile(r"(?:={4,}|\*{4,}|_{4,}|-{2}|\+)[ \t]*")
_TABLE = re.compile(r"[|!,:]={3,}[ \t]*")
#: Lines that say how to show or where to find what is not here.
_DIRECTIVE = re.compile(
    r"\[\[[^\[\]]*\]\][ \t]*|\[[^\[\]]*\][ \t]*|//(?!/).*|"
    r"(?:include|ifdef|ifndef|ifeval|endif|image|video|audio|toc)::.*"
)
_BLOCK_TITLE = re.compile(r"\.(?=[^\s.])")
_ANCHOR = re.compile(r"\[\[[^\[\]]*\]\]|\[#[^\[\]]*\]")
_LINK = re.compile(
    r"<<[^<>,]*,([^<>]*)>>|(?:xref|link|mailto):[^\s\[\]]{0,500}\[([^\[\]]+)\]|https?://[^\s\[\]]{1,500}\[([^\[\]^]+)\^?\]"
)
_NAME = re.compile(r"\{([\w-]+)\}")
_CELL = re.compile(r"(?:(?<!\S)(?:\d*(?:\.\d+)?[+*])?[<^>.]{0,4}[aehlmsdv]?)?\|")
_COLUMNS = re.compile(r"cols=(?:\"([^\"]*)\"|([^,\]]*))")
_ABOUT = ("description", "keywords")


def read_asciidoc(text: str) -> Page:
    """An AsciiDoc document on as many lines as it has, without what only says how to show it."""
    reader = _Reader(text.split("\n"))
    reader.read()
    return reader.page()


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._out = [""] * len(lines)
        self._names: dict[str, str] = {}
        self._headings: list[tuple[int, str, int, int]] = []  # level, words, first row, row behind
        self._code: list[tuple[int, int]] = []  # rows

    def read(self) -> None:
        at, style = 0, ""
        in_header = True
        while at < len(self._lines):
            line = self._lines[at].rstrip()
            if verbatim := _VERBATIM.fullmatch(line):
                at = self._verbatim(at, verbatim.group(1))
            elif _COMMENT.fullmatch(line):
                at = self._end(at, line) + 1
            elif _TABLE.fullmatch(line):
                at = self._table(at, style)
            elif at_heading := self._heading(at):
                at = at_heading
                in_header = in_header and len(self._headings) == 1
                if in_header:
                    at = self._header(at)
                    in_header = False
            else:
                self._line(at, line)
                at += 1
            style = line if line.startswith("[") else "" if line.strip() else style

    def _line(self, at: int, line: str) -> None:
        if attribute := _ATTRIBUTE.fullmatch(line):
            self._names[attribute.group(1).strip("!").lower()] = (attribute.group(2) or "").strip()
        elif not _FRAME.fullmatch(line) and not _DIRECTIVE.fullmatch(line):
            self._out[at] = self._words(_BLOCK_TITLE.sub("", line, count=1))

    def _header(self, at: int) -> int:
        """What follows the title without a blank line: authors, a revision, attributes."""
        while at < len(self._lines) and self._lines[at].strip():
            if _ATTRIBUTE.fullmatch(self._lines[at].rstrip()):
                self._line(at, self._lines[at].rstrip())
            at += 1
        return at

    def _heading(self, at: int) -> int:
        """Row behind the heading that begins in a row, or 0."""
        line = self._lines[at].rstrip()
        above = self._lines[at - 1].strip() if at else ""
        if match := _HEADING.fullmatch(line):
            level, words, rows = len(match.group(1)), match.group(2), 1
            bare = words.rstrip("=#")
            words = bare if bare.endswith(" ") else words
        else:
            below = self._lines[at + 1].rstrip() if at + 1 < len(self._lines) else ""
            is_title = line[:1].isalnum() and not above and len(line) <= 200
            if not is_title or not _UNDERLINE.fullmatch(below) or abs(len(below) - len(line)) > 2:
                return 0
            level, words, rows = _UNDERLINES[below[0]], line, 2
        title = clean_heading(self._words(_ANCHOR.sub("", words)))
        if not title:
            return 0
        self._headings.append((level, title, at, at + rows))
        self._out[at] = line
        return at + rows

    def _verbatim(self, at: int, mark: str) -> int:
        end = self._end(at, mark)
        self._out[at : end + 1] = self._lines[at : end + 1]
        self._code.append((at, min(end, len(self._lines) - 1)))
        return end + 1

    def _end(self, at: int, mark: str) -> int:
        mark = mark.strip()
        return next(
            (row for row in range(at + 1, len(self._lines)) if self._lines[row].rstrip() == mark), len(self._lines)
        )

    def _table(self, at: int, style: str) -> int:
        """Write one row on a line; cells may stand on a line each."""
        end = self._end(at, self._lines[at])
        if end == len(self._lines):
            return at + 1
        inside = self._lines[at + 1 : end]
        first = next((row for row, line in enumerate(inside) if line.strip()), 0)
        columns = _width(style) or len(_cells(inside[first])) if inside else 0
        named = "header" in style or not "".join(inside[first + 1 : first + 2]).strip()
        cells: list[str] = []
        for line in inside:
            if not line.strip() or line.startswith("//"):
                continue
            found = _cells(line)
            if cells and not _CELL.match(line.lstrip()):
                cells[-1] = squeeze(f"{cells[-1]} {found.pop(0)}")
            cells += found
        rows = [cells[n : n + columns] for n in range(0, len(cells), columns)] if columns else []
        written = [f"| {' | '.join(self._words(cell) for cell in row)} |" for row in rows]
        if named and len(written) > 1:
            written.insert(1, "|---" * columns + "|")
        room = end + 1 - at  # cells on one line each make more rows than lines only where columns are few
        self._out[at : at + room] = [*written[: room - 1], "\n".join(written[room - 1 :]), *[""] * room][:room]
        return end + 1

    def _words(self, line: str) -> str:
        line = _NAME.sub(lambda match: self._names.get(match.group(1).lower()) or match.group(), line)
        if "[" not in line and "<<" not in line:
            return line
        return _LINK.sub(lambda match: next(filter(None, match.groups()), ""), line)

    def page(self) -> Page:
        about = [self._names[key] for key in _ABOUT if self._names.get(key)]
        kept = {key: self._names[key] for key in _ABOUT if self._names.get(key)}
        if about and self._headings and self._headings[0][2:] == (0, 1) and len(self._out) > 1:
            self._out[1] = " ".join(squeeze(said) for said in about)
        starts = [0]
        for line in self._out:
            starts.append(starts[-1] + len(line) + 1)
        text = "\n".join(self._out)
        headings = [
            (level, self._words(words), starts[a], min(starts[b], len(text))) for level, words, a, b in self._headings
        ]
        verbatim = [(starts[a], starts[b] + len(self._out[b])) for a, b in self._code]
        return Page(text, headings=headings, verbatim=verbatim, metadata=dict(kept))


def _cells(line: str) -> list[str]:
    """Cells of a line; what stands before the first bar goes on with the cell above."""
    parts = _CELL.split(line)
    return [part.strip() for part in (parts[1:] if _CELL.match(line.lstrip()) else parts)]


def _width(style: str) -> int:
    """Number of columns that the attributes of a table name, or 0."""
    match = _COLUMNS.search(style)
    if match is None:
        return 0
    specs = (match.group(1) or match.group(2) or "").split(",")
    return sum(int(spec.split("*")[0]) if re.match(r"\d+\*", spec.strip()) else 1 for spec in specs)
