"""Source code to chunks: functions, methods, class headers, and what is left between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import dropwhile
from pathlib import PurePosixPath

from revela_rag.corpus.code.comments import (
    clean_comment,
    clean_docstring,
    first_paragraph,
    is_boilerplate,
    looks_like_code,
)
from revela_rag.corpus.code.grammars import GRAMMARS
from revela_rag.corpus.code.licences import comment_rows, licence_rows
from revela_rag.corpus.code.lines import Line, join_lines, numbered_lines, split_lines
from revela_rag.corpus.code.outline import Definition, Outline, outline
from revela_rag.corpus.draft import Draft
from revela_rag.corpus.formats.config import CONFIG_FORMATS, config_pieces
from revela_rag.corpus.formats.names import format_of
from revela_rag.corpus.types import Document, Part

__all__ = ["MAX_CODE_LINES", "chunk_code"]

#: A piece of code holds at most this many lines, and at most twice the words of a piece of prose.
MAX_CODE_LINES = 60
#: Above this share of unparsable bytes the grammar is not trusted and the file is cut into windows of lines.
MAX_ERROR_SHARE = 0.3
#: Undocumented members of a class up to this many lines (getters, one-line delegates) stay in the class header.
TRIVIAL_LINES = 3

_EMPTY_BODY = re.compile(r"(?:pass|\.\.\.|return(?: None)?;?|raise NotImplementedError.*|[{}\s;]*+)\s*$")
_WORD = re.compile(r"[A-Za-z]+")
_DIRECTIVE = re.compile(r"#!")
_SHELLS = {
    "csharp": re.compile(r"[ \t]*#[ \t]*(?:end)?(?:region|if)\b|[ \t]*#[ \t]*(?:else|elif|pragma|nullable)\b"),
    "swift": re.compile(r"[ \t]*#(?:if|elseif|else|endif)\b|#!"),
    "php": re.compile(
        r"[ \t]*(?:\}[ \t]*)?(?:if[ \t]*\([ \t]*!?[ \t]*(?:function|class|interface|trait|enum)_exists[ \t]*\([^()]*\)"
        r"[ \t]*\)[ \t]*[{:]?|else[ \t]*\{|endif;)[ \t]*$|[ \t]*(?:<\?php|\?>)[ \t]*$"
    ),
}


def chunk_code(document: Document, *, max_words: int = 120, parse: bool = True) -> list[Draft]:
    """Cut source code at its definitions.

    Functions and methods become a piece each (with decorators and the comment above), classes a header piece: their
    documentation, fields, short undocumented members in full and the signatures of the others. Top-level code
    between definitions becomes pieces of its own, without imports and licence headers. Anything longer than
    ``2 * max_words`` words or 60 lines is split between lines, preferring blank and least indented ones. Configuration
    files are cut between their top-level keys or blocks, see
    :func:`~revela_rag.corpus.formats.config.config_pieces`. Languages without a grammar and files that do not parse
    become windows of lines under the same limits, without the licence that may open them.

    Args:
        document: source code and its language.
        max_words: of a piece of prose (default 120).
        parse: False cuts it as a language without a grammar.
    """
    lines = numbered_lines(document.text)
    limit = 2 * max_words
    language = document.format
    if parse and language in GRAMMARS:
        parsed = outline(document.text.encode("utf-8", "replace"), language)
        if parsed and parsed.error_share - parsed.saved_share <= MAX_ERROR_SHARE:
            drafts = list(_from_outline(document, lines, parsed, limit))
            if drafts:
                return drafts
    licence = licence_rows(lines, comment_rows(lines))
    rest = [line for line in lines if line.row not in licence]
    if licence and any(line.text.strip() for line in rest):
        lines = list(dropwhile(lambda line: not line.text.strip(), rest))
    if language in CONFIG_FORMATS:
        named = config_pieces(lines, language, max_words=limit, max_lines=MAX_CODE_LINES)
        pieces = [(piece, name) for piece, name in named if any(line.text.strip() for line in piece)]
    else:
        pieces = [(piece, "") for piece in split_lines(lines, max_words=limit, max_lines=MAX_CODE_LINES)]
    title = _document_title(document)
    return [
        Draft(
            "code",
            join_lines(piece),
            " ".join(filter(None, (title, name))),
            (),
            _where(document, piece, name),
            rows=_rows(piece),
        )
        for piece, name in pieces
    ]


def _from_outline(document: Document, lines: list[Line], parsed: Outline, limit: int) -> Iterator[Draft]:
    licence = licence_rows(lines, parsed.comment_rows)
    for item in parsed.definitions:
        item.drop_comment_rows(licence)
    pending = list(reversed(parsed.definitions))
    gaps = list(_leftovers(document, lines, parsed, licence, limit))
    while pending:
        definition = pending.pop()
        while gaps and gaps[0].first_row < definition.first_row:
            yield gaps.pop(0)
        own = [member for member in definition.members if not _trivial(member)]
        yield from _define(document, lines, definition, own, licence, limit)
        pending.extend(reversed(own))
    yield from gaps


def _define(
    document: Document, lines: list[Line], item: Definition, own: list[Definition], licence: set[int], limit: int
) -> Iterator[Draft]:
    mine = [line for line in _own_lines(lines, item, own) if line.row not in licence]
    commented = range(item.first_row, item.start_row)
    body = [line for line in mine if line.row not in commented and line.row not in item.doc_rows]
    pieces = split_lines(mine, max_words=limit, max_lines=MAX_CODE_LINES)
    for number, piece in enumerate(pieces):
        parts: tuple[Part, ...] = ()
        if number == 0:
            first_body = next(iter(split_lines(body, max_words=limit, max_lines=MAX_CODE_LINES)), [])
            parts = _parts(document, item, join_lines(first_body))
        symbol = item.symbol if item.scope or number else ""
        title = " ".join(filter(None, (_spoken_title(document), symbol)))
        where, rows = _where(document, piece, item.symbol), _rows(piece)
        yield Draft("code", join_lines(piece), title, parts, where, piece[0].row, rows, item.signature)


def _own_lines(lines: list[Line], item: Definition, own: list[Definition]) -> Iterator[Line]:
    """The lines of a definition, with a signature in place of every member that has a chunk of its own."""
    starts = {member.first_row: member for member in own}
    row = item.first_row
    while row <= item.end_row:
        member = starts.get(row)
        if member is None:
            yield lines[row]
            row += 1
        else:
            head = lines[member.start_row].text
            indent = head[: len(head) - len(head.lstrip())]
            yield Line(row, indent + member.signature)
            row = member.end_row + 1


def _parts(document: Document, item: Definition, body: str) -> tuple[Part, ...]:
    role, doc = "docstring", clean_docstring(item.docstring) if item.docstring else ""
    if not doc and item.comment:
        doc = clean_comment(item.comment, document.format)
        documents = item.comment.lstrip().startswith(("/**", "///", "/*!", "//!")) or (
            document.format in GRAMMARS and GRAMMARS[document.format].line_comments_document
        )
        role = "docstring" if documents else "comment"
        if looks_like_code(doc):
            return ()
    if not doc:
        doc, role = _spoken_title(document), "title"
    if is_boilerplate(doc) or is_boilerplate(first_paragraph(doc)) or _is_empty(body):
        return ()
    return Part(role, doc), Part("body", body)


def _is_empty(body: str) -> bool:
    """Whether a body does nothing that a documentation could be about."""
    rest = [line.strip() for line in body.split("\n") if line.strip()]
    if len(rest) <= 1:
        return len(_WORD.findall(body)) < 5
    return _EMPTY_BODY.match(" ".join(rest[1:])) is not None


def _trivial(member: Definition) -> bool:
    return (
        not member.is_class
        and not member.docstring
        and (not member.comment or is_boilerplate(clean_comment(member.comment)))
        and member.end_row - member.start_row < TRIVIAL_LINES
    )


def _leftovers(
    document: Document, lines: list[Line], parsed: Outline, licence: set[int], limit: int
) -> Iterator[Draft]:
    """Top-level lines outside of every definition, without imports and licence headers; runs may span gaps."""
    covered = parsed.import_rows | licence
    for item in parsed.definitions:
        covered.update(range(item.first_row, item.end_row + 1))
    rest: list[Line] = []
    for line in lines:
        if line.row not in covered and (line.text.strip() or (rest and rest[-1].text)):
            rest.append(line)
    if not parsed.definitions and not any(line.text.strip() for line in rest):
        rest = [line for line in lines if line.row not in licence] or lines  # only imports: better found than lost
    for piece in split_lines(rest, max_words=limit, max_lines=MAX_CODE_LINES):
        text = join_lines(piece)
        if parsed.definitions and not _says_something(piece, document.format):
            continue
        yield Draft("code", text, _document_title(document), (), _where(document, piece), piece[0].row, _rows(piece))


def _says_something(piece: list[Line], language: str) -> bool:
    """Whether code between definitions is more than brackets, directives and conditions around them."""
    shells = _SHELLS.get(language, _DIRECTIVE)
    return any(_WORD.search(line.text) and not shells.match(line.text) for line in piece)


def _document_title(document: Document) -> str:
    """The name of the file for code outside of definitions, else the document's own title."""
    name = document.title if format_of(document.title) else document.id if format_of(document.id) else ""
    return _spoken_title(document) or PurePosixPath(name).name


def _spoken_title(document: Document) -> str:
    """The title where it is language rather than a path or an identifier."""
    return document.title if len(document.title.split()) > 1 else ""


def _rows(piece: Iterable[Line]) -> tuple[int, ...]:
    """The rows of the lines that `join_lines` leaves."""
    lines = list(dropwhile(lambda line: not line.text.strip(), piece))
    return tuple(line.row for line in reversed(list(dropwhile(lambda line: not line.text.strip(), reversed(lines)))))


def _where(document: Document, piece: Iterable[Line], symbol: str = "") -> dict[str, str | int | float | bool]:
    rows = [line.row for line in piece]
    where: dict[str, str | int | float | bool] = {
        "start_line": min(rows) + 1,
        "end_line": max(rows) + 1,
        "language": document.format,
    }
    return {**where, "symbol": symbol} if symbol else where
