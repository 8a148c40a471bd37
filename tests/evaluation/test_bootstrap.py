from __future__ import annotations

import numpy as np
import pytest

from revela_rag.evaluation import Evaluation, bootstrap_interval, compare


def _evaluation(values: list[float], name: str = "x") -> Evaluation:
    return Evaluation(name=name, per_query={"nDCG@10": {f"q{i}": value for i, value in enumerate(values)}})


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(3).normal(0.4, 0.2, size=2_000)
    low, high = bootstrap_interval(values)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error * 1.96)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error * 1.96)


def test_interval_of_two_values_is_known_exactly() -> None:
    # Resamples of {0, 1} have means 0, 1/2, 1 with chances 1/4, 1/2, 1/4: 40 % in the middle, 95 % is all.
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)


def test_interval_of_equal_values_is_a_point() -> None:
    assert bootstrap_interval([0.25] * 7) == (0.25, 0.25)


def test_interval_is_seeded_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    whole = bootstrap_interval(values, seed=1)
    monkeypatch.setattr("revela_rag.evaluation.bootstrap._BLOCK", 500)
    assert bootstrap_interval(values, seed=1) == pytest.approx(whole, abs=5e-3)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [([], {}, "at least one value"), ([1.0], {"level": 95}, "level"), ([1.0], {"samples": 0}, "samples")],
)
def test_bad_input(values: list[float], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, **options)


def test_comparison_by_hand() -> None:
    result = compare(_evaluation([0.5, 0.5, 0.5, 0.2]), _evaluation([0.5, 0.9, 0.6, 0.1]))
    assert result.difference == pytest.approx(0.1)
    assert (result.before, result.after) == (pytest.approx(0.425), pytest.approx(0.525))
    assert result.risen == ("q1", "q2") and result.fallen == ("q3",)
    assert result.low < 0 < result.high and result.queries == 4
    assert result.p_value > 0.2


def test_clear_difference_has_a_small_p_value_and_a_small_one_does_not() -> None:
    generator = np.random.default_rng(5)
    before = generator.random(300)
    noise = generator.normal(0, 0.1, size=300)
    noise -= noise.mean()
    error = noise.std() / np.sqrt(300)
    clear = compare(_evaluation(list(before)), _evaluation(list(before + noise + 5 * error)))
    assert clear.p_value < 0.001 and clear.low > 0
    borderline = compare(_evaluation(list(before)), _evaluation(list(before + noise + 1.96 * error)))
    assert borderline.p_value == pytest.approx(0.05, abs=0.01)
    assert borderline.low == pytest.approx(0.0, abs=0.1 * error)
    worse = compare(_evaluation(list(before)), _evaluation(list(before + noise - 5 * error)))
    assert worse.p_value < 0.001 and worse.high < 0


def test_no_difference_has_p_value_one() -> None:
    result = compare(_evaluation([0.1, 0.7]), _evaluation([0.1, 0.7]))
    assert result.p_value == 1.0 and result.difference == 0.0
    assert result.risen == result.fallen == ()


def test_other_queries_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="'a' and 'b' cannot be compared: 1 queries"):
        compare(_evaluation([0.1], "a"), _evaluation([0.1, 0.2], "b"))


def test_comparison_as_dict_is_plain() -> None:
    result = compare(_evaluation([0.1, 0.2]), _evaluation([0.3, 0.1])).as_dict()
    assert result["risen"] == ["q0"] and result["fallen"] == ["q1"] and result["metric"] == "nDCG@10"
