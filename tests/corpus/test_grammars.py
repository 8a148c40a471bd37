"""C#, Kotlin, PHP, Ruby, Scala and Swift are cut at their definitions, and no language loses anything of a file."""

import re
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_code import CASES, JAVA, PYTHON

from revela_rag.corpus import Document, chunk_document, structural_pairs
from revela_rag.corpus.code import outline
from revela_rag.corpus.code.detect import detect_format
from revela_rag.corpus.code.grammars import GRAMMARS
from revela_rag.corpus.formats.names import format_of

SOURCES = Path(__file__).parent / "sources"


def chunks_of(source, language):
    return chunk_document(Document("src/file.x", source, format=language))


def chunks_in(name):
    return chunks_of((SOURCES / name).read_text(encoding="utf-8"), format_of(name))


def documentation(chunks):
    return {
        chunk.metadata.get("symbol", ""): part.text
        for chunk in chunks
        for part in chunk.parts
        if part.role in ("docstring", "comment")
    }


# every definition of a file in the order of its chunks, with its documentation where that makes a pair
EXPECTED = {
    "Orders.cs": [
        ("", None),
        ("OrderBook", "Keeps the open orders of one Customer & their totals.\n\nNot safe for several threads."),
        ("OrderBook.CreditLimit", "Gets the sum that a customer may owe before new orders wait."),
        ("OrderBook.Shipped", "Raised after an order has left the warehouse."),
        ("OrderBook.OrderBook", "Creates an empty book for a customer."),
        ("OrderBook.this", "Finds the order with a number in O(log n)."),
        (
            "OrderBook.Add",
            "Adds an order to the end of the queue.\n\nOrders beyond the limit wait for approval.",
        ),
        ("OrderBook.ToString", None),
        ("OrderBook.operator", "Adds up the totals of two books."),
        ("OrderBook.OrderBook", None),
        ("OrderBook.Urgency", "How urgently an order has to leave."),
        ("IOrderBook", "What a book of orders is able to do."),
        ("IOrderBook.Add", "Adds one more order to the book."),
        ("Money", "A sum of money in one currency."),
        ("Approval", "Decides whether an order may be shipped."),
        ("Labels", "Helpers for strings of the warehouse."),
        ("Labels.Shorten", "Shortens a label to what fits on a parcel."),
    ],
    "Program.cs": [
        ("Program", "Starts the shop and serves its pages."),
        ("Program.Main", "Runs the server until it is told to stop."),
        ("Program.Seed", "Fills the shop with invented products."),
    ],
    "Cache.kt": [
        ("", None),
        ("Loader", "Remembers what was loaded for a limited time."),
        ("Cache", "Keeps values that are expensive to load until they are too old."),
        ("Cache.size", "How many values are remembered at this moment."),
        ("Cache.constructor", "Creates a cache whose values live for one minute."),
        ("Cache.get", "Returns the value of a key and loads it when it is missing."),
        ("Cache.shrink", "Forgets the oldest values first"),
        ("Cache.Entry", "A value beside the moment it was loaded."),
        ("Cache.Entry.isStale", "Tells whether the value is older than it may be."),
        ("Cache.endless", "Builds a cache that never forgets anything."),
        ("Failure", "What can go wrong while a value is loaded."),
        ("Failure.describe", "Says in one sentence what happened."),
        ("Failure.Timeout", None),
        ("Lifetime", "How long values of a kind are kept."),
        ("Lifetime.toDuration", "Converts this lifetime to a duration of the library."),
        ("SharedCache", "The cache that all of the threads share."),
        ("SharedCache.clear", "Empties the shared cache on every node."),
        ("extended", "Doubles the lifetime of every value in a cache."),
        ("age", "Shows the age of a value in words."),
        ("main", None),
    ],
    "checkout.php": [
        ("", None),
        ("Checkout", "Takes an order from the cart to the bank."),
        ("Checkout.charge", "Charges the customer's card and sends a receipt."),
        ("Checkout.refund", "Refunds an order that never arrived"),
        ("Checkout.total", None),
        ("Payable", "Whatever a customer is able to pay for."),
        ("Payable.total", None),  # its body is less than five words
        ("LogsEverything", "Writes a line to the log for every payment."),
        ("LogsEverything.log", "Writes one line with the time in front."),
        ("State", "The states that an order goes through."),
        ("State.isFinal", "Tells whether nothing more can happen to it."),
        ("price", "Formats a price for the language of the visitor."),
    ],
    "basket.php": [("", None), ("weight", "Adds up what the basket weighs.")],
    "ledger.rb": [
        ("Traders.Accounting", "Money that has moved, and everything that follows from it."),
        ("Traders.Accounting.Ledger", "Keeps the entries of one account in the order they were booked."),
        ("Traders.Accounting.Ledger.initialize", "Opens the ledger of an account."),
        ("Traders.Accounting.Ledger.book", "Books an amount and returns the new balance.\n\nledger.book(100)"),
        ("Traders.Accounting.Ledger.<=>", "Sorts ledgers by what they are worth."),
        ("Traders.Accounting.Ledger.find", "Finds the ledger of an account by its number."),
        ("Traders.Accounting.Ledger.load", "Loads a ledger from a file of JSON."),
        ("Traders.Accounting.Ledger.prune", "Forgets entries that are older than a year."),
        ("Traders::OverLimit", "Raised where a booking would exceed the limit."),
        ("Traders::OverLimit.initialize", None),
        ("report", "Prints the balance of every account on the screen."),
        ("", None),
    ],
    "Routes.scala": [
        ("Router", "Finds the way through a network of streets."),
        ("Router.planned", "How many routes were planned since the start."),
        ("Router.plan", "Plans the shortest route between two places."),
        ("Router.forget", "Forgets every route over a closed street"),
        ("Router", "Builds routers for the cities we know."),
        ("Router.of", "Builds the router of a city from its map."),
        ("Route", "A way from one place to another."),
        ("Planner", "Whatever is able to plan a route."),
        ("Planner.plan", "Plans a route between two places."),
        ("Nowhere", None),
    ],
    "Shapes.scala": [
        ("Shape", "The shapes that can be drawn on a page."),
        ("Shape.area", "Computes how much paper a shape covers."),
        ("Printer", "Draws shapes on a page of paper."),
        ("Printer.print", "Draws a shape in the middle of the page."),
        ("Pictures", "Turns lists of shapes into pictures."),
        ("Pictures", "Sorts shapes by the paper that they cover."),
        ("Show", "Writes a shape in a form that people can read."),
        ("mirrored", "Mirrors a shape at the left edge of the page."),
        ("draw", None),
    ],
    "Player.swift": [
        ("", None),
        ("Player", "Plays songs one after the other.\n\nSongs that cannot be read are skipped."),
        ("Player.volume", "How loud the music is, between zero and one."),
        ("Player.init", "Creates a player for an output."),
        ("Player.deinit", None),
        ("Player.enqueue", "Puts a song at the end of the queue."),
        ("Player.subscript", "Finds the song that is played at a position."),
        ("Player.Ending", "The ways in which a song may end."),
        ("Player.Ending.isChosen", "Tells whether a listener has chosen this ending."),
        ("Output", "Whatever music may come out of."),
        ("Output.name", "Says which speakers the music comes out of."),
        ("Output.write", "Sends samples to the speakers at once."),
        ("Song", "A song with everything that is printed on its cover."),
        ("Song.shortened", "Shortens the title to fit on a display."),
        ("Song", None),
        ("Song.<", "Sorts songs by their titles, whatever the case."),
        ("crossfade", "Mixes two songs into each other over some seconds."),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_definition_is_a_chunk_with_its_documentation_and_its_body(name):
    chunks = chunks_in(name)
    found = [
        (
            chunk.metadata.get("symbol", ""),
            next((part.text for part in chunk.parts if part.role in ("docstring", "comment")), None),
        )
        for chunk in chunks
    ]
    assert found == EXPECTED[name]
    for chunk in chunks:
        parts = {part.role: part.text for part in chunk.parts}
        if "body" in parts:
            doc = parts.get("docstring") or parts["comment"]
            assert doc.split("\n")[0] not in parts["body"] and len(parts["body"].split()) > 2
    pairs = structural_pairs(chunks)
    assert len(pairs) == sum(doc is not None for _, doc in EXPECTED[name])


def test_documentation_comments_are_told_from_other_comments():
    roles = {
        name: {chunk.metadata.get("symbol"): chunk.parts[0].role for chunk in chunks_in(name) if chunk.parts}
        for name in EXPECTED
    }
    assert roles["Orders.cs"]["Labels"] == roles["Cache.kt"]["Cache.shrink"] == "comment"
    assert roles["checkout.php"]["Checkout.refund"] == roles["Routes.scala"]["Router.forget"] == "comment"
    assert roles["Orders.cs"]["OrderBook.Add"] == roles["Player.swift"]["Player.subscript"] == "docstring"
    assert set(roles["ledger.rb"].values()) == {"docstring"}, "lines of # are how Ruby documents"


def test_attributes_and_annotations_stand_between_comment_and_definition():
    texts = {name: {c.metadata.get("symbol"): c.text for c in chunks_in(name)} for name in EXPECTED}
    assert '[Obsolete("Use AddAsync")]\npublic bool Add' in texts["Orders.cs"]["OrderBook.Add"]
    assert '@Suppress("TooManyFunctions")\nopen class Cache<' in texts["Cache.kt"]["Cache"]
    assert "#[Transactional, Retry(times: 3)]\npublic function" in texts["checkout.php"]["Checkout.charge"]
    assert "@discardableResult\npublic func" in texts["Player.swift"]["Player.enqueue"]
    assert "@throws[NoRoute]\noverride def" in texts["Routes.scala"]["Router.plan"]


def test_headers_hold_fields_short_members_and_signatures():
    headers = {name: {c.metadata.get("symbol"): c.text for c in reversed(chunks_in(name))} for name in EXPECTED}
    header = headers["Orders.cs"]["OrderBook"]
    assert "Largest = 5000" in header and "public int Count => _orders.Count;" in header
    assert "public decimal CreditLimit\n" in header and "Review" not in header
    header = headers["Cache.kt"]["Cache"]
    assert "suspend fun get(key: K): V\n" in header and "isStale" not in header
    assert "companion object {\n        fun <K : Any, V> endless" in header
    header = headers["ledger.rb"]["Traders.Accounting.Ledger"]
    assert "class << self\n    def find(number)\n  end" in header and "attr_reader :entries" in header
    assert "public var volume: Float\n" in headers["Player.swift"]["Player"]
    assert "lazy val planned: Int\n" in headers["Routes.scala"]["Router"]


def test_a_comment_before_an_outdent_belongs_to_what_follows():
    source = (
        "class Outer:\n  class Inner:\n    def run(x: Int): Int =\n      val y = x + 1\n      log(y)\n      y * 2\n\n"
        "  /** Stops all of the engines. */\n  def stop(engines: List[Engine]): Unit =\n    engines.foreach(_.stop())\n"
        "    log()\n\n/** Starts the engines again. */\ndef start(engines: List[Engine]): Unit =\n"
        "  engines.foreach(_.go())\n"
    )
    chunks = chunks_of(source, "scala")
    assert documentation(chunks) == {
        "Outer.stop": "Stops all of the engines.",
        "start": "Starts the engines again.",
    }
    assert [c.metadata["end_line"] for c in chunks if c.metadata["symbol"] == "Outer.Inner.run"] == [6]


def test_a_module_that_only_holds_others_is_no_chunk_of_its_own():
    source = "module Shop\n  module Stock\n    class Shelf\n      WIDTH = 90\n    end\n  end\nend\n"
    (chunk,) = chunks_of(source, "ruby")
    assert chunk.text == "class Shelf\n  WIDTH = 90\nend" and chunk.title == "Shop.Stock.Shelf"
    chunks = chunks_of(source.replace("module Stock", "module Stock\n    LOW = 3"), "ruby")
    assert [chunk.text.split("\n")[0] for chunk in chunks] == ["module Stock", "class Shelf"]
    assert "LOW = 3" in chunks[0].text
    (chunk,) = chunks_of("module Shop; class Shelf; WIDTH = 90; end; end\n", "ruby")
    assert "WIDTH = 90" in chunk.text


def test_methods_behind_modifiers_and_in_blocks_are_found():
    source = (
        "module Auditable\n  included do\n    # Writes who has changed what.\n    private def audit(change)\n"
        "      log(change)\n      save(change)\n    end\n  end\nend\n"
    )
    assert documentation(chunks_of(source, "ruby")) == {"Auditable.audit": "Writes who has changed what."}


def test_prose_under_a_name_of_code_is_prose_although_it_parses():
    prose = "the shop sells books\nit ships them abroad too"
    for extension in ("rb", "php", "scala", "swift", "kt", "cs"):
        assert detect_format(prose, (f"shop.{extension}",)) == "text"
    assert detect_format("class Shop\n  def open(day)\n    day.start\n  end\nend\n", ("shop.rb",)) == "ruby"
    assert detect_format("using System;\nclass Shop { void Open() { } }\n", ("Shop.cs",)) == "csharp"


# --- nothing is lost -------------------------------------------------------------------------------------------------

SAMPLES = {name: (format_of(name), (SOURCES / name).read_text(encoding="utf-8")) for name in EXPECTED}
SAMPLES |= {name: (name, source) for name, (source, _) in CASES.items()}
SAMPLES |= {"python": ("python", PYTHON), "java": ("java", JAVA)}
SAYS_NOTHING = re.compile(
    r"(?:import|from|package|use|using|global using|#include|#nullable|namespace|extern)\b|@testable import|"
    r"(?:require|require_relative|require_once|declare)\b|#(?:if|endif|region|endregion)\b|"
    r"# frozen|@file:|module \w+$|end( \w+)?$|<\?php$|if \(!function_exists\([^()]*\)\) \{$"
)


def licence(source):
    """The lines of the comment that opens a file, if there is a licence in it."""
    lines = source.strip("\n").split("\n")
    found = next((n for n, line in enumerate(lines[:8]) if re.search("copyright|licen[sc]e|spdx", line, re.I)), None)
    if found is None:
        return set()
    return {line.strip() for line in lines[: next(n for n in range(found, len(lines)) if not lines[n].strip())]}


def test_the_samples_are_of_every_language():
    assert {language for language, _ in SAMPLES.values()} == set(GRAMMARS)


def test_a_condition_around_a_definition_says_nothing_alone():
    language, source = SAMPLES["basket.php"]
    (chunk,) = chunks_of("\n".join(source.split("\n")[3:16]), language)
    assert "function weight" in chunk.text and "function_exists" not in chunk.text


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_lost_of_any_part_of_a_file(name, data):
    language, source = SAMPLES[name]
    lines = source.split("\n")
    first = data.draw(st.sampled_from([0, 0, *range(len(lines))]))
    last = data.draw(st.sampled_from([len(lines), *range(first, len(lines) + 1)]))
    chunks = chunks_of("\n".join(lines[first:last]), language)
    kept = {line.strip() for chunk in chunks for line in chunk.text.split("\n")}
    kept |= {line.removeprefix("* ") for line in kept}
    for line in lines[first:last]:
        text = line.strip()
        if re.search(r"\w", text) and not SAYS_NOTHING.match(text) and text not in licence(source):
            assert text in kept or text.removeprefix("* ") in kept


def test_what_stands_beside_an_import_or_a_licence_is_kept():
    (chunk,) = chunks_of("import os; start(os)\n", "python")
    assert chunk.text == "import os; start(os)"
    chunks = chunks_of("/* Copyright 2020 Me */ int limit = 3;\nint f(int x) {\n  return x + limit;\n}\n", "c")
    assert any("int limit = 3;" in chunk.text for chunk in chunks)
    (first, *_) = chunks_of("namespace Shop { const LIMIT = 3;\nfunction f() {\n return 1 + 2;\n}\n}\n", "csharp")
    assert "const LIMIT = 3;" in first.text


def test_few_words_between_definitions_are_kept_and_brackets_are_not():
    chunks = chunks_of("def start(x):\n    y = x\n    return y\n\n\nstart()\n", "python")
    assert [chunk.text for chunk in chunks][1:] == ["start()"]
    (chunk,) = chunks_of("namespace Shop\n{\n    class Till { int a; int b; }\n}\n", "csharp")
    assert chunk.text == "class Till { int a; int b; }"


@pytest.mark.parametrize(
    ("language", "before", "definition", "after"),
    [
        ("csharp", "#region helpers\n", "class Till { int a; int b; }\n", "#endregion\n"),
        ("csharp", "#if DEBUG\n", "class Till { int a; int b; }\n", "#endif\n"),
        ("swift", "#if DEBUG\n", "func f() {\n  print(1)\n  print(2)\n}\n", "#endif\n"),
        ("php", "<?php\nif (!function_exists('f')) {\n", "  function f() {\n    return 1 + 2;\n  }\n", "}\n"),
        ("php", "<?php\nif ( ! class_exists( 'F' ) ) :\n", "  class F {\n    var $a = 1;\n  }\n", "endif;\n"),
        ("python", "#!/usr/bin/env python\n\n", "def f():\n    a = 1\n    return a\n", ""),
    ],
)
def test_directives_and_conditions_around_definitions_are_no_chunk(language, before, definition, after):
    (chunk,) = chunks_of(before + definition + after, language)
    assert chunk.text.strip() == textwrap.dedent(definition).strip()
    other = {"csharp": "#pragma warning disable\n// Not for threads.\n", "php": "start();\n", "python": "start()\n"}
    chunks = chunks_of(before + definition + after + other.get(language, "start()\n"), language)
    assert other.get(language, "start()").strip().split("\n")[-1] in "\n".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("shop.gemspec", "ruby"),
        ("config.ru", "ruby"),
        ("lib/Rakefile", "ruby"),
        ("Gemfile", "ruby"),
        ("view.phtml", "php"),
        ("build.sbt", "scala"),
        ("run.csx", "csharp"),
        ("show.html.erb", "erb"),
        ("Index.cshtml", "razor"),
        ("Index.razor", "razor"),
        ("Gemfile.lock", None),
        (".erb", None),
    ],
)
def test_file_names_of_code(name, language):
    assert format_of(name) == language


@pytest.mark.parametrize("language", ["erb", "razor"])
def test_templates_are_cut_between_lines(language):
    (chunk,) = chunks_of("<h1>Orders</h1>\n@foreach (var x in y) { <p>x</p> }\n<%= total %>\n", language)
    assert chunk.kind == "code" and chunk.text.endswith("<%= total %>")


# --- errors ----------------------------------------------------------------------------------------------------------

NEW = ["csharp", "kotlin", "php", "ruby", "scala", "swift"]


@pytest.mark.parametrize("language", NEW)
def test_garbage_becomes_windows_of_lines(language):
    opening = "<?php\n" if language == "php" else ""
    source = opening + "\n".join(f"%% {n} ((( [ }} what @@ is ) this =>" for n in range(100))
    chunks = chunks_of(source, language)
    assert len(chunks) > 1 and all(chunk.kind == "code" for chunk in chunks)
    assert "\n".join(chunk.text for chunk in chunks).split("\n") == source.split("\n")


@pytest.mark.parametrize("name", sorted({*EXPECTED} - {"Program.cs"}))  # of one class too little is left
def test_a_file_without_its_last_character_keeps_its_definitions(name):
    language, source = SAMPLES[name]
    found = [chunk.metadata.get("symbol", "") for chunk in chunks_of(source.rstrip()[:-1], language)]
    assert set(found) >= {symbol for symbol, _ in EXPECTED[name][:-1]}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_that_breaks_off_in_a_word_loses_nothing(name):
    language, source = SAMPLES[name]
    source = source[: source.index("return") + 3] if "return" in source else source[: len(source) // 2]
    chunks = chunks_of(source, language)
    assert source.rstrip().split("\n")[-1].strip() in "\n".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    ("language", "source"),
    [
        *((language, ("<?php " if language == "php" else "") + "{" * 5_000) for language in NEW),
        ("csharp", "namespace A {\n" * 5_000 + "}\n" * 5_000),
        ("csharp", "class A { " * 5_000 + "}" * 5_000),
        ("kotlin", "class A { " * 5_000 + "}" * 5_000),
        ("php", "<?php " + "if (1) { " * 5_000 + "}" * 5_000),
        ("ruby", "module A\n" * 2_000 + "end\n" * 2_000),
        ("ruby", "f(" * 5_000 + ")" * 5_000),
        ("scala", "object A { " * 5_000 + "}" * 5_000),
        ("scala", "".join("  " * n + f"object A{n}:\n" for n in range(300)) + "  " * 300 + "val x = 1\n"),
        ("swift", "func f() {" + "{" * 5_000 + "}" * 5_000 + "}"),
    ],
)
def test_deep_nesting_neither_crashes_nor_hangs(language, source):
    started = time.process_time()
    assert chunks_of(source, language)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("language", "source"), [("swift", "/*" * 2_000), ("kotlin", "/*" * 8_000), ("ruby", "%q{" * 13_000)]
)
def test_what_a_parser_takes_long_for_becomes_windows_of_lines(language, source, monkeypatch):
    monkeypatch.setattr(outline, "PARSE_SECONDS", 0.2)
    started = time.process_time()
    chunks = chunks_of("let a = 1\n" + source, language)
    assert time.process_time() - started < 4
    assert "".join(chunk.text for chunk in chunks).replace("\n", "") == "let a = 1" + source


def test_a_large_file_has_more_time_to_be_parsed_in(monkeypatch):
    source = "\n".join(f"def area_{n}(x)\n  y = x * {n}\n  y\nend\n" for n in range(200)) + "# " + "-" * 4_000
    monkeypatch.setattr(outline, "PARSE_SECONDS", -60)
    assert len(chunks_of(source, "ruby")) < 100
    monkeypatch.setattr(outline, "PARSE_SECONDS_PER_BYTE", 60)
    assert len(chunks_of(source, "ruby")) >= 200
