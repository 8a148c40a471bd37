"""Documentation comments read like sentences."""

import pytest

from revela_rag.corpus import Document, chunk_document
from revela_rag.corpus.code.comments import clean_comment, clean_docstring, is_boilerplate, looks_like_code


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""One line only."""', "One line only."),
        ("r'''Raw one here.'''", "Raw one here."),
        ('"""Wrapped\n    over lines.\n\n    Second paragraph.\n    """', "Wrapped over lines.\n\nSecond paragraph."),
        ('"""Sum up.\n\n    :param x: number\n    :return: the sum\n    """', "Sum up."),
        ('"""Sum up.\n\n    Parameters\n    ----------\n    x : int\n    """', "Sum up."),
        ('"""Sum up.\n\n    Args:\n        x: number\n    """', "Sum up."),
        ('"""Sum up.\n\n    >>> f(1)\n    2\n    """', "Sum up."),
        ('"""Use :class:`~a.b.C` and ``code`` or *this*."""', "Use a.b.C and code or this."),
        ('"""f(x, y) -> int\n\n    Sum both of them."""', "Sum both of them."),
        ('"""Close log\n\n    This closes the log."""', "Close log: This closes the log."),
        ('"""\n    :param x: input\n    :return: the hash of the file\n    """', "the hash of the file"),
        ('"""Multiply a * b and c * d here."""', "Multiply a * b and c * d here."),
    ],
)
def test_docstrings(source, expected):
    assert clean_docstring(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/** Opens it. */", "Opens it."),
        ("/**\n * Opens\n * the {@code file}.\n *\n * @param x y\n */", "Opens the file."),
        ("/**\n * See {@link Foo#bar the bar} and {@link #baz}.\n */", "See the bar and baz."),
        ("/**\n * First of all.<p>Second &amp; last.<pre>code();</pre>\n */", "First of all.\n\nSecond & last."),
        ("/// Counts\n/// things.", "Counts things."),
        ("//! Counts things.", "Counts things."),
        ("// -------\n// Title line\n// -------", "Title line"),
        ("# Counts\n# things.", "Counts things."),
        ("/* Opens it.\n   And reads. */", "Opens it. And reads."),
        ("/**\n * @brief Opens the file.\n * @param x y\n */", "Opens the file."),
        ("/// Adds.\n///\n/// # Examples\n/// ```\n/// add(1)\n/// ```", "Adds."),
        (
            '/// <summary>Adds <paramref name="a"/> to <c>b</c>.</summary>\n/// <returns>A sum.</returns>',
            "Adds a to b.",
        ),
        (
            "/// <summary>\n/// See <see cref=\"T:A.B{C}\"/> &lt; <see langword='null'/>.\n/// </summary>",
            "See A.B < null.",
        ),
        ('/// <summary>Reads <see cref="A">the file</see>.<para>Twice.</para></summary>', "Reads the file.\n\nTwice."),
        ('/// <summary>One.</summary>\n/// <example><code>one();</code></example>\n/// <seealso cref="X"/>', "One."),
        ('/// <param name="a">First.</param>\n/// <returns>The sum of both.</returns>', "The sum of both."),
        ('/// <inheritdoc cref="A.B"/>', ""),
        ('/// <param name="a">never closed\n/// <summary>Gone.</summary>', ""),
        ("/** <summary>In a block.</summary> */", "In a block."),
        ("/// Adds.\n/// - Parameters:\n///   - a: number\n/// - Returns: the sum", "Adds."),
        ("/// Adds.\n/// - Parameter a: number\n/// - Throws: an error", "Adds."),
        ("/** Adds.\n  *\n  * {{{\n  * add(1)\n  * }}}\n  */", "Adds."),
        ("// MARK: - Sorting\n// Sorts by name.", "Sorts by name."),
        ("/// Adds.\n// swiftlint:disable:next force_cast", "Adds."),
        ("=begin\nCounts things.\n=end", "Counts things."),
        ("/** Takes a <code>List</code> of things. */", "Takes a List of things."),
    ],
)
def test_comments(source, expected):
    assert clean_comment(source) == expected


@pytest.mark.parametrize(
    "text",
    ["", "one two", "TODO: fix it soon", "Copyright (c) 2020 by Me", "(non-Javadoc) see foo bar", "{@inheritDoc} and",
     "Licensed under the MIT License", "See the superclass", "pylint: disable=all of it"],
)  # fmt: skip
def test_boilerplate(text):
    assert is_boilerplate(text)


@pytest.mark.parametrize(
    "text", ["Return the copyright notice.", "Open the file.", "Check the licence key.", "Adds an auto-generated id."]
)
def test_not_boilerplate(text):
    assert not is_boilerplate(text)


def test_commented_out_code_is_recognised():
    assert looks_like_code("int a = b[1];\nreturn a;")
    assert not looks_like_code("Returns the first entry (if any) of the list; None otherwise.")


ADD = "{\n  $c = $a + $b;\n  return $c;\n}\n"


@pytest.mark.parametrize(
    ("language", "head", "documentation", "code"),
    [
        (
            "php",
            "/* Plugin Name: Sums\n * Description: shows sums to all. */",
            "/** Adds up numbers. */",
            "function f() ",
        ),
        ("php", "/** Sums of all kinds for the shop. */", "/**\n * Adds up numbers.\n */", "function f() "),
        ("swift", "// MARK: - Sums of all kinds", "/// Adds up numbers.", "func f() "),
        ("swift", "/** Sums of all kinds. */", "/// Adds up\n/// numbers.", "func f() "),
        ("java", "/******* SUMS *******/", "/** Adds up numbers. */\n// NOLINT", "class F "),
    ],
)
def test_of_several_comments_above_a_definition_the_last_documentation_is_about_it(language, head, documentation, code):
    source = head + "\n" + documentation + "\n" + code + (ADD if language != "java" else "{ int a = 1; int b = 2; }")
    (chunk,) = chunk_document(Document("f", ("<?php\n" if language == "php" else "") + source, format=language))
    assert (chunk.parts[0].role, chunk.parts[0].text) == ("docstring", "Adds up numbers.")
    assert chunk.text == source.strip(), "and nothing is lost"


@pytest.mark.parametrize(
    ("language", "returned", "expected"),
    [
        ("php", "bool true if the call succeeds", "true if the call succeeds"),
        ("php", "string|null the name", "the name"),
        ("php", "?User the user", "the user"),
        ("php", "\\\\App\\\\User[] all users", "all users"),
        ("php", "array<string, array<int>> the names", "the names"),
        ("php", "array{name: string, age: int} the person", "the person"),
        ("php", "WP_Post what was posted", "what was posted"),
        ("php", "Post the newest one", "the newest one"),
        ("php", "$this for the next call", "for the next call"),
        ("php", "(int|string)[] keys of rows", "keys of rows"),
        ("php", "true if the call succeeds", "true if the call succeeds"),
        ("php", "array of names", "array of names"),
        ("php", "The name of the user", "The name of the user"),
        ("php", "the names [sorted]", "the names [sorted]"),
        ("ruby", "[String] the name", "the name"),
        ("ruby", "[Array<String>, nil] the names", "the names"),
        ("ruby", "the name [sorted]", "the name [sorted]"),
        ("javascript", "{Promise<string>} the name", "the name"),
        ("java", "string of all names", "string of all names"),
        ("java", "A|B in one text", "A|B in one text"),
        ("kotlin", "[String] for the name", "[String] for the name"),
    ],
)
def test_types_are_no_words_of_what_is_returned(language, returned, expected):
    mark = "#" if language == "ruby" else " *"
    source = f"{mark} @return {returned.replace(chr(92) * 2, chr(92))}"
    assert clean_comment(source if language == "ruby" else f"/**\n{source}\n */", language) == expected


@pytest.mark.parametrize("directive", ["call-seq:", ":call-seq:"])
def test_call_sequences_are_no_language(directive):
    source = f"# {directive}\n#   retry(limit) -> true\n#\n#   retry {{ |x| block }} -> false\n#\n# Retries the job."
    assert clean_comment(source, "ruby") == "Retries the job."
    assert clean_comment(source.replace("\n#\n# Ret", "\n# Ret"), "ruby") == "Retries the job."
    source = "/*\n *  call-seq:\n *     retry(limit) -> true\n *\n *  Retries the job.\n */"
    assert clean_comment(source, "c") == "Retries the job."
    assert clean_comment("# Retries the job.\n# call-seq:\n#   retry", "ruby") == "Retries the job."


@pytest.mark.parametrize("directive", [":nodoc:", ":nodoc: all", ":yields: limit, job", ":section: Jobs", ":method: x"])
def test_directives_of_ruby_are_no_language(directive):
    assert clean_comment(f"# {directive}\n# Retries the job.", "ruby") == "Retries the job."
    assert clean_comment(f"# Retries the job. {directive}", "ruby") == "Retries the job."
    assert "nodoc" in clean_comment("# Says :nodoc: aloud.", "c")
