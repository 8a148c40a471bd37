"""Reciprocal rank fusion: one ranking out of several."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["rrf"]


def rrf(
    rankings: Sequence[Sequence[str]], *, weights: Sequence[float] | None = None, constant: float = 60
) -> list[tuple[str, float]]:
    """Fuse rankings: the score of an id is the sum over rankings of ``weight / (constant + rank)``, rank from 1.

    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009.

    Args:
        rankings: ids, best first; an id that comes twice in one ranking counts at its better rank.
        weights: one per ranking, not negative; None means 1 each.
        constant: larger values flatten the lead of the first ranks; must be positive.

    Returns:
        ``(id, score)``, best first; equal scores keep the order in which the ids were first met.

    Raises:
        ValueError: the weights do not match the rankings, or a number is out of range.
    """
    factors = [1.0] * len(rankings) if weights is None else [float(weight) for weight in weights]
    if len(factors) != len(rankings):
        raise ValueError(f"{len(factors)} weights for {len(rankings)} rankings; give one weight per ranking.")
    if any(not factor >= 0 for factor in factors) or not constant > 0:
        raise ValueError(f"weights={factors} must not be negative and constant={constant} must be positive.")
    scores: dict[str, float] = {}
    for ranking, factor in zip(rankings, factors, strict=True):
        for rank, id_ in enumerate(dict.fromkeys(ranking), start=1):
            scores[id_] = scores.get(id_, 0.0) + factor / (constant + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
