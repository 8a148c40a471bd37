"""How sure a mean or a difference of means is, by resampling queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from revela_rag.evaluation.metrics import Evaluation

__all__ = ["Comparison", "balanced_p_value", "bootstrap_interval", "compare"]

_BLOCK = 4_000_000
#: Differences smaller than this are rounding.
_SAME = 1e-9


@dataclass(frozen=True)
class Comparison:
    """The difference between two evaluations of the same queries, ``after - before``.

    Attributes:
        metric: the metric compared.
        before: mean of the first evaluation.
        after: mean of the second.
        difference: mean of the per-query differences.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        p_value: two-sided paired bootstrap p value of "there is no difference".
        queries: number of queries compared.
        risen: ids of the queries that gained, the largest gain first.
        fallen: ids of the queries that lost, the largest loss first.
    """

    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    queries: int
    risen: tuple[str, ...]
    fallen: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {**asdict(self), "risen": list(self.risen), "fallen": list(self.fallen)}


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: one value per query, shape (n,).
        level: coverage, between 0 and 1.
        samples: number of resamples.
        seed: of the random generator; the same seed gives the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: ``values`` is empty, or ``level`` or ``samples`` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    means = _resampled_means(np.asarray(values, dtype=np.float64), samples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    before: Evaluation, after: Evaluation, *, metric: str = "nDCG@10", samples: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare two evaluations query by query with a paired bootstrap.

    The p value is the share of resamples, drawn from the differences shifted to mean zero, whose mean is at
    least as far from zero as the one observed (Smucker, Allan & Carterette 2007, "bootstrap-shift").

    Args:
        before: the baseline.
        after: what is compared with it, over the same queries.
        metric: the metric to compare.
        samples: number of resamples.
        seed: of the random generator.

    Raises:
        ValueError: the two hold different queries or lack the metric.
    """
    old, new = before.values(metric), after.values(metric)
    if old.keys() != new.keys():
        raise ValueError(
            f"{before.name!r} and {after.name!r} cannot be compared: {len(old.keys() ^ new.keys())} queries "
            "are in one of them only. Evaluate both on the same data"
        )
    ids = list(old)
    first = np.array([old[query_id] for query_id in ids])
    second = np.array([new[query_id] for query_id in ids])
    gains = second - first
    difference = float(gains.mean())
    means = _resampled_means(gains, samples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    as_extreme = int(np.count_nonzero(np.abs(means - difference) >= abs(difference) - _SAME))
    order = np.argsort(-gains, kind="stable")
    return Comparison(
        metric=metric,
        before=float(first.mean()),
        after=float(second.mean()),
        difference=difference,
        low=float(low),
        high=float(high),
        p_value=(as_extreme + 1) / (samples + 1),
        queries=len(ids),
        risen=tuple(ids[i] for i in order if gains[i] > _SAME),
        fallen=tuple(ids[i] for i in order[::-1] if gains[i] < -_SAME),
    )


def balanced_p_value(gains: Sequence[np.ndarray], *, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired bootstrap p value of the mean over kinds of queries, each kind counting the same.

    Args:
        gains: for every kind its per-query differences, shape (n,); queries are resampled inside their kind.
        samples: number of resamples.
        seed: of the random generator.

    Raises:
        ValueError: there is no kind, or one has no query.
    """
    if not gains:
        raise ValueError("a bootstrap needs at least one kind of queries, got none")
    drawn = [_resampled_means(np.asarray(kind, dtype=np.float64), samples, seed + n) for n, kind in enumerate(gains)]
    means = np.mean(drawn, axis=0)
    difference = float(np.mean([np.mean(kind) for kind in gains]))
    as_extreme = int(np.count_nonzero(np.abs(means - difference) >= abs(difference) - _SAME))
    return (as_extreme + 1) / (samples + 1)


def _resampled_means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means of ``samples`` resamples with replacement, shape (samples,); values (n,)."""
    if values.ndim != 1 or not len(values):
        raise ValueError(f"a bootstrap needs at least one value in one dimension, got shape {values.shape}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    generator = np.random.default_rng(seed)
    count = len(values)
    block = max(1, _BLOCK // count)
    means = np.empty(samples)
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = generator.integers(0, count, size=(size, count), dtype=np.int32)
        means[start : start + size] = values[drawn].mean(axis=1)
    return means
