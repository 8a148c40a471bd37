"""One ranking out of several: by adding scores, or by ranks alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["CEILING", "WEIGHT", "interpolate", "lexical_weight", "rrf"]

#: How much cosine a point of BM25 is worth, and the most that BM25 may add to a cosine.
WEIGHT, CEILING = 0.02, 0.25

Id = TypeVar("Id", bound=Hashable)


def lexical_weight(best: float, *, weight: float = WEIGHT, ceiling: float = CEILING) -> float:
    """What a query's BM25 scores are multiplied by before they are added to cosines: ``min(weight, ceiling / best)``.

    BM25 grows with the number and the rarity of a query's words, so a fixed weight trusts the words of a query of
    rare identifiers more than those of a short everyday one. The ceiling keeps a long query from drowning the cosine.

    Args:
        best: the best BM25 score of the query; 0 where nothing shares a word with it.
        weight: cosine per point of BM25.
        ceiling: the most the best document gains.

    Raises:
        ValueError: a number is negative or not a number.
    """
    if not (best >= 0 and weight >= 0 and ceiling >= 0):
        raise ValueError(f"best={best}, weight={weight} and ceiling={ceiling} must not be negative.")
    return weight if weight * best <= ceiling else ceiling / best


def interpolate(
    cosines: Mapping[Id, float],
    lexical: Mapping[Id, float],
    *,
    best: float | None = None,
    weight: float = WEIGHT,
    ceiling: float = CEILING,
) -> list[tuple[Id, float]]:
    """Fuse by score: ``cosine + min(weight, ceiling / best) * bm25``; see :func:`lexical_weight`.

    Source: linear interpolation of lexical and dense scores, as in Wang, Zhuang and Zuccon, "BERT-based Dense
    Retrievers Require Interpolation with BM25 for Effective Passage Retrieval", ICTIR 2021. The weight that follows
    the query is this project's own.

    Args:
        cosines: of every candidate.
        lexical: BM25 scores; a candidate that is missing scores 0.
        best: the best BM25 score of the query among all documents; None takes the best in ``lexical``.
        weight: cosine per point of BM25.
        ceiling: the most the best document gains.

    Returns:
        ``(id, score)``, best first; equal scores keep the order of ``cosines``. A score lies in [-1, 1 + ceiling].

    Raises:
        ValueError: ``lexical`` holds an id without a cosine, or a number is negative.
    """
    unknown = next((id_ for id_ in lexical if id_ not in cosines), None)
    if unknown is not None:
        raise ValueError(f"{unknown!r} has a BM25 score but no cosine; give the cosine of every candidate.")
    factor = lexical_weight(
        max(lexical.values(), default=0.0) if best is None else best, weight=weight, ceiling=ceiling
    )
    scores = [(id_, cosine + factor * lexical.get(id_, 0.0)) for id_, cosine in cosines.items()]
    return sorted(scores, key=lambda item: -item[1])


def rrf(
    rankings: Sequence[Sequence[str]], *, weights: Sequence[float] | None = None, constant: float = 60
) -> list[tuple[str, float]]:
    """Reciprocal rank fusion: an id scores the sum over rankings of ``weight / (constant + rank)``, rank from 1.

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
