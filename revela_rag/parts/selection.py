"""Which of the candidates are shown: those that say different things, or those that cover what was asked.

Sources: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", 1998. Coverage is DISCo's objective: the set that maximises the sum, over what a query asks for, of the best
match in any member. That is monotone and submodular, so greedy choice reaches 63 % of the best (Nemhauser, Wolsey and
Fisher 1978).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.parts.protocols import Candidates, Selector
from revela_rag.terms import analyze

__all__ = ["CANDIDATES", "MMR", "Coverage", "Select", "as_selector", "covering", "most_diverse"]

#: How many of the best a selector looks at.
CANDIDATES = 50

#: What :meth:`revela_rag.Index.search` takes as ``select``.
Select = Literal["top", "mmr", "coverage"] | Selector


@dataclass(frozen=True)
class MMR:
    """Hits that say different things, by maximal marginal relevance.

    Args:
        balance: 1 takes the best, 0 those farthest from one another.
        candidates: how many of the best to choose from; as many as are asked for at least.

    Raises:
        IndexingError: a number is out of range.
    """

    balance: float = 0.7
    candidates: int = CANDIDATES

    def __post_init__(self) -> None:
        _check(self.balance, self.candidates)

    def __call__(self, query: str, candidates: Candidates, /) -> list[int]:
        """See :class:`revela_rag.parts.Selector`."""
        return most_diverse(candidates.relevance, candidates.read_vectors(), self.balance)


@dataclass(frozen=True)
class Coverage:
    """Hits that together hold all that a query asks for.

    Each next one is worth its relevance and what it adds: for every facet of the query, how much better it matches
    than any hit before it. Facets are the query's words, each by how rare it is among the candidates. (Its token
    vectors, as in DISCo, gained no more and took a second: dev/log, search parts.)

    Args:
        balance: how much relevance counts beside what is added; 1 takes the best.
        candidates: how many of the best to choose from; as many as are asked for at least.

    Raises:
        IndexingError: a number is out of range.
    """

    balance: float = 0.8
    candidates: int = CANDIDATES

    def __post_init__(self) -> None:
        _check(self.balance, self.candidates)

    def __call__(self, query: str, candidates: Candidates, /) -> list[int]:
        """See :class:`revela_rag.parts.Selector`."""
        matches, weights = _shared_words(query, candidates.texts)
        return covering(matches, candidates.relevance, weights, self.balance)


def as_selector(select: Select) -> Selector | None:
    """The selector of a name, or the one that is given; None for ``"top"``.

    Raises:
        IndexingError: it is neither.
    """
    named: dict[str, Callable[[], Selector] | None] = {"top": None, "mmr": MMR, "coverage": Coverage}
    if isinstance(select, str) and select in named:
        make = named[select]
        return make() if make else None
    if isinstance(select, str) or not callable(select):
        known = ", ".join(map(repr, named))
        raise IndexingError(f"select={select!r} is not one of {known}, nor a function of a query and candidates.")
    return select


def most_diverse(relevance: np.ndarray, vectors: np.ndarray, balance: float) -> list[int]:
    """All places of (n,) candidates, best first, given their (n, d) unit vectors.

    Each next one has the highest ``balance`` times its relevance less ``1 - balance`` times its highest cosine to one
    that was taken.
    """
    if not len(relevance):
        return []
    taken = [int(np.argmax(relevance))]
    closest = vectors @ vectors[taken[0]]
    while len(taken) < len(relevance):
        gain = balance * relevance - (1 - balance) * closest
        gain[taken] = -np.inf
        taken.append(int(np.argmax(gain)))
        closest = np.maximum(closest, vectors @ vectors[taken[-1]])
    return taken


def covering(matches: np.ndarray, relevance: np.ndarray, weights: np.ndarray, balance: float) -> list[int]:
    """All places of n candidates in the order in which they cover f facets best, greedily and exactly.

    Args:
        matches: (n, f), how well each candidate matches each facet, 0 where not at all.
        relevance: (n,).
        weights: (f,) of the facets, not negative; only their proportions count.
        balance: of relevance, between 0 and 1, beside the weighted mean of what a candidate adds.
    """
    shares = weights / max(float(weights.sum()), np.finfo(float).tiny)
    reached, left, order = np.zeros(matches.shape[1]), list(range(len(relevance))), list[int]()
    while left:
        added = np.maximum(matches[left] - reached, 0.0) @ shares
        best = left.pop(int(np.argmax(balance * relevance[left] + (1 - balance) * added)))
        reached = np.maximum(reached, matches[best])
        order.append(best)
    return order


def _shared_words(query: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which text holds which of the query's terms, (n, f), and how rare these are among the texts, (f,)."""
    terms = list(dict.fromkeys(analyze(query)))
    held = [set(analyze(text)) for text in texts]
    matches = np.array([[float(term in words) for term in terms] for words in held]).reshape(len(texts), len(terms))
    holding = Counter(term for words in held for term in terms if term in words)
    return matches, np.array([math.log(1 + len(texts) / (1 + holding[term])) for term in terms])


def _check(balance: Any, candidates: Any) -> None:
    if isinstance(balance, bool) or not isinstance(balance, int | float) or not 0 <= balance <= 1:
        raise IndexingError(f"balance={balance!r} must be a number from 0 to 1.")
    if isinstance(candidates, bool) or not isinstance(candidates, int | np.integer) or candidates < 1:
        raise IndexingError(f"candidates={candidates!r} must be a whole number of at least 1.")
