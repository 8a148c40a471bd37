"""Where the definitions of a source file are: functions, classes, their documentation and their members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from revela_rag.corpus.languages import GRAMMARS, Grammar, language_object

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
_ATTACHED = frozenset({"attribute_item", "decorator"})
_NAMES = frozenset(
    {
        "identifier",
        "field_identifier",
        "type_identifier",
        "qualified_identifier",
        "property_identifier",
        "operator_name",
        "destructor_name",
    }
)


@dataclass(slots=True)
class Definition:
    """A function, method or class in rows of its file (0-based, ends included).

    Attributes:
        symbol: qualified name, ``Class.method``.
        scope: qualified name of what it is defined in, empty at top level.
        first_row: first row including attached comments, attributes and decorators.
        start_row: row of the definition itself (its decorators included).
        end_row: last row.
        comment: source of the comments directly above, empty without.
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
    comment: str = ""
    doc_rows: range = range(0)
    docstring: str = ""
    signature: str = ""
    is_class: bool = False
    members: list[Definition] = field(default_factory=list)


@dataclass(slots=True)
class Outline:
    """Definitions of one file in source order.

    Attributes:
        definitions: those at top level; members hang below their class.
        import_rows: rows that hold nothing but imports.
        comment_rows: rows of top-level comments.
        error_share: share of the source bytes the parser could not place, 0 to 1.
    """

    definitions: list[Definition]
    import_rows: set[int]
    comment_rows: set[int]
    error_share: float


def outline(source: bytes, language: str) -> Outline:
    """Parse ``source`` and list its definitions.

    Walks with explicit stacks, so that deeply nested source cannot exhaust Python's.

    Args:
        source: UTF-8 source code.
        language: a key of :data:`~revela_rag.corpus.languages.GRAMMARS`.
    """
    from tree_sitter import Parser

    grammar = GRAMMARS[language]
    root = Parser(language_object(language)).parse(source).root_node
    result = Outline([], set(), set(), _error_share(root, len(source)))
    pending: list[tuple[Any, str, list[Definition], int]] = [(root, "", result.definitions, -1)]
    while pending:
        container, scope, found, covered = pending.pop()
        for node, leading in _candidates(container, grammar):
            inner = _unwrap(node, grammar)
            if not _is_definition(inner, bool(leading)) or node.start_point[0] <= covered:
                continue
            definition = _define(node, inner, leading, scope, grammar, language)
            found.append(definition)
            covered = definition.end_row
            if definition.is_class:
                body = inner.child_by_field_name("body")
                if body is not None:
                    pending.append((body, definition.symbol, definition.members, definition.start_row))
    for node in root.children:
        if node.type in grammar.imports:
            result.import_rows.update(_rows(node))
        elif "comment" in node.type:
            result.comment_rows.update(_rows(node))
    return result


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
        trailing = node.start_point[0] == last_row  # a comment behind code belongs to that code
        if leading and node.start_point[0] - _last_row(leading[-1]) > 1:
            leading = []
        if "comment" in node.type or node.type in _ATTACHED:
            if not trailing:
                leading.append(node)
            continue
        last_row = _last_row(node)
        kind = node.type
        if kind in grammar.functions or kind in grammar.classes or kind in grammar.wrappers:
            yield node, leading
        if kind in grammar.transparent or kind == "ERROR":
            stack.append(iter(node.children))
        leading = []


def _unwrap(node: Any, grammar: Grammar) -> Any:
    while node.type in grammar.wrappers:
        wanted = grammar.functions | grammar.classes | grammar.wrappers
        inner = next((child for child in node.children if child.type in wanted), None)
        if inner is None:
            return node
        node = inner
    return node


def _is_definition(node: Any, documented: bool) -> bool:
    if node.type in _FUNCTION_VALUED:
        return _function_value(node) is not None
    if node.type in _DOCUMENTED_ONLY:
        return documented and (node.type == "type_definition" or _declares_function(node))
    return node.type not in ("export_statement", "template_declaration", "decorated_definition")


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


def _define(node: Any, inner: Any, leading: list[Any], scope: str, grammar: Grammar, language: str) -> Definition:
    name = _name(inner)
    if inner.type == "method_declaration" and inner.child_by_field_name("receiver") is not None:
        scope = _receiver(inner)
    symbol = f"{scope}.{name}" if scope and name else name or scope
    first = leading[0].start_point[0] if leading else node.start_point[0]
    value = _function_value(inner) if inner.type in _FUNCTION_VALUED else None
    body = (value if value is not None else inner).child_by_field_name("body")
    end = body.start_byte if body is not None else inner.end_byte
    source: bytes = inner.text or b""
    result = Definition(
        symbol=symbol,
        scope=scope,
        first_row=first,
        start_row=node.start_point[0],
        end_row=_last_row(node),
        comment="\n".join(_text(item) for item in leading if item.type not in _ATTACHED),
        signature=" ".join(source[: end - inner.start_byte].decode("utf-8", "replace").split()),
        is_class=inner.type in grammar.classes,
    )
    if language == "python" and body is not None:
        string = _docstring(body)
        if string is not None:
            result.docstring = _text(string)
            result.doc_rows = range(string.start_point[0], _last_row(string) + 1)
    return result


def _docstring(body: Any) -> Any:
    first = next((child for child in body.children if child.is_named and child.type != "comment"), None)
    if first is not None and first.type == "expression_statement" and first.child_count == 1:
        first = first.children[0]
    return first if first is not None and first.type == "string" else None


def _name(node: Any) -> str:
    for _ in range(32):
        if node.type in _NAMES:
            return _text(node)
        name = node.child_by_field_name("name") or node.child_by_field_name("property")
        if name is not None:
            return _text(name)
        deeper = (
            node.child_by_field_name("declarator")
            or node.child_by_field_name("left")
            or node.child_by_field_name("type")
        )
        if deeper is None:
            kinds = ("variable_declarator", "assignment_expression", "type_spec")
            deeper = next((child for child in node.children if child.type in kinds), None)
        if deeper is None:
            deeper = next((child for child in node.children if child.type in _NAMES), None)
        if deeper is None:
            break
        node = deeper
    return ""


def _receiver(node: Any) -> str:
    text = _text(node.child_by_field_name("receiver")).strip("()")
    return text.split("[")[0].split()[-1].lstrip("*") if text.split("[")[0].split() else ""


def _error_share(root: Any, size: int) -> float:
    """Share of the bytes inside ERROR nodes; only subtrees with errors are visited."""
    lost, stack = 0, [root] if root.has_error else []
    while stack:
        node = stack.pop()
        if node.type == "ERROR":
            lost += node.end_byte - node.start_byte
        else:
            stack.extend(child for child in node.children if child.has_error)
    return lost / max(size, 1)


def _rows(node: Any) -> range:
    return range(node.start_point[0], _last_row(node) + 1)


def _last_row(node: Any) -> int:
    row, column = node.end_point
    return row - 1 if column == 0 and row > node.start_point[0] else row


def _text(node: Any) -> str:
    return (node.text or b"").decode("utf-8", "replace")
