"""Source code becomes functions, methods, class headers and leftovers, with documentation and body as parts."""

import textwrap

import pytest

from revela_rag.corpus import Document, chunk_document, structural_pairs

LONG = "\n".join(f"    total += step_{n}(total, {n})" for n in range(6))


def chunks_of(source, language="python"):
    return chunk_document(Document("src/file.x", textwrap.dedent(source).lstrip("\n"), format=language))


def by_symbol(chunks):
    return {chunk.metadata.get("symbol", ""): chunk for chunk in chunks}


def roles(chunk):
    return {part.role: part.text for part in chunk.parts}


PYTHON = '''
"""Module about shapes."""

import math
from os import path

LIMIT = 10  # most shapes


@decorated(1)
def area(radius):
    """Compute the area of a circle.

    Longer words about it.

    Args:
        radius: of the circle.
    """
    square = radius * radius
    return math.pi * square


class Shape(Base):
    """Anything with a boundary line."""

    kind = "shape"

    def name(self):
        return self._name

    def grow(self, factor):
        """Scale the shape in place."""
        self.size *= factor
        return self

    class Inner:
        """Holds the inner settings."""
        depth = 1


if LIMIT:
    def late():
        """Defined only under a condition."""
        return LIMIT
'''


def test_python_functions_methods_classes_and_leftovers():
    chunks = chunks_of(PYTHON)
    found = by_symbol(chunks)
    assert set(found) == {"", "area", "Shape", "Shape.grow", "Shape.Inner", "late"}
    assert all(chunk.kind == "code" and chunk.metadata["language"] == "python" for chunk in chunks)
    assert found["area"].text.startswith("@decorated(1)\ndef area(radius):\n")
    assert (found["area"].metadata["start_line"], found["area"].metadata["end_line"]) == (9, 19)
    assert (found["area"].title, found["Shape.grow"].title) == ("", "Shape.grow")
    assert found["Shape.grow"].text.startswith("def grow(self, factor):")
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_docstring_and_body_are_parts_without_each_other():
    found = by_symbol(chunks_of(PYTHON))
    assert roles(found["area"]) == {
        "docstring": "Compute the area of a circle.\n\nLonger words about it.",
        "body": "@decorated(1)\ndef area(radius):\n    square = radius * radius\n    return math.pi * square",
    }
    assert roles(found["late"])["docstring"] == "Defined only under a condition."
    assert "docstring" in roles(found["Shape.Inner"])


def test_class_header_holds_docstring_fields_short_members_and_signatures():
    header = by_symbol(chunks_of(PYTHON))["Shape"]
    assert '"""Anything with a boundary line."""' in header.text and 'kind = "shape"' in header.text
    assert "return self._name" in header.text, "a short undocumented member stays in full"
    assert "def grow(self, factor):" in header.text and "self.size" not in header.text
    assert "Anything" not in roles(header)["body"] and roles(header)["docstring"] == "Anything with a boundary line."


def test_leftovers_drop_imports_and_licences():
    licence = "# Copyright (c) 2020 Somebody\n# Licensed under the Apache License\n\n"
    (leftover,) = [c for c in chunks_of(licence + PYTHON) if "symbol" not in c.metadata]
    assert "LIMIT = 10" in leftover.text and "Module about shapes" in leftover.text
    assert "import" not in leftover.text and "Copyright" not in leftover.text


def test_a_file_of_imports_is_better_found_than_lost():
    (chunk,) = chunks_of("import a\nimport b\n")
    assert chunk.text == "import a\nimport b"


def test_comment_above_a_function_is_its_comment_part():
    source = f"# Adds up all of the steps\ndef total(x):\n{LONG}\n"
    (chunk,) = chunks_of(source)
    assert chunk.text.startswith("# Adds up") and chunk.metadata["start_line"] == 1
    assert roles(chunk)["comment"] == "Adds up all of the steps"
    assert "Adds up" not in roles(chunk)["body"]
    (chunk,) = chunks_of(f"# old = total(x, 1);\n# return old[0];\ndef total(x):\n{LONG}\n")
    assert chunk.parts == (), "commented-out code is not documentation"


@pytest.mark.parametrize(
    "doc",
    ["TODO: write something here", "Two words", "", "See superclass", "Auto-generated method stub", ":param x: a"],
)
def test_boilerplate_documentation_gives_no_part(doc):
    (chunk,) = chunks_of(f'def f(x):\n    """{doc}"""\n{LONG}\n')
    assert chunk.parts == ()


@pytest.mark.parametrize("body", ["pass", "...", "raise NotImplementedError", "raise NotImplementedError('x')"])
def test_a_body_that_does_nothing_gives_no_part(body):
    (chunk,) = chunks_of(f'def f(x):\n    """Does a lot of things."""\n    {body}\n')
    assert chunk.parts == ()


JAVA = """
/* Copyright 2020 Somebody. Licensed under the Apache License. */
package a.b;

import java.util.List;

/**
 * Keeps all open <b>orders</b> of a {@link a.Customer customer}.
 *
 * @author Somebody
 */
@Component
public class Orders<T> extends Base {
    private int count;

    public int getCount() { return count; }

    /**
     * Adds one order to the end of the queue.
     * @param order the order
     * @return whether it was added
     */
    @Override
    public boolean add(Order order) {
        count++;
        return queue.add(order);
    }

    /** {@inheritDoc} */
    public void clear() {
        queue.clear();
        count = 0;
        log();
        notifyAll();
    }

    interface Listener {
        /** Called after every single change. */
        void changed(Order order, int position);
    }
}
"""


def test_java():
    found = by_symbol(chunks_of(JAVA, "java"))
    assert set(found) == {"Orders", "Orders.add", "Orders.Listener", "Orders.Listener.changed", "Orders.clear"}
    assert roles(found["Orders"])["docstring"] == "Keeps all open orders of a customer."
    assert "public int getCount() { return count; }" in found["Orders"].text
    assert "queue.add" not in found["Orders"].text and "public boolean add(Order order)" in found["Orders"].text
    assert roles(found["Orders.add"])["docstring"] == "Adds one order to the end of the queue."
    assert roles(found["Orders.add"])["body"].startswith("@Override\npublic boolean add(Order order) {")
    assert found["Orders.add"].text.startswith("/**\n * Adds one order")
    assert found["Orders.clear"].parts == ()
    assert roles(found["Orders.Listener.changed"])["body"] == "void changed(Order order, int position);"


CASES = {
    "javascript": (
        """
        import x from 'x';

        /** Adds two of the numbers. */
        export function add(a, b) {
          const sum = a + b;
          return sum;
        }

        /** Keeps the open sessions together. */
        class Store {
          size = 0;
          // Find a session by its key
          find(key) {
            const all = this.list();
            log(all);
            return all[key];
          }
        }

        /** Doubles the given value. */
        export const twice = async (x) => {
          return x * 2;
        };

        /** Halves the given value. */
        module.exports.half = function (x) {
          return x / 2;
        };
        """,
        {
            "add": "Adds two of the numbers.",
            "Store": "Keeps the open sessions together.",
            "Store.find": "Find a session by its key",
            "twice": "Doubles the given value.",
            "half": "Halves the given value.",
        },
    ),
    "typescript": (
        """
        /** A point in the plane. */
        export interface Point { x: number; y: number; length(scale: number): number }

        namespace Geometry {
          /** Mirrors the point at the origin. */
          export function mirror(p: Point): Point {
            return { x: -p.x, y: -p.y };
          }
        }

        export abstract class Tool<T> {
          /** Runs the tool to the end. */
          run(input: T): void {
            this.start(input);
            this.stop();
          }
        }
        """,
        {
            "Point": "A point in the plane.",
            "mirror": "Mirrors the point at the origin.",
            "Tool.run": "Runs the tool to the end.",
        },
    ),
    "tsx": (
        """
        /** Shows the name of the user. */
        export function Badge(props: { name: string }) {
          return <b>{props.name}</b>;
        }
        """,
        {"Badge": "Shows the name of the user."},
    ),
    "go": (
        """
        package main

        import "fmt"

        // Add returns the sum of both
        // of its arguments.
        func Add(a, b int) int {
            return a + b
        }

        // Tree keeps its keys sorted.
        type Tree struct {
            root *node
        }

        // Insert puts a key into the tree.
        func (t *Tree) Insert(key int) {
            t.root = t.root.insert(key)
        }
        """,
        {
            "Add": "Add returns the sum of both of its arguments.",
            "Tree": "Tree keeps its keys sorted.",
            "Tree.Insert": "Insert puts a key into the tree.",
        },
    ),
    "rust": (
        """
        use std::io;

        /// A queue with a fixed capacity.
        #[derive(Debug)]
        pub struct Queue { items: Vec<i32> }

        impl Queue {
            /// Puts an item at the end.
            ///
            /// # Panics
            /// When it is full.
            pub fn push(&mut self, item: i32) {
                self.check();
                self.items.push(item);
            }
        }
        """,
        {"Queue": "A queue with a fixed capacity.", "Queue.push": "Puts an item at the end."},
    ),
    "c": (
        """
        #include <stdio.h>
        #ifdef X
        /* Opens the device for reading. */
        static int *open_device(const char *name)
        {
            return lookup(name);
        }
        #endif

        /**
         * @brief Closes the device again.
         * @param handle what was opened
         */
        int close_device(int handle);
        """,
        {"open_device": "Opens the device for reading.", "close_device": "Closes the device again."},
    ),
    "cpp": (
        """
        namespace a { namespace b {
        /// Counts how often something happens.
        template <typename T>
        class Counter : public Base {
         public:
          // Increments the counter by one.
          int tick(int n) const {
            value += n;
            log(value);
            return value;
          }
        };

        // Forgets everything counted so far.
        void Counter::reset(int x) {
          value = x;
        }
        } }
        """,
        {
            "Counter": "Counts how often something happens.",
            "Counter.tick": "Increments the counter by one.",
            "Counter::reset": "Forgets everything counted so far.",
        },
    ),
}


@pytest.mark.parametrize("language", CASES)
def test_documentation_and_body_in_every_language(language):
    source, documented = CASES[language]
    chunks = chunks_of(source, language)
    found = {}
    for chunk in chunks:
        found.setdefault(chunk.metadata.get("symbol", ""), {}).update(roles(chunk))
    for symbol, doc in documented.items():
        parts = found[symbol]
        assert parts.get("docstring", parts.get("comment")) == doc, symbol
        assert doc not in parts["body"] and parts["body"]


def test_a_comment_below_the_head_of_a_python_class_stays_with_the_class():
    body = textwrap.indent(LONG, "    ")
    chunks = by_symbol(chunks_of(f"class Sum:\n    # Adds up all of the steps\n    def total(self):\n{body}\n"))
    assert "Adds up" in chunks["Sum"].text and "Adds up" not in chunks["Sum.total"].text


def test_comments_behind_code_do_not_document_what_follows():
    source = "struct S {\n  int length;  /* how long it is */\n  int width(int scale);  /* how wide it is */\n};\n"
    (chunk,) = chunks_of(source, "cpp")
    assert chunk.metadata["symbol"] == "S" and chunk.parts == ()
    chunks = chunks_of(f"LIMIT = 3  # the largest number of steps\ndef total(x):\n{LONG}\n")
    assert all(chunk.parts == () for chunk in chunks)


def test_nothing_of_a_function_is_lost_when_it_is_split():
    body = "\n".join(f"    value_{n} = compute(value_{n - 1}, {n})" for n in range(1, 200))
    pieces = chunks_of(f'def f(value_0):\n    """Compute very many values."""\n{body}\n')
    assert len(pieces) > 3
    assert all(piece.text.count("\n") < 60 and len(piece.text.split()) <= 240 for piece in pieces)
    lines = [line.strip() for piece in pieces for line in piece.text.split("\n")]
    assert [line for line in lines if line.startswith("value_")] == [line.strip() for line in body.split("\n")]
    assert [bool(piece.parts) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert {piece.title for piece in pieces[1:]} == {"f"}
    assert min(len(piece.text.split("\n")) for piece in pieces) > 15, "pieces are balanced"


def test_code_that_does_not_parse_falls_back_to_windows_of_lines():
    source = "\n".join(f"%% {n} ((( [ }} what is this" for n in range(100))
    chunks = chunks_of(source, "java")
    assert len(chunks) > 1 and all(chunk.kind == "code" for chunk in chunks)
    assert "\n".join(chunk.text for chunk in chunks).split("\n") == source.split("\n")


def test_a_language_without_a_grammar_becomes_windows():
    (chunk,) = chunks_of("def a\n  puts 1\nend\n", "ruby")
    assert chunk.kind == "code" and chunk.metadata["language"] == "ruby"


def test_everything_on_one_row_is_kept_once():
    chunks = chunks_of("function a(){return 1} function b(){return 2} class C { m(){return 3} }", "javascript")
    assert sum(chunk.text.count("return 2") for chunk in chunks) == 1


def test_equal_functions_of_one_file_have_different_ids():
    twice = (
        "if a:\n    def f():\n        x = 1\n        return x\nelse:\n    def f():\n        x = 1\n        return x\n"
    )
    ids = [chunk.id for chunk in chunks_of(twice)]
    assert len(set(ids)) == len(ids)


def test_docstring_query_is_its_first_paragraph():
    pairs = {pair.query: pair for pair in structural_pairs(chunks_of(PYTHON))}
    pair = pairs["Compute the area of a circle."]
    assert pair.query_role == "docstring" and pair.document_id == "src/file.x"
    assert "square" in pair.answer_text and "Compute" not in pair.answer_text
