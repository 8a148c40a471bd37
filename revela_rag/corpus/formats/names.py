"""Which file name means which format."""

from __future__ import annotations

from pathlib import PurePosixPath

__all__ = ["DERIVED_FORMATS", "OFFICE_FORMATS", "PROSE_FORMATS", "format_of"]

#: What the library of the extra ``documents`` reads, named by the ends of their files.
OFFICE_FORMATS = frozenset({"docx", "pptx", "xlsx", "odt", "rtf", "epub"})
#: Formats of which a document has a text that is made of the file: its lines are not the file's.
DERIVED_FORMATS = frozenset({"pdf", "notebook", "eml", *OFFICE_FORMATS})
PROSE_FORMATS = frozenset({"text", "markdown", "rst", "html", "asciidoc", "org", "tex", *DERIVED_FORMATS})

_EXTENSIONS = {
    "markdown": "md markdown mdx mdown mkd qmd rmd",
    "text": "txt text log",
    "asciidoc": "adoc asciidoc asc",
    "org": "org",
    "tex": "tex ltx",
    "rst": "rst rest",
    "html": "html htm xhtml",
    "pdf": "pdf",
    "notebook": "ipynb",
    "eml": "eml",
    **{name: name for name in OFFICE_FORMATS},
    "python": "py pyi pyw pyx",
    "javascript": "js jsx mjs cjs",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "java": "java",
    "go": "go",
    "rust": "rs",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ cu cuh ino",
    "csharp": "cs csx",
    "kotlin": "kt kts",
    "scala": "scala sc sbt",
    "swift": "swift",
    "ruby": "rb rake gemspec ru",
    "php": "php phtml",
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
    "terraform": "tf tfvars",
    "hcl": "hcl nomad",
    "yaml": "yaml yml",
    "toml": "toml",
    "ini": "ini cfg conf properties",
    "dockerfile": "dockerfile containerfile",
    "vue": "vue svelte",
    "erb": "erb",
    "razor": "cshtml razor",
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
    "containerfile": "dockerfile",
    "jenkinsfile": "groovy",
    "rakefile": "ruby",
    "gemfile": "ruby",
}


def format_of(name: str) -> str | None:
    """Format a file name stands for (``"markdown"``, ``"python"``, …), or None when it is of no known kind."""
    path = PurePosixPath(name)
    extension = path.suffix[1:].lower()
    if extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension]
    first = path.name.lower().split(".")[0]  # variants are Dockerfile.dev
    return _BY_NAME.get(first) if not extension or _BY_NAME.get(first) == "dockerfile" else None
