import pytest

from revela_rag.fusion import interpolate, lexical_weight, rrf


def test_interpolation_by_hand():
    cosines = {"a": 0.6, "b": 0.5, "c": 0.55, "d": -0.2}
    assert interpolate(cosines, {"b": 8.0, "d": 2.0}) == [
        ("b", pytest.approx(0.5 + 0.02 * 8)),
        ("a", 0.6),
        ("c", 0.55),
        ("d", pytest.approx(-0.2 + 0.02 * 2)),
    ]
    long_query = interpolate(cosines, {"b": 100.0, "d": 60.0})
    assert long_query[0] == ("b", pytest.approx(0.5 + 0.25))
    assert dict(long_query)["d"] == pytest.approx(-0.2 + 0.25 * 0.6)
    other = dict(interpolate(cosines, {"b": 8.0}, best=16.0, weight=0.1, ceiling=0.4))
    assert other["b"] == pytest.approx(0.5 + 0.4 * 8 / 16)


@pytest.mark.parametrize(("best", "expected"), [(0, 0.02), (1e-40, 0.02), (12.5, 0.02), (25, 0.01), (float("inf"), 0)])
def test_the_weight_falls_where_the_ceiling_is_reached(best, expected):
    assert lexical_weight(best) == pytest.approx(expected)
    assert lexical_weight(best, weight=0) == lexical_weight(best, ceiling=0) * best == 0 or best == float("inf")


def test_interpolation_without_words_in_common_is_dense_order():
    cosines = {"b": 0.5, "a": 0.5, "c": 0.1}
    assert interpolate(cosines, {}) == list(cosines.items()) == interpolate(cosines, {"a": 0.0})
    assert interpolate({}, {}) == []


def test_interpolation_keeps_the_order_of_ties():
    assert [id_ for id_, _ in interpolate({2: 0.25, 1: 0.25, 3: 0.125}, {3: 12.5})] == [3, 2, 1]
    assert [id_ for id_, _ in interpolate({3: 0.0, 2: 0.25, 1: 0.25}, {3: 50.0})] == [3, 2, 1]


def test_interpolation_checks_what_it_gets():
    with pytest.raises(ValueError, match="'b' has a BM25 score but no cosine"):
        interpolate({"a": 0.5}, {"b": 1.0})
    for bad in ({"weight": -1}, {"ceiling": float("nan")}, {"best": -1.0}):
        with pytest.raises(ValueError, match="must not be negative"):
            interpolate({"a": 0.5}, {"a": 1.0}, **bad)


def test_rrf_by_hand():
    fused = rrf([["a", "b", "c"], ["c", "a", "d"]], constant=60)
    assert [id_ for id_, _ in fused] == ["a", "c", "b", "d"]
    assert dict(fused)["a"] == pytest.approx(1 / 61 + 1 / 62)
    assert dict(fused)["d"] == pytest.approx(1 / 63)


def test_rrf_weights_ties_and_repeats():
    assert rrf([["a"], ["b"]], weights=[1, 2])[0] == ("b", pytest.approx(2 / 61))
    assert [id_ for id_, _ in rrf([["a", "b"], ["b", "a"]])] == ["a", "b"]
    assert rrf([["a", "a", "b"]]) == [("a", 1 / 61), ("b", 1 / 62)]
    assert rrf([]) == [] == rrf([[], []])


@pytest.mark.parametrize(
    "bad", [{"weights": [1]}, {"weights": [1, -1]}, {"constant": 0}, {"weights": [1, float("nan")]}]
)
def test_rrf_checks_its_numbers(bad):
    with pytest.raises(ValueError, match="weight"):
        rrf([["a"], ["b"]], **bad)
