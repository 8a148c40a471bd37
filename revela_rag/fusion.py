"""One ranking out of cosines and BM25: each side counts by how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = [
    "BM25_STEP",
    "COSINE_STEP",
    "DEPTH",
    "MOST_STEPS",
    "candidates",
    "cosine_step",
    "fused_scores",
    "largest",
]

#: How much a cosine, and how much a BM25 score, must rise for a document to become e times as likely; the cosine of
#: MiniLM, for others see :func:`cosine_step`.
COSINE_STEP, BM25_STEP = 0.05, 1.25
#: A query's best BM25 score counts as at most so many steps: long queries have large scores.
MOST_STEPS = 12.0
#: Candidates that each side proposes, at least.
DEPTH = 100

_SHARE_OF_SPREAD = 0.45  # measured in dev/log, hybrid
_PRIOR_PAIRS = 100  # of texts as far apart as a step of COSINE_STEP supposes
_SAMPLE = 1024


def fused_scores(
    cosines: np.ndarray,
    lexical: np.ndarray,
    *,
    cosine_step: float = COSINE_STEP,
    core: np.ndarray | None = None,
) -> np.ndarray:
    """How a query's candidates score when cosine and BM25 are fused by how sure each of them is.

    Each side's scores become a distribution over the hundred best of either side, p = softmax(cosine / cosine_step) and
    q = softmax(BM25 / max(BM25_STEP, best / MOST_STEPS)); further candidates change nothing of it. A candidate scores
    ``(p + q) / 2 * sqrt(p * q)``, scaled to sum to 1 over the same: the arithmetic mean lets whichever side stands out
    for this query decide (a mixture of experts), the geometric mean rewards what both find (a product of experts, which
    alone would be linear interpolation of scores).

    Args:
        cosines: (n,) of the candidates.
        lexical: (n,) BM25 scores, 0 where a candidate shares no word with the query.
        cosine_step: rise of the cosine that makes a candidate e times as likely, see the function of that name.
        core: places of the candidates that make up the distributions; None means the hundred best of either side.

    Returns:
        (n,) float64 above 0; of up to a hundred candidates they sum to 1. They order the candidates of one query and
        compare no two queries.

    Raises:
        ValueError: the shapes differ, a score is not finite or a BM25 score negative, or the step is not positive.
    """
    if not cosine_step > 0:
        raise ValueError(f"cosine_step={cosine_step} must be positive.")
    dense, words = np.asarray(cosines, dtype=np.float64), np.asarray(lexical, dtype=np.float64)
    if dense.ndim != 1 or dense.shape != words.shape:
        raise ValueError(f"expected two vectors of one length, got shapes {dense.shape} and {words.shape}.")
    if not (np.isfinite(dense).all() and np.isfinite(words).all() and (words >= 0).all()):
        raise ValueError("cosines and BM25 scores must be finite numbers, BM25 scores not negative.")
    if not len(dense):
        return dense
    core = candidates(dense, words) if core is None else core
    p = _log_softmax(dense / cosine_step, core)
    q = _log_softmax(words / max(BM25_STEP, float(words.max()) / MOST_STEPS), core)
    shares: np.ndarray = np.exp(_log_softmax(np.logaddexp(p, q) + (p + q) / 2, core))
    return shares


def cosine_step(count: int, vectors: Callable[[np.ndarray], np.ndarray]) -> float:
    """How much a cosine must rise with this model over this corpus for a document to become e times as likely.

    Models differ in how far apart they put texts that have nothing in common: some have cosines from 0 to 1, others
    from 0.7 to 0.9. The step is 0.45 standard deviations of the cosines between two texts of the corpus; few texts say
    little about those, so a hundred pairs of the usual spread count beside them.

    Args:
        count: texts of the corpus.
        vectors: gives the (n, d) unit vectors of (n,) places; it is asked for at most 1,024, evenly spaced.
    """
    pairs, squares = _PRIOR_PAIRS, _PRIOR_PAIRS * (COSINE_STEP / _SHARE_OF_SPREAD) ** 2
    if count > 1:
        sample = np.asarray(vectors(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64)), dtype=np.float64)
        cosines = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
        pairs, squares = pairs + len(cosines), squares + float(((cosines - cosines.mean()) ** 2).sum())
    return _SHARE_OF_SPREAD * math.sqrt(squares / pairs)


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` largest of (n,) scores, ascending; of equal ones the first."""
    if len(scores) <= count:
        return np.arange(len(scores))
    least = np.partition(scores, -count)[-count]
    above, ties = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, ties[: count - len(above)]]))


def candidates(cosines: np.ndarray, lexical: np.ndarray, count: int = DEPTH) -> np.ndarray:
    """Places, ascending, of the ``count`` best cosines and of the ``count`` best BM25 scores above 0, of (n,) each."""
    words = largest(lexical, count)
    found: np.ndarray = np.union1d(largest(cosines, count), words[lexical[words] > 0])
    return found


def _log_softmax(values: np.ndarray, over: np.ndarray) -> np.ndarray:
    shifted = values - values[over].max()
    result: np.ndarray = shifted - np.log(np.exp(shifted[over]).sum())
    return result
