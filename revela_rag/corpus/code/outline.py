"""Where the definitions of a source file are: functions, classes, their documentation and their members."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from revela_rag.corpus.code.comments import about_definition
from revela_rag.corpus.code.grammars import GRAMMARS, Grammar, language_object

__all__ = ["Definition", "Outline", "outline"]

#: Node types that are definitions only under a condition, see :func:`_is_definition`.
_FUNCTION_VALUED = frozenset(
    {
        "lexical_declaration",
        "variable_declaration",
        "public_field_definition",
        "field_definition",
        "expression_statement",
    }
)
_DOCUMENTED_ONLY = frozenset({"declaration", "field_declaration", "type_definition"})
_FUNCTION_VALUES = frozenset({"arrow_function", "function_expression", "function", "generator_function", "class"})
_ATTACHED = frozenset({"attribute_item", "decorator", "annotated_expression"})
#: Parsing may take this long, real files do several megabytes a second.
PARSE_SECONDS = 2.0
PARSE_SECONDS_PER_BYTE = 2e-6
_BLOCK_BYTES = 1024
_FEW_CHARACTERS = 16
_MAX_OPEN_COMMENTS = 200
_COMMENT_ENDS = re.compile(rb"/\*|\*/")
#: Properties of this many lines are definitions without documentation, too.
LONG_VALUE_LINES = 4
_NAMES = frozenset(
    {
        "identifier",
        "simple_identifier",
        "field_identifier",
        "type_identifier",
        "qualified_identifier",
        "property_identifier",
        "operator_name",
        "destructor_name",
    }
)
_AROUND_LICENCES = frozenset({"php_tag", "preproc_region", "preproc_endregion"})
_NAMED = frozenset({"variable_declarator", "variable_declaration", "assignment_expression", "type_spec"})


@dataclass(slots=True)
class Definition:
    """A function, method or class in rows of its file (0-based, ends included).

    Attributes:
        symbol: qualified name, ``Class.method``.
        scope: qualified name of what it is defined in, empty at top level.
        first_row: first row including attached comments, attributes and decorators.
        start_row: row of the definition itself (its decorators included).
        end_row: last row.
        comments: the comments directly above: their first rows and their sources.
        doc_rows: rows of a docstring inside the body (Python), empty without.
        docstring: source of that docstring, with its quotes.
        signature: the definition without its body, on one line.
        is_class: whether it has members of its own.
        members: definitions inside a class.
    """

    symbol: str
    scope: str
    first_row: int
    start_row: int
    end_row: int
    comments: list[tuple[int, str]] = field(default_factory=list)
    doc_rows: range = range(0)
    docstring: str = ""
    signature: str = ""
    is_class: bool = False
    members: list[Definition] = field(default_factory=list)

    @property
    def comment(self) -> str:
        """Source of the comments directly above that are about it, empty without: the last documentation, else all."""
        return about_definition([text for _, text in self.comments])

    def drop_comment_rows(self, rows: set[int]) -> None:
        """Take the lines in some rows for no comments of this definition."""
        kept = []
        for row, text in self.comments:
            left = [line for number, line in enumerate(text.split("\n"), row) if number not in rows]
            if left:
                kept.append((row, "\n".join(left)))
        self.comments = kept


@dataclass(slots=True)
class Outline:
    """Definitions of one file in source order.

    Attributes:
        definitions: those at top level; members hang below their class.
        import_rows: rows that hold nothing but imports.
        comment_rows: rows of nothing but top-level comments, of ``<?php`` and of ``#region``.
        error_share: share of the source bytes the parser could not place, 0 to 1.
        saved_share: the part of it that lies in definitions without errors: one slip can put a whole file in doubt.
    """

    definitions: list[Definition]
    import_rows: set[int]
    comment_rows: set[int]
    error_share: float
    saved_share: float


def outline(source: bytes, language: str) -> Outline | None:
    """Parse ``source`` and list its definitions; None where parsing takes longer than any real file does.

    Walks with explicit stacks, so that deeply nested source cannot exhaust Python's.

    Args:
        source: UTF-8 source code.
        language: a key of :data:`~revela_rag.corpus.code.grammars.GRAMMARS`.
    """
    grammar = GRAMMARS[language]
    root = _parse(source, language)
    if root is None:
        return None
    result = Outline([], set(), set(), *_error_shares(root, len(source), grammar))
    pending: list[tuple[Any, str, list[Definition], int]] = [(root, "", result.definitions, -1)]
    lists, shells = [result.definitions], set()
    while pending:
        container, scope, found, covered = pending.pop()
        for node, leading in _candidates(container, grammar):
            inner = _unwrap(node, grammar)
            if not _is_definition(inner, bool(leading), grammar) or node.start_point[0] <= covered:
                continue
            definition = _define(node, inner, leading, scope, language, source)
            covered = definition.end_row
            if inner.type in grammar.namespaces and not leading and _holds_only_definitions(inner, grammar):
                pending.append((inner, definition.symbol, found, definition.start_row))
                shells |= {definition.start_row, definition.end_row}
                continue
            found.append(definition)
            if definition.is_class:
                # in Python a comment before the first member is about the class
                body = inner.child_by_field_name("body") if language == "python" else inner
                pending.append((body or inner, definition.symbol, definition.members, definition.start_row))
                lists.append(definition.members)
    for found in lists:
        found.sort(key=lambda definition: definition.first_row)
    _note_imports(root, grammar, result, source)
    result.import_rows |= shells
    return result


def _parse(source: bytes, language: str) -> Any:
    """The root of the tree, or None where time runs out.

    A parser cannot be told to stop, but it stops at the end of the file, and so that is what it is told it has come to.
    The binding never frees what it is given piece by piece, so that only sources that repeat themselves are read so.
    """
    from tree_sitter import Parser

    parser = Parser(language_object(language))
    if not _repeats_itself(source):
        return parser.parse(source).root_node
    if GRAMMARS[language].nested_comments:
        marks = _COMMENT_ENDS.findall(source)
        if 2 * marks.count(b"/*") - len(marks) > _MAX_OPEN_COMMENTS:
            return None  # what takes the time then is not the reading
    deadline = time.monotonic() + PARSE_SECONDS + len(source) * PARSE_SECONDS_PER_BYTE
    late = False

    def read(offset: int, _point: object) -> bytes:
        nonlocal late
        late = late or time.monotonic() > deadline
        return b"" if late else source[offset : offset + _BLOCK_BYTES]

    tree = parser.parse(read)
    return None if late else tree.root_node


def _repeats_itself(source: bytes) -> bool:
    """Whether some block is made of few characters, as no code is that anybody wrote, but all is that takes long."""
    blocks = (source[at : at + _BLOCK_BYTES] for at in range(0, len(source) - _BLOCK_BYTES + 1, _BLOCK_BYTES))
    return any(len(set(block)) < _FEW_CHARACTERS for block in blocks)


def _note_imports(root: Any, grammar: Grammar, result: Outline, source: bytes) -> None:
    """Note the rows of imports and comments on which nothing else stands, at top level and in namespaces."""
    others: set[int] = set()
    pending = [root]
    while pending:
        for node in pending.pop().children:
            rows = _rows(node)
            if "comment" in node.type or node.type in _AROUND_LICENCES:
                result.comment_rows.update(rows)
            body = node.child_by_field_name("body")
            if node.type in grammar.imports and body is not None:
                result.import_rows.update(range(rows.start, body.start_point[0] + 1))
                result.import_rows.add(rows[-1])
                pending.append(body)
            elif node.type in grammar.imports or _reads_like_import(node, grammar, source):
                result.import_rows.update(rows)
            elif node.is_named and "comment" not in node.type and node.type not in _AROUND_LICENCES:
                others.update((rows.start, rows[-1]))
    result.import_rows -= others
    result.comment_rows -= others


def _reads_like_import(node: Any, grammar: Grammar, source: bytes) -> bool:
    text = grammar.import_text
    return text is not None and len(_rows(node)) == 1 and text.match(_text(node, source)) is not None


def _holds_only_definitions(node: Any, grammar: Grammar) -> bool:
    """Whether its own rows hold its name and nothing else."""
    body = node.child_by_field_name("body")
    return (
        body is not None
        and node.start_point[0] < body.start_point[0]
        and body.end_point[0] < node.end_point[0]
        and all(child.type in grammar.classes or "comment" in child.type for child in body.children)
    )


def _candidates(container: Any, grammar: Grammar) -> Iterator[tuple[Any, list[Any]]]:
    """Possible definitions below ``container`` in source order, with the comments and attributes directly above."""
    stack: list[Any] = [iter(container.children)]
    leading: list[Any] = []
    last_row = -1
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            leading = []
            continue
        kind = node.type
        trailing = node.start_point[0] == last_row  # a comment behind code belongs to that code
        if leading and node.start_point[0] - _last_row(leading[-1]) > 1:
            leading = []
        if "comment" in kind or kind in _ATTACHED:
            if not trailing:
                leading.append(node)
            continue
        last_row, swallowed = _end(node, grammar)
        if not node.is_named:  # a keyword may be called as the node it begins
            leading = []
            continue
        if kind in grammar.functions or kind in grammar.classes or kind in grammar.wrappers or kind in grammar.values:
            yield node, leading
        if kind in grammar.transparent or kind == "ERROR":
            stack.append(iter(node.children))  # where these begin with a definition, the comment above is about it
        else:
            leading = swallowed


def _end(node: Any, grammar: Grammar) -> tuple[int, list[Any]]:
    """The last row of a node, and the comments at its end that belong to what follows.

    A block that ends by indentation reaches up to the next token, over comments that are indented as little as what it
    is the body of.
    """
    if not grammar.indented:
        return _last_row(node), []
    column, swallowed = node.start_point[1], []
    while node.child_count:
        for child in reversed(node.children):
            if "comment" in child.type and child.start_point[1] <= column:
                swallowed.append(child)
            elif child.start_byte < child.end_byte:
                node = child
                break
        else:
            break
    return _last_row(node), swallowed[::-1]


def _unwrap(node: Any, grammar: Grammar) -> Any:
    while node.type in grammar.wrappers:
        wanted = grammar.functions | grammar.classes | grammar.wrappers | grammar.values
        inner = next((child for child in node.children if child.type in wanted), None)
        if inner is None:
            return node
        node = inner
    return node


def _is_definition(node: Any, documented: bool, grammar: Grammar) -> bool:
    if node.type in _FUNCTION_VALUED:
        return _function_value(node) is not None
    if node.type in _DOCUMENTED_ONLY:
        return documented and (node.type == "type_definition" or _declares_function(node))
    if node.type in grammar.values:
        return documented or len(_rows(node)) >= LONG_VALUE_LINES
    return node.type not in grammar.wrappers


def _function_value(node: Any) -> Any:
    """The function on the right of ``const f = …``, ``exports.f = …`` or a class field, or None."""
    for holder in (node, *node.children):
        for name in ("value", "right"):
            value = holder.child_by_field_name(name)
            if value is not None and value.type in _FUNCTION_VALUES:
                return value
    return None


def _declares_function(node: Any) -> bool:
    """Whether a C declaration is a prototype rather than a variable or field."""
    for _ in range(8):
        node = node.child_by_field_name("declarator")
        if node is None or node.type == "function_declarator":
            break
    return node is not None


def _define(node: Any, inner: Any, leading: list[Any], scope: str, language: str, source: bytes) -> Definition:
    grammar = GRAMMARS[language]
    name = grammar.names.get(inner.type) or _name(inner, source)
    if inner.type == "method_declaration" and inner.child_by_field_name("receiver") is not None:
        scope = _receiver(inner, source)
    symbol = f"{scope}.{name}" if scope and name else name or scope
    first = leading[0].start_point[0] if leading else node.start_point[0]
    value = _function_value(inner) if inner.type in _FUNCTION_VALUED else None
    body = _body(value if value is not None else inner, grammar)
    end = body.start_byte if body is not None else inner.end_byte
    result = Definition(
        symbol=symbol,
        scope=scope,
        first_row=first,
        start_row=node.start_point[0],
        end_row=_end(node, grammar)[0],
        comments=[(item.start_point[0], _text(item, source)) for item in leading if item.type not in _ATTACHED],
        signature=" ".join(source[inner.start_byte : end].decode("utf-8", "replace").split()),
        is_class=inner.type in grammar.classes,
    )
    if language == "python" and body is not None:
        string = _docstring(body)
        if string is not None:
            result.docstring = _text(string, source)
            result.doc_rows = range(string.start_point[0], _last_row(string) + 1)
    return result


def _body(node: Any, grammar: Grammar) -> Any:
    body = node.child_by_field_name("body")
    if body is None and grammar.bodies:
        body = next((child for child in node.children if child.type in grammar.bodies), None)
    return body


def _docstring(body: Any) -> Any:
    first = next((child for child in body.children if child.is_named and child.type != "comment"), None)
    if first is not None and first.type == "expression_statement" and first.child_count == 1:
        first = first.children[0]
    return first if first is not None and first.type == "string" else None


def _name(node: Any, source: bytes) -> str:
    for _ in range(32):
        if node.type in _NAMES:
            return _text(node, source)
        for field_name in ("name", "property", "pattern"):
            name = node.child_by_field_name(field_name)
            if name is not None:
                return _text(name.child_by_field_name("bound_identifier") or name, source)
        deeper = node.child_by_field_name("declarator") or node.child_by_field_name("left")
        if deeper is None:
            deeper = next((child for child in node.children if child.type in _NAMED), None)
        if deeper is None:
            deeper = node.child_by_field_name("type") or node.child_by_field_name("return_type")
        if deeper is None:
            deeper = next((child for child in node.children if child.type in _NAMES), None)
        if deeper is None:
            break
        node = deeper
    return ""


def _receiver(node: Any, source: bytes) -> str:
    text = _text(node.child_by_field_name("receiver"), source).strip("()")
    return text.split("[")[0].split()[-1].lstrip("*") if text.split("[")[0].split() else ""


def _error_shares(root: Any, size: int, grammar: Grammar) -> tuple[float, float]:
    """Shares of the bytes inside ERROR nodes, and inside definitions there; only subtrees with errors are visited."""
    lost, saved, stack = 0, 0, [root] if root.has_error else []
    while stack:
        node = stack.pop()
        if node.type == "ERROR":
            lost += node.end_byte - node.start_byte
            for child in node.children:
                if not child.has_error and (child.type in grammar.functions or child.type in grammar.classes):
                    saved += child.end_byte - child.start_byte
        else:
            stack.extend(child for child in node.children if child.has_error)
    return lost / max(size, 1), saved / max(size, 1)


def _rows(node: Any) -> range:
    return range(node.start_point[0], _last_row(node) + 1)


def _last_row(node: Any) -> int:
    row, column = node.end_point
    return row - 1 if column == 0 and row > node.start_point[0] else row


def _text(node: Any, source: bytes) -> str:
    """What stands in a node; its own ``text`` would read the file again and keep what it read."""
    return source[node.start_byte : node.end_byte].decode("utf-8", "replace")
