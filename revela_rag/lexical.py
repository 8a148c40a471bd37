"""BM25 over prose and code: bm25s (Lucene's BM25) over the terms of :mod:`revela_rag.terms`, stored without pickle.

Neighbouring terms count as a pair, too, in either order: a text where the words of a query stand together is likelier
about them than one where they are strewn (Metzler and Croft 2005, "A Markov Random Field Model for Term Dependencies",
sequential dependence). Stop words between them do not matter.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.terms import VERSION, Analyzer, analyze, read_terms

__all__ = ["LexicalIndex"]

K1, B = 0.8, 0.75
PAIR_WEIGHT = 0.2  # of a pair's BM25 beside that of its two terms; docs/hybrid.md

_FILES = {"data": "data.npy", "indices": "indices.npy", "indptr": "indptr.npy"}
_PAIRS, _NO_PAIRS = "pairs.npy", np.empty(0, dtype=np.int64)


class LexicalIndex:
    """BM25 over a fixed set of texts. Made by :meth:`build` or :meth:`load`; safe to search from many threads."""

    def __init__(
        self, *, ids: list[str], analyzer: Analyzer, vocabulary: dict[str, int], pairs: np.ndarray, scorer: Any
    ) -> None:
        self.ids = ids
        self.analyzer: Analyzer = analyzer
        self._vocabulary = vocabulary
        self._pairs = pairs  # (p,) int64, ascending: what `_keys` gives for the pairs; their columns follow the terms'
        self._scorer = scorer

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
            k1: how soon repeated terms stop counting. The default finds as much by itself as the usual 1.2 and more
                together with cosines (docs/hybrid.md).
            b: how much long texts are held back, 0 to 1.
            pair_weight: of the BM25 of neighbouring terms beside that of the terms; 0 for plain BM25.

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
        pairs = _NO_PAIRS
        if not vocabulary:
            return cls(ids=names, analyzer=analyzer, vocabulary={}, pairs=pairs, scorer=None)
        scorer = _new_scorer(k1, b)
        scorer.index((list(documents), dict(vocabulary)), create_empty_token=False, show_progress=False)
        if pair_weight:
            pairs, numbered = _number_pairs(documents, len(vocabulary))
        if len(pairs):
            found = _new_scorer(k1, b).build_index_from_ids(range(len(pairs)), numbered, show_progress=False)
            scorer.scores = _side_by_side(scorer.scores, found, pair_weight)
        return cls(ids=names, analyzer=analyzer, vocabulary=vocabulary, pairs=pairs, scorer=scorer)

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of every text, (n,) float32, in the order of ``ids``; zero where no term is shared."""
        terms = np.array([self._vocabulary.get(term, -1) for term in analyze(query, self.analyzer)], dtype=np.int64)
        known = terms[terms >= 0]
        if not len(known):
            return np.zeros(len(self.ids), dtype=np.float32)
        beside = _keys(terms, len(self._vocabulary))[(terms[:-1] >= 0) & (terms[1:] >= 0)]
        beside = beside[beside <= self._pairs[-1]] if len(self._pairs) else beside[:0]
        places = np.searchsorted(self._pairs, beside)
        columns = np.concatenate([known, len(self._vocabulary) + places[self._pairs[places] == beside]])
        return np.asarray(self._scorer.get_scores_from_ids(columns), dtype=np.float32)

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
        if k < 1:
            raise ValueError(f"k={k} must be at least 1.")
        scores = self.scores(query)
        candidates = np.flatnonzero(scores > 0 if mask is None else (scores > 0) & mask)
        if len(candidates) > k:
            cut = np.partition(scores[candidates], len(candidates) - k)[len(candidates) - k]
            candidates = candidates[scores[candidates] >= cut]
        best = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
        return [(self.ids[position], float(scores[position])) for position in best]

    def save(self, folder: str | Path) -> None:
        """Write ``terms.json`` and four ``.npy`` arrays into ``folder``, which is made if missing."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        terms = {"version": VERSION, "analyzer": self.analyzer, "ids": self.ids, "vocabulary": list(self._vocabulary)}
        (root / "terms.json").write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8", errors="replace")
        for key, name in _FILES.items():
            values = self._scorer.scores[key] if self._scorer is not None else np.zeros(1, dtype=np.int32)
            np.save(root / name, values, allow_pickle=False)
        np.save(root / _PAIRS, self._pairs, allow_pickle=False)

    @classmethod
    def load(cls, folder: str | Path) -> LexicalIndex:
        """Read what :meth:`save` wrote.

        Raises:
            IndexingError: a file is missing or damaged, or its terms are those of another version.
        """
        root = Path(folder)
        try:
            terms = json.loads((root / "terms.json").read_bytes())
            if terms.get("version") != VERSION:
                raise ValueError(f"it has the terms of version {terms.get('version', 1)}, not {VERSION}")
            arrays = {key: np.load(root / name, allow_pickle=False) for key, name in _FILES.items()}
            pairs = np.load(root / _PAIRS, allow_pickle=False) if (root / _PAIRS).exists() else _NO_PAIRS
            ids, vocabulary = list(terms["ids"]), {term: i for i, term in enumerate(terms["vocabulary"])}
            analyze("", terms["analyzer"])
            _check(arrays, len(ids), len(vocabulary), pairs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise IndexingError(
                f"The lexical index in {str(root)!r} is missing, old or damaged ({error}); build the index again."
            ) from error
        if not vocabulary:
            return cls(ids=ids, analyzer=terms["analyzer"], vocabulary={}, pairs=pairs, scorer=None)
        scorer = _new_scorer(K1, B)  # the scores are stored ready-made, so these no longer matter
        scorer.scores = {**arrays, "num_docs": len(ids)}
        scorer.nonoccurrence_array = None
        return cls(ids=ids, analyzer=terms["analyzer"], vocabulary=vocabulary, pairs=pairs, scorer=scorer)


def _keys(terms: np.ndarray, size: int) -> np.ndarray:
    """A number for each two neighbours among (n,) term numbers below ``size``, (n - 1,), the same in either order."""
    first, second = terms[:-1].astype(np.int64), terms[1:].astype(np.int64)
    keys: np.ndarray = np.minimum(first, second) * size + np.maximum(first, second)
    return keys


def _number_pairs(documents: Sequence[array[int]], size: int) -> tuple[np.ndarray, list[array[int]]]:
    """The pairs of neighbours that documents have, ascending, and those of every document by their place among them."""
    found = [_keys(np.frombuffer(document, dtype=np.intc), size) for document in documents]
    pairs, places = np.unique(np.concatenate(found), return_inverse=True)
    ends = np.cumsum([len(keys) for keys in found])
    parts = np.split(places.astype(np.intc), ends[:-1])
    return pairs, [array("i", part.tobytes()) for part in parts]


def _side_by_side(terms: dict[str, Any], pairs: dict[str, Any], weight: float) -> dict[str, Any]:
    """bm25s' matrix of terms and, behind them, of pairs, their scores times ``weight``."""
    return {
        "data": np.concatenate([terms["data"], np.float32(weight) * pairs["data"]]),
        "indices": np.concatenate([terms["indices"], pairs["indices"]]),
        "indptr": np.concatenate([terms["indptr"], terms["indptr"][-1] + pairs["indptr"][1:]]),
        "num_docs": terms["num_docs"],
    }


def _new_scorer(k1: float, b: float) -> Any:
    import bm25s

    return bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")


def _check(arrays: dict[str, np.ndarray], documents: int, terms: int, pairs: np.ndarray) -> None:
    """Reject arrays that would send the scorer out of bounds."""
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    if not terms:
        return
    if pairs.dtype != np.int64 or pairs.ndim != 1:
        raise ValueError("the pairs are no list of numbers")
    ordered = len(indptr) == terms + len(pairs) + 1 and indptr[0] == 0 and (np.diff(indptr) >= 0).all()
    if not ordered or indptr[-1] != len(data) or len(data) != len(indices):
        raise ValueError("the arrays do not fit together")
    if len(indices) and not (indices.min() >= 0 and indices.max() < documents):
        raise ValueError("a term points outside the texts")
