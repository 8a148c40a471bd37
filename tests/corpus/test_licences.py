"""A licence at the head of a file in a language without a grammar is no text of it, and nothing else is lost."""

import time

import pytest

from revela_rag.corpus import Document, chunk_document

CODE = "start {\n  run 1\n}"
MIT = """Copyright (c) 2024 Example Traders

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction.

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND."""
GPL = """Portions copyright 2001, 2002 by Somebody.

This program is free software: you can redistribute it and/or modify
it under the terms of the GNU General Public License.

This program is distributed in the hope that it will be useful,
but WITHOUT ANY WARRANTY.

You should have received a copy of the GNU General Public License
along with this program."""
APACHE = """Copyright The Example Authors.
SPDX-License-Identifier: Apache-2.0

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS."""
STYLES = {
    "//": ("", "// ", ""),
    "#": ("", "# ", ""),
    "--": ("", "-- ", ""),
    ";;": ("", ";; ", ""),
    "%": ("", "% ", ""),
    "!": ("", "! ", ""),
    "/*": ("/*\n", " * ", "\n */"),
    "(*": ("(*\n", "   ", "\n*)"),
    "(* stars": ("(*****\n", "(* ", "\n*****)"),
    "<!--": ("<!--\n", "  ", "\n-->"),
    "{-": ("{-\n", "  ", "\n-}"),
    "--[[": ("--[[\n", "  ", "\n]]"),
    '"""': ('"""\n', "", '\n"""'),
}


def text_of(source, language="dart"):
    chunks = chunk_document(Document("src/file.x", source, format=language))
    return "\n".join(chunk.text for chunk in chunks)


def comment(text, style):
    opening, prefix, closing = STYLES[style]
    return opening + "\n".join((prefix + line).rstrip() for line in text.split("\n")) + closing + "\n"


@pytest.mark.parametrize("licence", [MIT, GPL, APACHE])
@pytest.mark.parametrize("style", STYLES)
def test_a_licence_is_left_out(licence, style):
    assert text_of(comment(licence, style) + CODE) == CODE
    assert text_of(comment(licence, style) + "\n" + CODE) == CODE
    assert text_of("\n" + comment("A word before.", style) + "\n" + comment(licence, style) + "\n" + CODE).endswith(
        CODE
    )


@pytest.mark.parametrize("style", STYLES)
def test_a_comment_without_a_licence_is_kept_and_one_with_it_goes_whole(style):
    about = comment("Reads dates of many forms,\nthose of copies among them.", style)
    assert text_of(about + CODE) == about + CODE
    assert text_of(comment("dates.x - reads dates\n\n" + MIT + "\n\nSee also times.x.", style) + CODE) == CODE


def test_only_the_comments_before_everything_else_are_looked_at():
    later = CODE + "\n\n# Copyright 2024 Example Traders\n" + CODE
    assert text_of(later) == later


@pytest.mark.parametrize(
    "source",
    [
        "# Copyright 2024 Example Traders\n# All rights reserved.",
        comment(MIT, "/*"),
        "/* Copyright 2024 Example Traders\n * without an end\n" + CODE,
        "/* Copyright 2024 Example Traders */ " + CODE,
        "Copyright 2024 Example Traders\n" + CODE,
    ],
)
def test_a_licence_alone_beside_code_or_in_no_comment_is_kept(source):
    assert text_of(source) == source.rstrip("\n")


def test_a_file_that_does_not_parse_loses_its_licence_too():
    garbage = "\n".join(f"@@ {n} ((( [ }} what is this" for n in range(30))
    assert text_of(comment(APACHE, "/*") + garbage, "java") == garbage


def test_a_block_comment_with_blank_lines_in_it_is_one():
    header = "/*\n  sum.h\n\n  Copyright (c) 2024 Somebody\n*/\n\n#pragma once\n\n"
    (chunk,) = chunk_document(Document("sum.h", header + "int add(int a, int b) {\n  return a + b;\n}\n", format="c"))
    assert chunk.metadata["symbol"] == "add"


def test_a_shebang_stays():
    assert text_of("#!/bin/sh\n\n# Copyright 2024 Example Traders\n\nrun 1\n", "shell") == "#!/bin/sh\n\n\nrun 1"


def test_lines_of_a_piece_are_counted_from_where_the_code_begins():
    (chunk,) = chunk_document(Document("a", "# Copyright 2024 Somebody\n\nrun 1\nrun 2\n", format="shell"))
    assert chunk.metadata["start_line"] == 3


GO = "package sum\n\nfunc Add(a, b int) int {\n\treturn a + b\n}\n"
ADD = "int add(int a, int b) {\n  return a + b;\n}\n"
JAVA = "class Sum {\n  int add(int a, int b) {\n    return a + b;\n  }\n}\n"
PHP = "function add($a, $b) {\n  return $a + $b;\n}\n"


@pytest.mark.parametrize(
    ("language", "header", "kept", "code"),
    [
        ("c", "// SPDX-License-Identifier: GPL-2.0\n", "/*\n * Adds numbers of any size\n * and sign.\n */", ADD),
        ("c", "/* Copyright 2024 Somebody */\n", "/*\n * Adds numbers.\n *\n * Of any size.\n */", ADD),
        ("c", comment(APACHE, "/*"), "/*\n * Adds numbers of any size.\n */", ADD),
        ("c", comment(APACHE, "/*"), "/* Adds numbers of any size. */", ADD),
        ("c", "/* Licensed under the MIT License. */\n", "// Adds numbers of any size.", ADD),
        ("go", comment(APACHE, "//") + "\n", "// Package sum adds numbers.", GO),
        ("python", comment(MIT, "#") + "\n", "# Adds big numbers.", "def f(a):\n    b = a\n    return b\n"),
        ("typescript", "// Copyright 2024 Somebody\n", "/**\n * @fileoverview Adds numbers.\n */", JAVA),
        ("java", comment(APACHE, "/*"), "/** Adds numbers of any size. */", "package sum;\n" + JAVA),
        ("php", "<?php\n" + comment(MIT, "/*"), "/**\n * Adds numbers.\n */", "\n" + PHP),
        ("php", "<?php\n// Licensed under the MIT License.\n", "/**\n * Adds numbers.\n */", "\n" + PHP),
    ],
)
def test_what_describes_a_file_below_its_licence_is_kept(language, header, kept, code):
    first, *_ = chunk_document(Document("src/file.x", header + kept + "\n\n" + code, format=language))
    assert first.text == kept


@pytest.mark.parametrize(
    ("language", "header", "documentation"),
    [
        (
            "php",
            "<?php\n/** Copyright 2024 Somebody. Licensed under the MIT License. */\n",
            "/** Adds up numbers. */\n",
        ),
        ("php", "<?php\n" + comment(MIT, "/*"), "/**\n * Adds up numbers.\n */\n"),
        ("go", comment(APACHE, "/*"), "// Adds up numbers.\n"),
        ("rust", "// SPDX-License-Identifier: MIT\n", "/// Adds up numbers.\n"),
    ],
)
def test_a_licence_directly_above_what_documents_the_first_definition(language, header, documentation):
    code = {"php": PHP, "go": GO.split("\n\n")[1], "rust": "fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n"}[language]
    (chunk,) = chunk_document(Document("src/file.x", header + documentation + code, format=language))
    assert chunk.text == (documentation + code).strip()
    assert (chunk.parts[0].role, chunk.parts[0].text) == ("docstring", "Adds up numbers.")
    assert chunk.metadata["start_line"] == header.count("\n") + 1


@pytest.mark.parametrize("header", [comment("sum.h\n\nCopyright 2024 Somebody", style) for style in ("//", "/*")])
def test_a_header_of_imports_alone_loses_its_licence_too(header):
    (chunk,) = chunk_document(Document("sum.h", header + "\n#pragma once\n#include <a.h>\n", format="c"))
    assert chunk.text.split("\n") == ["#pragma once", "#include <a.h>"]


def test_a_row_of_marks_opens_no_block_of_a_language_with_line_comments():
    banner = "#=======\n# Copyright 2024 Somebody\n#=======\n\n"
    (chunk,) = chunk_document(Document("a.py", banner + "def f(a):\n    b = a + 1\n    return b\n", format="python"))
    assert chunk.text.startswith("def f")


@pytest.mark.parametrize(
    "run", [" ", "*", "# ", "copyright ", "licensed ", "=begin", "(c) ", "<summary>", "<param>", "{{{"]
)
@pytest.mark.parametrize("language", ["dart", "csharp"])
def test_long_runs_in_the_opening_comment_are_quick(run, language):
    started = time.process_time()
    assert text_of(f"// x {run * 40_000} y\nint f() {{ return 1 + 2; }}\n", language)
    assert time.process_time() - started < 4
