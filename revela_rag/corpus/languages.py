"""Which file name means which format, and what definitions look like in each grammar."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

__all__ = ["GRAMMARS", "PROSE_FORMATS", "Grammar", "format_of", "language_object"]

PROSE_FORMATS = frozenset({"text", "markdown", "rst", "html", "pdf", "notebook"})

_EXTENSIONS = {
    "markdown": "md markdown mdx mdown mkd qmd rmd",
    "text": "txt text log adoc asciidoc org tex",
    "rst": "rst rest",
    "html": "html htm xhtml",
    "pdf": "pdf",
    "notebook": "ipynb",
    "python": "py pyi pyw pyx",
    "javascript": "js jsx mjs cjs",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "java": "java",
    "go": "go",
    "rust": "rs",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ cu cuh ino",
    "csharp": "cs",
    "kotlin": "kt kts",
    "scala": "scala sc",
    "swift": "swift",
    "ruby": "rb rake",
    "php": "php",
    "shell": "sh bash zsh fish",
    "powershell": "ps1 psm1",
    "sql": "sql",
    "r": "r",
    "julia": "jl",
    "lua": "lua",
    "perl": "pl pm",
    "haskell": "hs",
    "ocaml": "ml mli",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "clojure": "clj cljs cljc",
    "dart": "dart",
    "groovy": "groovy gradle",
    "objective-c": "m mm",
    "fortran": "f f90 f95",
    "protobuf": "proto",
    "graphql": "graphql gql",
    "terraform": "tf",
    "vue": "vue svelte",
}
_BY_EXTENSION = {ext: name for name, exts in _EXTENSIONS.items() for ext in exts.split()}
_BY_NAME = {
    "readme": "text",
    "changelog": "text",
    "changes": "text",
    "contributing": "text",
    "news": "text",
    "notes": "text",
    "todo": "text",
    "faq": "text",
    "install": "text",
    "makefile": "make",
    "dockerfile": "dockerfile",
    "jenkinsfile": "groovy",
}


def format_of(name: str) -> str | None:
    """Format a file name stands for (``"markdown"``, ``"python"``, …), or None when it is of no known kind."""
    path = PurePosixPath(name)
    extension = path.suffix[1:].lower()
    return _BY_EXTENSION.get(extension) if extension else _BY_NAME.get(path.name.lower())


@dataclass(frozen=True, slots=True)
class Grammar:
    """Node types of one tree-sitter grammar that matter for chunking.

    Attributes:
        module: Python package of the grammar.
        function: attribute of the package that returns the language.
        functions: definitions that become chunks as a whole.
        classes: definitions with members: a header chunk, then their members.
        transparent: nodes looked into without being definitions (bodies, namespaces, conditional compilation).
        wrappers: nodes that only wrap a definition (decorators, export, template).
        imports: top-level nodes that say nothing about what the code does.
        line_comments_document: whether plain line comments above a definition are its documentation.
    """

    module: str
    functions: frozenset[str]
    classes: frozenset[str]
    transparent: frozenset[str]
    wrappers: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    function: str = "language"
    line_comments_document: bool = False


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
}


@cache
def language_object(name: str) -> Any:
    """The tree-sitter ``Language`` of a name in :data:`GRAMMARS`."""
    from tree_sitter import Language

    grammar = GRAMMARS[name]
    return Language(getattr(import_module(grammar.module), grammar.function)())
