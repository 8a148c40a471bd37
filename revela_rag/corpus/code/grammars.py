"""What definitions, imports and documentation look like in each tree-sitter grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["GRAMMARS", "Grammar", "language_object"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """Node types of one tree-sitter grammar that matter for chunking.

    Attributes:
        module: Python package of the grammar.
        functions: definitions that become chunks as a whole.
        classes: definitions with members: a header chunk, then their members.
        transparent: nodes looked into without being definitions (bodies, namespaces, conditional compilation).
        wrappers: nodes that only wrap a definition (decorators, export, template).
        imports: top-level nodes that say nothing about what the code does; of those with a body (namespaces) the first
            and the last rows, and the same inside.
        function: attribute of the package that returns the language.
        line_comments_document: whether plain line comments above a definition are its documentation.
        values: properties and the like, definitions where a comment stands above or they are long.
        namespaces: definitions with members that are no chunk where they hold nothing but other definitions; those
            carry the name.
        bodies: nodes that a definition's signature ends before, where its body is in no field of that name.
        names: what definitions without a name of their own are called.
        import_text: what other top-level nodes of one row look like that say nothing either.
        indented: whether blocks end by indentation, and then swallow the comment above what follows.
        nested_comments: whether the parser looks for the end of each of many comments without one.
    """

    module: str
    functions: frozenset[str]
    classes: frozenset[str]
    transparent: frozenset[str]
    wrappers: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    function: str = "language"
    line_comments_document: bool = False
    values: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    bodies: frozenset[str] = frozenset()
    names: dict[str, str] = field(default_factory=dict)
    import_text: re.Pattern[str] | None = None
    indented: bool = False
    nested_comments: bool = False


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


_JAVASCRIPT = {
    "functions": _set(
        "function_declaration generator_function_declaration method_definition lexical_declaration "
        "variable_declaration public_field_definition field_definition function_signature method_signature "
        "abstract_method_signature expression_statement"
    ),
    "classes": _set("class_declaration abstract_class_declaration interface_declaration enum_declaration"),
    "transparent": _set(
        "class_body interface_body internal_module module statement_block ambient_declaration expression_statement"
    ),
    "wrappers": _set("export_statement"),
    "imports": _set("import_statement"),
}
_C = {
    "functions": _set("function_definition declaration field_declaration type_definition"),
    "classes": _set("struct_specifier class_specifier union_specifier enum_specifier"),
    "transparent": _set(
        "field_declaration_list namespace_definition declaration_list linkage_specification preproc_ifdef "
        "preproc_if preproc_else preproc_elif"
    ),
    "wrappers": _set("template_declaration"),
    "imports": _set("preproc_include using_declaration"),
    "import_text": re.compile(r"#[ \t]*pragma[ \t]+once\b"),
    "line_comments_document": True,
}

GRAMMARS: dict[str, Grammar] = {
    "python": Grammar(
        "tree_sitter_python",
        functions=_set("function_definition"),
        classes=_set("class_definition"),
        transparent=_set("block if_statement else_clause elif_clause try_statement except_clause with_statement"),
        wrappers=_set("decorated_definition"),
        imports=_set("import_statement import_from_statement future_import_statement"),
    ),
    "javascript": Grammar("tree_sitter_javascript", **_JAVASCRIPT),  # type: ignore[arg-type]
    "typescript": Grammar("tree_sitter_typescript", function="language_typescript", **_JAVASCRIPT),  # type: ignore[arg-type]
    "tsx": Grammar("tree_sitter_typescript", function="language_tsx", **_JAVASCRIPT),  # type: ignore[arg-type]
    "java": Grammar(
        "tree_sitter_java",
        functions=_set("method_declaration constructor_declaration compact_constructor_declaration"),
        classes=_set(
            "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration"
        ),
        transparent=_set("class_body interface_body enum_body enum_body_declarations annotation_type_body"),
        imports=_set("import_declaration package_declaration"),
    ),
    "go": Grammar(
        "tree_sitter_go",
        functions=_set("function_declaration method_declaration type_declaration"),
        classes=frozenset(),
        transparent=frozenset(),
        imports=_set("import_declaration package_clause"),
        line_comments_document=True,
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        functions=_set(
            "function_item struct_item enum_item union_item type_item macro_definition function_signature_item"
        ),
        classes=_set("impl_item trait_item"),
        transparent=_set("declaration_list mod_item foreign_mod_item"),
        imports=_set("use_declaration extern_crate_declaration"),
    ),
    "c": Grammar("tree_sitter_c", **_C),  # type: ignore[arg-type]
    "cpp": Grammar("tree_sitter_cpp", **_C),  # type: ignore[arg-type]
    "csharp": Grammar(
        "tree_sitter_c_sharp",
        functions=_set(
            "method_declaration constructor_declaration destructor_declaration operator_declaration "
            "conversion_operator_declaration local_function_statement delegate_declaration"
        ),
        values=_set("property_declaration indexer_declaration event_declaration event_field_declaration"),
        classes=_set("class_declaration struct_declaration interface_declaration record_declaration enum_declaration"),
        transparent=_set(
            "declaration_list namespace_declaration global_statement preproc_if preproc_else preproc_elif"
        ),
        imports=_set(
            "using_directive extern_alias_directive file_scoped_namespace_declaration namespace_declaration "
            "preproc_nullable"
        ),
        bodies=_set("accessor_list arrow_expression_clause"),
        names={
            "indexer_declaration": "this",
            "operator_declaration": "operator",
            "conversion_operator_declaration": "operator",
        },
    ),
    "kotlin": Grammar(
        "tree_sitter_kotlin",
        functions=_set("function_declaration secondary_constructor type_alias"),
        values=_set("property_declaration"),
        classes=_set("class_declaration object_declaration"),
        transparent=_set("class_body enum_class_body companion_object"),
        imports=_set("import package_header file_annotation"),
        bodies=_set("class_body enum_class_body function_body block getter setter property_delegate ="),
        names={"secondary_constructor": "constructor"},
    ),
    "php": Grammar(
        "tree_sitter_php",
        function="language_php",
        functions=_set("function_definition method_declaration"),
        classes=_set("class_declaration interface_declaration trait_declaration enum_declaration"),
        transparent=_set(
            "declaration_list enum_declaration_list namespace_definition compound_statement colon_block "
            "if_statement else_clause"
        ),
        imports=_set("php_tag namespace_definition namespace_use_declaration declare_statement"),
        import_text=re.compile(r"(?:require|include)(?:_once)?\b"),
    ),
    "ruby": Grammar(
        "tree_sitter_ruby",
        functions=_set("method singleton_method"),
        classes=_set("class module"),
        transparent=_set("body_statement singleton_class call do_block assignment if unless then else elsif begin"),
        wrappers=_set("call argument_list"),
        namespaces=_set("module"),
        import_text=re.compile(
            r"(?:require|require_relative|load)\b[ (]*['\"]|#[ \t]*(?:-\*-|\w+_literals?:|encoding:)"
        ),
        line_comments_document=True,
    ),
    "scala": Grammar(
        "tree_sitter_scala",
        functions=_set("function_definition function_declaration type_definition given_definition"),
        values=_set("val_definition var_definition val_declaration var_declaration"),
        classes=_set(
            "class_definition object_definition trait_definition enum_definition package_object extension_definition"
        ),
        transparent=_set("template_body enum_body with_template_body package_clause"),
        imports=_set("import_declaration package_clause end_marker"),
        bodies=_set("="),
        indented=True,
    ),
    "swift": Grammar(
        "tree_sitter_swift",
        functions=_set(
            "function_declaration init_declaration deinit_declaration subscript_declaration typealias_declaration "
            "protocol_function_declaration macro_declaration"
        ),
        values=_set("property_declaration protocol_property_declaration"),
        classes=_set("class_declaration protocol_declaration"),
        transparent=_set("class_body enum_class_body protocol_body"),
        imports=_set("import_declaration"),
        bodies=_set("computed_property protocol_property_requirements ="),
        names={"init_declaration": "init", "deinit_declaration": "deinit", "subscript_declaration": "subscript"},
        nested_comments=True,
    ),
}


@cache
def language_object(name: str) -> Any:
    """The tree-sitter ``Language`` of a name in :data:`GRAMMARS`."""
    from tree_sitter import Language

    grammar = GRAMMARS[name]
    return Language(getattr(import_module(grammar.module), grammar.function)())
