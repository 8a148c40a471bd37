from __future__ import annotations

from revela_rag.corpus import Chunk, Part, StructuralPair
from revela_training.data.units import make_units, split_pairs


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


def test_a_heading_that_several_chunks_have_asks_for_none_of_them() -> None:
    def section(name: str, heading: str, text: str = "text") -> Chunk:
        return chunk(name, Part("heading", heading), Part("section", f"{text} {name}"), text=text)

    units = make_units([section("a", "Retries"), section("b", "Minor features"), section("c", "minor  features")])
    assert [unit.is_pair for unit in units] == [True, False, False]
    assert units[1].texts == ("Minor features", "text b"), "they still stand side by side"
    long = " ".join(f"w{i}" for i in range(30))
    cropped = make_units([section("b", "Minor features", long), section("c", "Minor features", long)], crop=True)
    assert [(unit.texts[0].split()[0], unit.is_pair) for unit in cropped] == [("w0", True)] * 2


def test_methods_that_share_a_comment_all_train() -> None:
    parts = Part("docstring", "See the interface."), Part("body", "def f(): ...")
    chunks = [Chunk(id=name, text="x", document_id="d", kind="code", parts=parts) for name in "ab"]
    assert all(unit.is_pair for unit in make_units(chunks))


def test_an_answer_that_repeats_its_query_trains_without_it() -> None:
    page = chunk("p", Part("title", "How to retry"), Part("text", "How to retry\n\nSet the number of retries."))
    (unit,) = make_units([page])
    assert unit.texts == ("How to retry", "Set the number of retries.")


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


def test_the_draw_is_by_a_hash_and_not_by_the_alphabet() -> None:
    pairs = [StructuralPair(letter, letter, "d", "docstring", "answer") for letter in "abcdefgh"]
    choose, report = split_pairs(pairs, holdout=0.5, max_queries=1000)
    # sha256 begins: d 18, b 3e, a ca, c 2e, e 3f, f 25, g cd, h aa
    assert ("".join(p.query for p in choose), "".join(p.query for p in report)) == ("df", "cb")
