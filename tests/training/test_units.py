from __future__ import annotations

from revela_rag.corpus import Chunk, Part, StructuralPair
from revela_training.units import make_units, split_pairs


def chunk(name: str, *parts: Part, text: str = "whole text") -> Chunk:
    return Chunk(id=name, text=text, document_id="d", parts=parts)


DOCUMENTED = chunk("a", Part("docstring", "Adds two numbers."), Part("body", "def add(a, b): return a + b"))


def test_query_and_answer_become_a_pair() -> None:
    (unit,) = make_units([DOCUMENTED])
    assert unit.texts == ("Adds two numbers.", "def add(a, b): return a + b")
    assert unit.is_pair


def test_halves_are_two_texts_and_plain_text_stays_whole() -> None:
    halves = chunk("b", Part("first_half", "one"), Part("second_half", "two"))
    assert [unit.texts for unit in make_units([halves, chunk("c")])] == [("one", "two"), ("whole text",)]
    assert not make_units([halves])[0].is_pair, "they would crowd out what people wrote as queries"
    assert make_units([halves], crop=True)[0].is_pair


def test_without_structure_prose_is_cut_in_two() -> None:
    words = [f"w{i}" for i in range(21)]
    chunks = [
        chunk("long", text=" ".join(words)),
        chunk("short", text="a b c"),
        Chunk(id="code", text=" ".join(words), document_id="d", kind="code"),
        DOCUMENTED,
    ]
    long, short, code, documented = make_units(chunks, crop=True)
    assert long.texts == (" ".join(words[:10]), " ".join(words[10:])) and long.is_pair
    assert short.texts == ("a b c",) and not short.is_pair
    assert not code.is_pair
    assert documented == make_units([DOCUMENTED])[0]
    assert not any(unit.is_pair for unit in make_units(chunks[:3]))


def test_held_out_query_never_reaches_training() -> None:
    pair = StructuralPair("Adds two numbers.", "a", "d", "docstring", "def add(a, b): return a + b")
    (unit,) = make_units([DOCUMENTED], [pair])
    assert unit.texts == (pair.answer_text,)
    assert not unit.is_pair


def test_blank_parts_are_dropped() -> None:
    blank = chunk("e", Part("docstring", "  "), Part("body", "def f(): ..."))
    (unit,) = make_units([blank])
    assert unit.texts == ("def f(): ...",)
    assert not unit.is_pair


def test_split_is_disjoint_deterministic_and_bounded() -> None:
    pairs = [StructuralPair(f"query {i}", str(i), "d", "docstring", "x") for i in range(100)]
    choose, report = split_pairs(pairs, holdout=0.4, max_queries=1000)
    assert len(choose) == len(report) == 20
    assert not {p.chunk_id for p in choose} & {p.chunk_id for p in report}
    assert split_pairs(pairs[::-1], holdout=0.4, max_queries=1000) == (choose, report)
    assert [len(half) for half in split_pairs(pairs, holdout=0.9, max_queries=5)] == [5, 5]
