from __future__ import annotations

from revela_training.data.pseudo_queries import pseudo_queries

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


def test_words_with_accents_stay_whole_and_scripts_without_spaces_give_none() -> None:
    text = "Die Übersetzung von Größe {0} prüft häufig geänderte Schüler, die naïve Übung größerer Häuser {0} bleibt."
    passages = [text.format(number % 3) + " 数据库连接说明" for number in range(12)]
    made = [query.text.split() for query in pseudo_queries(passages, limit=12, draws=4) if query.kind == "keywords"]
    known = {word.strip(".,").lower() for word in " ".join(passages).split()}
    assert made and {word for words in made for word in words} <= known


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
