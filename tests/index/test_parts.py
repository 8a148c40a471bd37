"""Feedback, reranking and selection: what they give by hand, and that a search without them is what it was."""

import itertools
import math

import numpy as np
import pytest

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index
from revela_rag.parts import MMR, Candidates, Coverage, Feedback, Refiner, Reranker, Selector
from revela_rag.parts.feedback import refined
from revela_rag.parts.selection import covering, most_diverse
from revela_rag.retriever import Retriever

from .support import FakeEncoder, chunk, numbers, unit

QUERY = "getUser7Name text 3"


def found(*cosines, texts=None):
    """Candidates with these cosines, in an order that need not be theirs."""
    hits = [
        Hit(Chunk(str(n), (texts or {}).get(n, f"text {n}"), "d"), 1.0 - n / 10, n + 1, cosine)
        for n, cosine in enumerate(cosines)
    ]
    return Candidates(hits, lambda: np.eye(len(hits), 4, dtype=np.float32))


def test_nothing_is_on_by_default(built):
    for mode in ("hybrid", "dense", "lexical"):
        plain = built.search(QUERY, k=12, mode=mode)
        assert plain == built.search(QUERY, k=12, mode=mode, feedback=0, select="top", rerank=None)
        assert [hit.rank for hit in plain] == list(range(1, len(plain) + 1))


# -- selection ---------------------------------------------------------------------------------------------------------


def test_diversity_is_what_the_definition_says():
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=(9, 5)))
    relevance, balance = rng.uniform(size=9), 0.6
    order = most_diverse(relevance, vectors, balance)
    assert sorted(order) == list(range(9)) and order[0] == int(np.argmax(relevance))
    for place in range(1, 9):
        left = set(range(9)) - set(order[:place])
        worth = {
            one: balance * relevance[one]
            - (1 - balance) * max(vectors[one] @ vectors[other] for other in order[:place])
            for one in left
        }
        assert order[place] == max(worth, key=worth.__getitem__)
    assert most_diverse(relevance, vectors, 1.0) == np.argsort(-relevance).tolist()
    assert most_diverse(np.empty(0), np.empty((0, 5)), 0.5) == []


def test_coverage_by_hand():
    matches = np.array([[1.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    relevance, weights = np.array([0.9, 0.8, 0.5, 0.4]), np.array([1.0, 1.0, 2.0])
    # second: 1 adds 0 to 0.8 / 2, 2 adds 1 / 4 / 2 to 0.5 / 2
    assert covering(matches, relevance, weights, 0.5) == [0, 1, 2, 3]
    assert covering(matches, relevance, weights, 0.4) == [0, 2, 1, 3]
    assert covering(matches, relevance, weights, 1.0) == [0, 1, 2, 3]


def test_greedy_coverage_reaches_its_bound():
    rng = np.random.default_rng(0)
    for _ in range(20):
        matches, weights = rng.uniform(size=(8, 6)) ** 3, rng.uniform(size=6)
        shares, size = weights / weights.sum(), 3

        def covered(some, matches=matches, shares=shares):
            return float(matches[list(some)].max(axis=0) @ shares)

        greedy = covered(covering(matches, np.zeros(8), weights, 0.0)[:size])
        best = max(map(covered, itertools.combinations(range(8), size)))
        assert (1 - 1 / math.e) * best <= greedy <= best + 1e-12


def test_coverage_takes_what_the_others_lack():
    texts = {0: "rotate the keys", 1: "rotate the keys again", 2: "revoke a token"}
    order = Coverage(balance=0.5)("rotate keys and revoke tokens", found(0.6, 0.6, 0.3, texts=texts))
    assert list(order) == [0, 2, 1]
    assert list(Coverage()("of the", found(0.6, 0.5))) == [0, 1]  # no word to cover


def test_relevance_is_the_order_at_the_scale_of_cosines():
    assert found(0.2, 0.7, 0.4).relevance.tolist() == pytest.approx([0.7, 0.4, 0.2])
    assert found(None, None, None).relevance.tolist() == pytest.approx([1.0, 0.9, 0.8])


def test_dense_diversity_is_by_cosines(built, encoder):
    hits = built.search(QUERY, k=6, mode="dense", select=MMR(balance=0.5, candidates=20))
    near = built.search(QUERY, k=20, mode="dense")
    vectors = encoder.encode_documents([hit.chunk.embedding_text for hit in near])
    order = most_diverse(vectors @ encoder.encode_queries([QUERY])[0], vectors, 0.5)[:6]
    assert numbers(hits) == [numbers(near)[place] for place in order]
    assert [hit.rank for hit in hits] == list(range(1, 7))
    assert {hit.chunk.id: hit.score for hit in near}[hits[1].chunk.id] == hits[1].score


def test_those_behind_the_candidates_follow(plain):
    top = plain.search(QUERY, k=30)
    for select in (MMR(candidates=10), Coverage(candidates=10)):
        chosen = plain.search(QUERY, k=30, select=select)
        assert set(numbers(chosen[:10])) == set(numbers(top[:10]))
        assert numbers(chosen[10:]) == numbers(top[10:])
        assert numbers(plain.search(QUERY, k=5, select=select)) == numbers(chosen[:5])


def test_a_selector_of_ones_own(plain):
    asked = []

    def backwards(query, candidates):
        asked.append((query, len(candidates.hits), candidates.read_vectors().shape))
        return range(len(candidates.hits) - 1, 0, -1)  # all but the first

    assert isinstance(backwards, Selector)
    hits = plain.search(QUERY, k=40, select=backwards, mode="dense")
    assert asked == [(QUERY, 40, (40, 32))]
    assert numbers(hits) == numbers(plain.search(QUERY, k=40, mode="dense"))[:0:-1]
    for wrong in ([0, 0], [40], [-1], ["a"], None):
        with pytest.raises(IndexingError, match="different places from 0 to 39"):
            plain.search(QUERY, k=40, mode="dense", select=lambda query, candidates, wrong=wrong: wrong)


# -- feedback ----------------------------------------------------------------------------------------------------------


def test_feedback_by_hand(path):
    axes = np.eye(3, 32, dtype=np.float32)
    vectors = unit(np.array([axes[0] + axes[1], axes[0] + 2 * axes[1], axes[1], axes[2]]))
    pieces = [chunk(number, text=f"word{number}") for number in range(4)]
    with Index.build(pieces, encoder=FakeEncoder(), path=path, vectors=vectors) as index:
        moved = unit(axes[0] + 0.5 * vectors[0])
        hits = index.search("x", k=4, mode="dense", vector=axes[0], feedback=1)
        assert {hit.chunk.metadata["number"]: hit.score for hit in hits} == pytest.approx(
            dict(enumerate((vectors @ moved).tolist())), abs=1e-6
        )
        assert {hit.chunk.metadata["number"]: hit.cosine for hit in hits} == pytest.approx(
            dict(enumerate((vectors @ axes[0]).tolist())), abs=1e-6
        )


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_feedback_is_a_search_by_the_moved_vector(built, encoder, mode):
    query = encoder.encode_queries([QUERY])[0]
    best = built.search(QUERY, k=3, mode=mode)
    vectors = encoder.encode_documents([hit.chunk.embedding_text for hit in best])
    moved = unit(query + 0.5 * unit(vectors.mean(axis=0)))
    again = built.search(QUERY, k=10, mode=mode, vector=moved)
    hits = built.search(QUERY, k=10, mode=mode, feedback=3)
    assert numbers(hits) == numbers(again)
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in again], abs=1e-5)
    own = {hit.chunk.id: hit.cosine for hit in built.search(QUERY, k=40, mode="dense")}
    assert [hit.cosine for hit in hits] == pytest.approx([own[hit.chunk.id] for hit in hits], abs=1e-5)


def test_feedback_keeps_to_the_filter(plain):
    hits = plain.search(QUERY, k=10, filter={"language": "python"}, feedback=3)
    assert len(hits) == 10 and {hit.chunk.metadata["language"] for hit in hits} == {"python"}
    assert plain.search(QUERY, filter={"language": "cobol"}, feedback=3) == []


def test_wrong_feedback_is_refused(plain):
    for wrong in (-1, 1.5, True, "3"):
        with pytest.raises(IndexingError, match="feedback="):
            plain.search(QUERY, feedback=wrong)
    with pytest.raises(IndexingError, match="lexical"):
        plain.search(QUERY, mode="lexical", feedback=3)
    with pytest.raises(IndexingError, match="weight"):
        Feedback(weight=0)
    assert isinstance(Feedback(), Refiner)
    query = np.ones(3, dtype=np.float32)
    for made in (np.zeros(3), np.ones(4), np.full(3, np.nan), np.full(3, np.inf)):

        class Wrong:
            count = 1

            def __call__(self, query, found, made=made):
                return made

        with pytest.raises(IndexingError, match="must return 3 numbers"):
            refined(Wrong(), query, np.ones((1, 3)))


# -- reranking ---------------------------------------------------------------------------------------------------------


def test_a_function_reranks_the_best(built):
    plain = built.search(QUERY, k=12)
    read = []

    def by_number(query, texts):
        read.extend((query, text) for text in texts)
        return [int(text.split()[1]) for text in texts]

    assert isinstance(by_number, Reranker)
    hits = built.search(QUERY, k=12, rerank=by_number, rerank_top=5)
    assert read == [(QUERY, hit.chunk.embedding_text) for hit in plain[:5]]
    assert numbers(hits) == [*sorted(numbers(plain[:5]), reverse=True), *numbers(plain[5:])]
    assert [hit.score for hit in hits[:5]] == numbers(hits[:5])
    assert hits[5].score == plain[5].score and [hit.rank for hit in hits] == list(range(1, 13))
    wide = built.search(QUERY, k=3, rerank=by_number)  # reads all forty
    assert numbers(wide) == [39, 38, 37]


def test_equal_scores_keep_the_order_and_minus_infinity_leaves_out(plain):
    top = numbers(plain.search(QUERY, k=10))
    assert numbers(plain.search(QUERY, k=10, rerank=lambda query, texts: np.zeros(len(texts)))) == top
    only = plain.search(QUERY, k=10, rerank=lambda query, texts: [0.0, *[-math.inf] * (len(texts) - 1)])
    assert numbers(only) == top[:1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda n: np.zeros(n - 1), "shape"),
        (lambda n: np.zeros((n, 2)), "shape"),
        (lambda n: 1.0, "shape"),
        (lambda n: [float("nan"), *[1.0] * (n - 1)], "nan for text 0"),
        (lambda n: [*[1.0] * (n - 1), math.inf], "inf for text 39"),
        (lambda n: ["good"] * n, "list where scores"),
        (lambda n: None, "NoneType|shape|nan"),
    ],
)
def test_wrong_scores_are_refused(plain, scores, message):
    with pytest.raises(IndexingError, match=message):
        plain.search(QUERY, rerank=lambda query, texts: scores(len(texts)))


def test_what_is_no_part_is_refused(plain):
    for options, message in (
        ({"select": "best"}, "select='best' is not one of 'top', 'mmr', 'coverage'"),
        ({"select": 3}, "select=3"),
        ({"rerank": "cross-encoder"}, "rerank='cross-encoder'"),
        ({"rerank_top": 0}, "rerank_top=0"),
    ):
        for refusing in (plain.search, Retriever(plain).search):
            with pytest.raises(IndexingError, match=message):
                refusing(QUERY, **options)
        with pytest.raises(IndexingError, match=message):
            Retriever(plain, **options)
    for make, message in (
        (lambda: MMR(balance=1.5), "balance"),
        (lambda: Coverage(candidates=0), "candidates=0"),
        (lambda: Coverage(balance=True), "balance=True"),
    ):
        with pytest.raises(IndexingError, match=message):
            make()


def test_all_parts_together_and_for_many_queries(built):
    options = {"feedback": 2, "rerank": lambda query, texts: [len(set(text)) for text in texts], "select": "coverage"}
    together = built.search_many([QUERY, "text 5"], k=4, **options)
    assert [numbers(hits) for hits in together] == [
        numbers(built.search(query, k=4, **options)) for query in (QUERY, "text 5")
    ]
    retriever = Retriever(built, k=4, **options)
    assert retriever.search(QUERY) == together[0]
    assert retriever.search(QUERY, select="top") == built.search(QUERY, k=4, **{**options, "select": "top"})
    retriever.parts = {"feedback": 2}
    assert retriever.search(QUERY) == built.search(QUERY, k=4, feedback=2)


@pytest.mark.parametrize("kind", ["flat", "rabitq"])
def test_parts_of_an_index_of_short_vectors(path, encoder, kind):
    with Index.build([chunk(n) for n in range(40)], encoder=encoder, path=path, kind=kind, dimensions=8) as index:
        own = {hit.chunk.id: hit.cosine for hit in index.search(QUERY, k=40, mode="dense")}
        for mode in ("dense", "hybrid"):
            hits = index.search(QUERY, k=10, mode=mode, feedback=3, select="mmr")
            assert len(hits) == 10
            assert [hit.cosine for hit in hits] == pytest.approx([own[hit.chunk.id] for hit in hits], abs=1e-5)
