"""BM25 over prose and code: Lucene's, over the terms of :mod:`revela_rag.terms`.

Neighbouring terms count as a pair, too, in either order: a text where the words of a query stand together is likelier
about them than one where they are strewn (Metzler and Croft 2005, "A Markov Random Field Model for Term Dependencies",
sequential dependence). Stop words between them do not matter.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from revela_rag.postings import Postings
from revela_rag.terms import Analyzer, analyze, read_terms

__all__ = ["BM25", "Holdings", "LexicalIndex", "best_places"]

K1, B = 0.8, 0.75
PAIR_WEIGHT = 0.2  # of a pair's BM25 beside that of its two terms; dev/log, hybrid


@dataclass(frozen=True, slots=True)
class Holdings:
    """How many texts and documents there are, and how many hold each term and pair of a query, in its order.

    Those of several collections add up, so that a term is worth the same in all of them.
    """

    texts: int
    documents: int
    of_texts: tuple[int, ...]
    of_documents: tuple[int, ...]

    def __add__(self, other: Holdings) -> Holdings:
        return Holdings(
            self.texts + other.texts,
            self.documents + other.documents,
            tuple(a + b for a, b in zip(self.of_texts, other.of_texts, strict=True)),
            tuple(a + b for a, b in zip(self.of_documents, other.of_documents, strict=True)),
        )


class BM25:
    """BM25 over several postings as if they were one: what counts are worth among all texts there are now.

    Args:
        parts: one or more postings, and the place in the scores of each of their texts; -1 where it is gone.
        size: n, how many texts there are; each has one place.
        owners: (n,) int64, the document of each text, numbered from 0, to score documents as well.
        analyzer: see :func:`revela_rag.terms.analyze`.
        k1: how soon repeated terms stop counting. The default finds as much by itself as the usual 1.2 and more
            together with cosines (dev/log, hybrid).
        b: how much long texts are held back, 0 to 1.
        pair_weight: of the BM25 of neighbouring terms beside that of the terms; 0 for plain BM25.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Postings, np.ndarray]],
        size: int,
        *,
        owners: np.ndarray | None = None,
        analyzer: Analyzer = "code",
        k1: float = K1,
        b: float = B,
        pair_weight: float = PAIR_WEIGHT,
    ) -> None:
        self._size, self._analyzer, self._pair_weight = size, analyzer, pair_weight
        self._owners = owners
        lengths = np.zeros(size, dtype=np.int64)
        for postings, places in parts:
            lengths[places[places >= 0]] = postings.lengths[places >= 0]
        self._texts = _Level(lengths, np.arange(size), k1, b)
        self._documents = self._texts if owners is None else _Level(lengths, owners, k1, b)
        self._parts = [_Part(postings, places, self._texts, owners) for postings, places in parts]

    def scores(self, query: str, among: Holdings | None = None) -> np.ndarray:
        """BM25 score of every text, (n,) float32; zero where no term is shared; see :meth:`scores_in_context`."""
        return self._scores(query, None, among)

    def scores_in_context(self, query: str, among: Holdings | None = None) -> np.ndarray:
        """(n,) float32, the mean of a text's BM25 score and its document's.

        Two terms are neighbours in a document where they are in one of its texts.

        Args:
            query: plain text.
            among: what terms are worth where these texts are some of many; None where they are all.
        """
        if self._owners is None:
            return self._scores(query, None, among)
        around = np.zeros(self._documents.count)
        own = self._scores(query, around, among)
        return ((own + around[self._owners]) / 2).astype(np.float32)

    def holdings(self, query: str) -> Holdings:
        """How many texts and documents hold each term and pair of a query."""
        texts, documents = [], []
        for found, _, _ in self._columns(query):
            texts.append(sum(part.living(held) for part, held, _ in found))
            owners = [part.owners[held] for part, held, _ in found]
            documents.append(texts[-1] if self._owners is None else self._living(np.unique(np.concatenate(owners))))
        return Holdings(self._size, self._documents.count, tuple(texts), tuple(documents))

    def _living(self, documents: np.ndarray) -> int:
        return int((documents < self._documents.count).sum())

    def _scores(self, query: str, around: np.ndarray | None, among: Holdings | None = None) -> np.ndarray:
        """Scores of the texts; those of the documents are added to ``around``."""
        own = [np.zeros(len(part.places)) for part in self._parts]
        for place, (found, weight, paired) in enumerate(self._columns(query)):
            holding = sum(part.living(texts) for part, texts, _ in found)
            rarity = weight * (
                self._texts.rarity(holding) if among is None else worth(among.of_texts[place], among.texts)
            )
            for scores, (part, texts, counts) in zip(own, found, strict=True):
                scores[texts] += rarity * counts / (part.norms[paired][texts] + counts)
            if around is not None:
                held = np.zeros(len(around) + 1)
                for part, texts, counts in found:
                    held += np.bincount(part.owners[texts], weights=counts, minlength=len(held))
                there = np.flatnonzero(held[:-1])
                rarity = weight * (
                    self._documents.rarity(len(there))
                    if among is None
                    else worth(among.of_documents[place], among.documents)
                )
                around[there] += rarity * held[there] / (self._documents.norms[paired][there] + held[there])
        together = np.zeros(self._size, dtype=np.float32)
        for part, scores in zip(self._parts, own, strict=True):
            alive = part.places >= 0
            together[part.places[alive]] = scores[alive]
        return together

    def _columns(self, query: str) -> Iterator[tuple[list[_Found], float, bool]]:
        """Each term and pair of a query: what the parts have of it, its weight, and whether it is a pair."""
        terms = analyze(query, self._analyzer)
        for term, times in Counter(terms).items():
            yield [part.find(part.postings.of_term(term)) for part in self._parts], float(times), False
        if self._pair_weight:
            beside = Counter((min(two), max(two)) for two in pairwise(terms))
            for two, times in beside.items():
                yield [part.find(part.postings.of_pair(*two)) for part in self._parts], times * self._pair_weight, True


def worth(holding: int, count: int) -> float:
    """What a term is worth that ``holding`` of ``count`` texts hold: its inverse document frequency."""
    return math.log(1 + (count - holding + 0.5) / (holding + 0.5))


class _Level:
    """The statistics of texts, or of the documents that they are the pieces of.

    Attributes:
        count: how many there are.
        norms: (count,) each, what the length says against a term and against a pair.
    """

    def __init__(self, lengths: np.ndarray, owners: np.ndarray, k1: float, b: float) -> None:
        self.count = int(owners.max(initial=-1)) + 1
        self.norms: list[np.ndarray] = []
        for held in (lengths, np.maximum(lengths - 1, 0)):  # a text of n terms has n - 1 pairs of neighbours
            whole = np.bincount(owners, weights=held)
            mean = whole.mean() if self.count else 0.0
            self.norms.append(k1 * (1 - b + b * whole / max(mean, np.finfo(float).tiny)))

    def rarity(self, holding: int) -> float:
        """What a term is worth that so many hold."""
        return worth(holding, self.count)


class _Part:
    """Postings and what scoring asks of their texts, by the numbers that these have there."""

    def __init__(self, postings: Postings, places: np.ndarray, level: _Level, owners: np.ndarray | None) -> None:
        self.postings, self.places = postings, places
        self._alive = None if (places >= 0).all() else places >= 0
        self.norms = [np.append(norms, 1.0)[places] for norms in level.norms]
        # what is gone belongs to one more document, which nobody asks for
        self.owners = places if owners is None else np.append(owners, owners.max(initial=-1) + 1)[places]

    def find(self, column: tuple[np.ndarray, np.ndarray]) -> _Found:
        texts, counts = column
        return self, texts.astype(np.intp), counts.astype(np.float64)

    def living(self, texts: np.ndarray) -> int:
        return len(texts) if self._alive is None else int(self._alive[texts].sum())


_Found = tuple[_Part, np.ndarray, np.ndarray]


class LexicalIndex:
    """BM25 over a fixed set of texts in memory. Made by :meth:`build`; safe to search from many threads."""

    def __init__(self, *, ids: list[str], bm25: BM25) -> None:
        self.ids = ids
        self._bm25 = bm25

    @classmethod
    def build(
        cls,
        ids: Iterable[str],
        texts: Iterable[str],
        *,
        analyzer: Analyzer = "code",
        k1: float = K1,
        b: float = B,
        pair_weight: float = PAIR_WEIGHT,
    ) -> LexicalIndex:
        """Index texts.

        Args:
            ids: one per text.
            texts: consumed once; only their term numbers are held in memory.
            analyzer: see :func:`revela_rag.terms.analyze`.
            k1: see :class:`BM25`.
            b: likewise.
            pair_weight: likewise.

        Raises:
            ValueError: the numbers of ids and texts differ.
        """
        vocabulary, terms = read_terms(texts, analyzer)
        return cls.of_terms(ids, vocabulary, terms, analyzer=analyzer, k1=k1, b=b, pair_weight=pair_weight)

    @classmethod
    def of_terms(
        cls,
        ids: Iterable[str],
        vocabulary: dict[str, int],
        documents: Sequence[array[int]],
        *,
        analyzer: Analyzer = "code",
        k1: float = K1,
        b: float = B,
        pair_weight: float = PAIR_WEIGHT,
    ) -> LexicalIndex:
        """Index what :func:`revela_rag.terms.read_terms` read; arguments as for :meth:`build`."""
        names = [str(id_) for id_ in ids]
        if len(names) != len(documents):
            raise ValueError(f"{len(names)} ids for {len(documents)} texts; give one id per text.")
        postings = Postings.of_terms(vocabulary, documents, pairs=bool(pair_weight))
        parts = [(postings, np.arange(len(names)))]
        bm25 = BM25(parts, len(names), analyzer=analyzer, k1=k1, b=b, pair_weight=pair_weight)
        return cls(ids=names, bm25=bm25)

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of every text, (n,) float32, in the order of ``ids``; zero where no term is shared."""
        return self._bm25.scores(query)

    def search(self, query: str, k: int = 10, *, mask: np.ndarray | None = None) -> list[tuple[str, float]]:
        """The best texts that share a term with the query.

        Args:
            query: any text; without a known term nothing is found.
            k: at most this many; must be positive.
            mask: (n,) bool; only texts marked True are considered.

        Returns:
            ``(id, score)``, best first, scores above zero; equal scores keep the order of the texts.

        Raises:
            ValueError: ``k`` is not positive.
        """
        scores = self.scores(query)
        return [(self.ids[place], float(scores[place])) for place in best_places(scores, k, mask)]


def best_places(scores: np.ndarray, k: int, mask: np.ndarray | None = None) -> np.ndarray:
    """The places of the ``k`` best scores above zero, best first; equal ones in their order.

    Args:
        scores: (n,) of all texts.
        k: at most this many; must be positive.
        mask: (n,) bool; only texts marked True are considered.

    Raises:
        ValueError: ``k`` is not positive.
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1.")
    candidates = np.flatnonzero(scores > 0 if mask is None else (scores > 0) & mask)
    if len(candidates) > k:
        cut = np.partition(scores[candidates], len(candidates) - k)[len(candidates) - k]
        candidates = candidates[scores[candidates] >= cut]
    best: np.ndarray = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return best
