"""AsciiDoc, Org, LaTeX, and Markdown under another name: headings, code, tables."""

import time

import pytest

from revela_rag.corpus import Document, chunk_document, load_corpus
from revela_rag.corpus.code.detect import looks_like_markdown
from revela_rag.corpus.formats.markup.asciidoc import read_asciidoc
from revela_rag.corpus.formats.markup.org import read_org
from revela_rag.corpus.formats.markup.tex import read_tex

ADOC = """= Operating the {product}
Jane Doe <jane@example.org>
v1.0, 2024-03-01
:toc:
:product: queue
:description: How to run it.

[[intro]]
The {product} keeps messages; see <<purge,how to purge>> and https://example.org/a[the page^].

[#purge]
== [[p]]Purge a queue

.A command
[source,bash]
----
# purge all

== not a heading
qctl purge {product}
----

// a comment
////
== Hidden
////

=== Only old ones ===

NOTE: It needs the role.

====
Inside an example.
====

include::partial$footer.adoc[]

Two lines
---------

Text below.
"""


def titled(text, format, **options):
    chunks = chunk_document(Document("doc", text, format=format), **options)
    return [(chunk.title, chunk.text) for chunk in chunks]


def test_asciidoc():
    code = "----\n# purge all\n\n== not a heading\nqctl purge {product}\n----"
    top = "Operating the queue"
    assert titled(ADOC, "asciidoc") == [
        (top, "How to run it.\n\nThe queue keeps messages; see how to purge and the page."),
        (f"{top} > Purge a queue", f"A command\n\n{code}"),
        (f"{top} > Purge a queue > Only old ones", "NOTE: It needs the role.\n\nInside an example."),
        (f"{top} > Two lines", "Text below."),
    ]
    chunks = chunk_document(Document("doc", ADOC, format="asciidoc"))
    assert [chunk.metadata["start_line"] for chunk in chunks[1:]] == [14, 30, 41]
    assert chunks[0].metadata["description"] == "How to run it."


RULE = "|---|---|"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("|===\n|Use |Why\n\n|-a\n|one\n\n|-b\n|two\n|===", ["| Use | Why |", RULE, "| -a | one |", "| -b | two |"]),
        ('[cols="1,2",options="header"]\n|===\n|A|B\n|c|d\ne\n|===', ["| A | B |", RULE, "| c | d e |"]),
        ("[cols=2*]\n|===\n|b b|foo\n|c c a|d d\n|===", ["| b b | foo |", "| c c | d d |"]),
        ("|===\n|a\n", ["|a"]),
    ],
)  # fmt: skip
def test_tables_of_asciidoc(table, expected):
    lines = read_asciidoc(f"{table}\n\nEnd.").text.split("\n")
    assert [line for line in lines if line] == [*expected, "End."]
    assert len(lines) == table.count("\n") + 3, "each line keeps its number"


ORG = """#+TITLE: Notes on queues
#+AUTHOR: J. Doe
* TODO [#A] Purge a queue :ops:daily:
  :PROPERTIES:
  :ID: 7
  :END:
Purging deletes [[https://example.org][all messages]].
# a comment
** Steps
#+begin_src sh
* not a heading

qctl purge
#+end_src
* Last
Text.
"""


def test_org():
    assert titled(ORG, "org") == [
        ("Notes on queues > Purge a queue", "Purging deletes all messages."),
        ("Notes on queues > Purge a queue > Steps", "#+begin_src sh\n* not a heading\n\nqctl purge\n#+end_src"),
        ("Notes on queues > Last", "Text."),
    ]


TEX = r"""\documentclass{article}
\usepackage{x}
\title{Queues \& \emph{workers}}
\begin{document}
\maketitle % not this
\section{Purging}\label{sec:a}
Purging deletes 5\% of all. % hidden
\subsection*{Old {\tt ones}} They go first.
\begin{verbatim}
\section{no heading}

% kept
\end{verbatim}
\chapter{Moving}
Text.
\end{document}
"""


def test_tex():
    page = read_tex(TEX)
    assert page.title == "Queues & workers"
    assert [(level, words) for level, words, *_ in page.headings] == [(3, "Purging"), (4, "Old ones"), (2, "Moving")]
    chunks = titled(TEX, "tex")
    assert chunks[1] == ("Queues & workers > Purging", "Purging deletes 5\\% of all.")
    assert chunks[2][1] == "They go first.\n\\begin{verbatim}\n\\section{no heading}\n\n% kept\n\\end{verbatim}"
    assert not any("hidden" in text or "usepackage" in text for _, text in chunks)


def test_files_by_their_name(tmp_path):
    (tmp_path / "a.adoc").write_text("= A\n\nText a.\n")
    (tmp_path / "b.org").write_text("* B\nText b.\n")
    (tmp_path / "c.tex").write_text("\\section{C}\nText c.\n")
    (tmp_path / "llms-full.txt").write_text("# D\n\nText d.\n\n## E\n\nText e.\n")
    assert [(chunk.title, chunk.text) for chunk in load_corpus(tmp_path)] == [
        ("A", "Text a."), ("B", "Text b."), ("C", "Text c."), ("D", "Text d."), ("D > E", "Text e."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\nText.\n\n## B\n\nMore.\n\n```\n# x\n# y\n# z\n# u\n```\n", True),
        ("Text.\n\n# Only one\n\nMore.", False),
        ("# Retry uploads,\n# because it fails.\nretries: 3\n\n# Another comment\nbackoff: 1\n\n# Third\n", False),
        ("Title\n=====\n\n#1 is first\n\n#2 is second\n", False),
    ],
)
def test_markdown_in_text_files(text, expected):
    assert looks_like_markdown(text) is expected


@pytest.mark.parametrize("read", [read_asciidoc, read_org, read_tex])
@pytest.mark.parametrize(
    "run",
    [
        *("http://", "[[", "<<a,", "{a", "|", "|===\n", "----\n====\n", " ", ":a", "* ", "\\section{", "{{"),
        *("\\title{a", "= a\n", "#+begin_src\n", "[[a][", "\\label{a", "%", "/", "a\n---\n"),
    ],
)  # fmt: skip
def test_runs_are_quick(read, run):
    started = time.process_time()
    read(run * (300_000 // len(run)) + "x")
    assert time.process_time() - started < 4
