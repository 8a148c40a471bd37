from __future__ import annotations

from revela_training.pseudo_queries import PseudoQuery, pseudo_queries, take_out

PASSAGES = [
    f"The getUserName helper of module {name} reads the {name} table, checks every {other} column and closes it again."
    for name, other in zip(
        ["alpha", "beta", "gamma", "delta"] * 5, ["beta", "gamma", "delta", "alpha"] * 5, strict=True
    )
]


def test_queries_are_short_and_made_of_their_passage() -> None:
    made = pseudo_queries(PASSAGES, limit=20)
    assert {query.kind for query in made} == {"keywords", "span"}
    for query in made:
        words = query.text.split()
        if query.kind == "span":
            assert 4 <= len(words) <= 10
            assert query.text in PASSAGES[query.passage]
        else:
            assert 3 <= len(words) <= 7
            assert all(word in PASSAGES[query.passage].lower() for word in words)
            places = [PASSAGES[query.passage].lower().index(word) for word in words]
            assert places == sorted(places)


def test_identifiers_are_split_and_words_of_one_passage_alone_left_out() -> None:
    passages = [*PASSAGES, PASSAGES[0] + " zyzzyva"]
    words = {
        word for query in pseudo_queries(passages, limit=99) if query.kind == "keywords" for word in query.text.split()
    }
    assert "user" in words or "name" in words
    assert "getusername" not in words
    assert "zyzzyva" not in words


def test_the_draw_is_seeded_and_limited() -> None:
    assert pseudo_queries(PASSAGES, limit=5, seed=1) == pseudo_queries(PASSAGES, limit=5, seed=1)
    assert pseudo_queries(PASSAGES, limit=5, seed=1) != pseudo_queries(PASSAGES, limit=5, seed=2)
    assert len({query.passage for query in pseudo_queries(PASSAGES, limit=5)}) == 5


def test_short_passages_and_other_scripts_give_what_they_can() -> None:
    assert pseudo_queries(["", "two words", "x"], limit=3) == []
    kinds = {query.kind for query in pseudo_queries([" ".join("слово" for _ in range(20))] * 3, limit=3)}
    assert kinds == {"span"}


def test_a_passage_gives_several_different_queries_where_more_are_drawn() -> None:
    once, often = pseudo_queries(PASSAGES, limit=5), pseudo_queries(PASSAGES, limit=5, draws=6)
    assert {query.passage for query in often} == {query.passage for query in once}
    assert len(often) == len(set(often)) > 2 * len(once)
    repeating = pseudo_queries([" ".join("слово" for _ in range(13))] * 3, limit=3, draws=50)
    assert len(repeating) == len(set(repeating)) <= 3 * 7  # spans of four to ten equal words


def test_words_of_queries_are_taken_out_of_their_passages() -> None:
    made = pseudo_queries(PASSAGES, limit=20)
    queries, passages = take_out(made, PASSAGES, share=1.0)
    assert passages[: len(PASSAGES)] == PASSAGES
    assert [query.text for query in queries] == [query.text for query in made]
    changed = [(old, new) for old, new in zip(made, queries, strict=True) if new.passage != old.passage]
    assert len(changed) > len(made) / 2
    for old, new in changed:
        rest = passages[new.passage]
        assert len(rest.split()) >= 8
        assert len(rest) < len(PASSAGES[old.passage])
        if new.kind == "span":
            assert new.text not in rest
        else:
            assert not any(word in rest.lower() for word in new.text.split())


def test_a_share_of_them_is_drawn_by_the_seed_and_short_passages_stay_whole() -> None:
    made = pseudo_queries(PASSAGES, limit=20)
    assert take_out(made, PASSAGES, share=0.0) == (made, PASSAGES)
    half = take_out(made, PASSAGES, share=0.5, seed=1)
    assert half == take_out(made, PASSAGES, share=0.5, seed=1) != take_out(made, PASSAGES, share=0.5, seed=2)
    count = sum(new.passage != old.passage for old, new in zip(made, half[0], strict=True))
    assert len(made) / 5 < count < len(made) * 4 / 5
    short = [PseudoQuery("span", "one two three four", 0)]
    assert take_out(short, ["one two three four five six seven eight nine"], share=1.0)[0] == short
