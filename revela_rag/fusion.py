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
    "dense_share",
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

_FEWEST, _ASKING, _ASKED = 100, 400, 4096  # texts that can tell how sharply a model sees, and how many are asked
_SHARE, _SHARPNESS, _SLOPE = 0.6, 4.4, 0.2  # the share at a sharpness, and how it rises: dev/log, hybrid
_SHARES = (0.45, 0.65)
_ALIKE = 1e-4  # a spread of cosines that is rounding


def fused_scores(
    cosines: np.ndarray,
    lexical: np.ndarray,
    *,
    cosine_step: float = COSINE_STEP,
    share: float = 0.5,
    core: np.ndarray | None = None,
) -> np.ndarray:
    """How a query's candidates score when cosine and BM25 are fused by how sure each of them is.

    Each side's scores become a distribution over the hundred best of either side, p = softmax(cosine / cosine_step) and
    q = softmax(BM25 / max(BM25_STEP, best / MOST_STEPS)); further candidates change nothing of it. A candidate scores
    ``(w * p + (1 - w) * q) * p**w * q**(1 - w)``, w being the share, scaled to sum to 1 over the same: the arithmetic
    mean lets whichever side stands out for this query decide (a mixture of experts), the geometric mean rewards what
    both find (a product of experts, which alone would be linear interpolation of scores).

    Args:
        cosines: (n,) of the candidates.
        lexical: (n,) BM25 scores, 0 where a candidate shares no word with the query.
        cosine_step: rise of the cosine that makes a candidate e times as likely, see the function of that name.
        share: of the cosines, see :func:`dense_share`.
        core: places of the candidates that make up the distributions; None means the hundred best of either side.

    Returns:
        (n,) float64 above 0; of up to a hundred candidates they sum to 1. They order the candidates of one query and
        compare no two queries.

    Raises:
        ValueError: the shapes differ, a score is not finite or a BM25 score negative, the step is not positive, or
            the share is not between 0 and 1.
    """
    if not cosine_step > 0:
        raise ValueError(f"cosine_step={cosine_step} must be positive.")
    if not 0 < share < 1:
        raise ValueError(f"share={share} must lie between 0 and 1.")
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
    mixed = np.logaddexp(p + math.log(share), q + math.log(1 - share))
    shares: np.ndarray = np.exp(_log_softmax(mixed + share * p + (1 - share) * q, core))
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


def dense_share(documents: np.ndarray, vectors: Callable[[np.ndarray], np.ndarray]) -> float:
    """How much the cosines of this model count beside BM25 over this corpus.

    A model that knows a corpus' subject sees each text's nearest neighbour, in another document, far nearer than it
    sees any text: by 5 standard deviations of the cosines. One that does not sees all of them alike, by 3 or 4, and
    there BM25 finds more of what people ask. Nothing is embedded for it, and nobody's queries are needed. Adapting
    makes a model look sharper than it is, so an adapted one keeps what its base was measured to have.

    Args:
        documents: (n,) the document of each text, as numbers.
        vectors: gives the (b, d) unit vectors of (b,) places; it is asked for at most 4,096, evenly spaced.

    Returns:
        0.5 for fewer than 100 texts, else from 0.45 to 0.65.
    """
    if len(documents) < _FEWEST:
        return 0.5
    places = np.linspace(0, len(documents) - 1, min(len(documents), _ASKED)).astype(np.int64)
    asking = np.linspace(0, len(places) - 1, min(len(places), _ASKING)).astype(np.int64)
    texts = np.asarray(vectors(places), dtype=np.float32)
    cosines = texts[asking] @ texts.T
    others = documents[places[asking], None] != documents[places]
    apart = cosines[others]
    spread = float(apart.std()) if len(apart) else 0.0
    if spread <= _ALIKE:
        return 0.5
    nearest = np.where(others, cosines, -1.0).max(axis=1)[others.any(axis=1)]
    sharpness = (float(nearest.mean()) - float(apart.mean())) / spread
    return float(np.clip(_SHARE + _SLOPE * (sharpness - _SHARPNESS), *_SHARES))


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
