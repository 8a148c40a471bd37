"""BM25 over prose and code.

The analyser keeps an identifier whole and adds what it is made of, so that ``getUserName`` is found by "user name",
by ``get_user_name`` and by itself. Scoring is bm25s (Lucene's BM25); nothing is stored as pickle.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from revela_rag.corpus.text import WIDE
from revela_rag.errors import IndexingError

__all__ = ["Analyzer", "LexicalIndex", "analyze", "read_terms"]

Analyzer = Literal["code", "plain"]

K1, B = 0.8, 0.75

_STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "from",
        "has",
        "have",
        "how",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "no",
        "not",
        "of",
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
    ]
)
_TOKEN = re.compile(r"[^\W_]+(?:[_.\-/:]+[^\W_]+)*|_+[^\W_]+(?:_+[^\W_]+)*")
_WORD = re.compile(r"[^\W_]+")
_WIDE = re.compile(f"{WIDE}+")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_IDENTIFIER = re.compile(r"_|[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z][0-9]|[0-9][A-Za-z]")
_FILES = {"data": "data.npy", "indices": "indices.npy", "indptr": "indptr.npy"}
_MAX_PATH = 80  # longer runs joined by dots and slashes are data, not names
_stemmers = threading.local()


def analyze(text: str, analyzer: Analyzer = "code") -> list[str]:
    """Split a text into the terms BM25 counts.

    ``"code"``: lower-cased, English stop words dropped, words stemmed; an identifier (camelCase, snake_case, with
    digits) gives itself whole and its pieces; a dotted or slashed path also gives itself whole.
    ``"plain"``: words only, without splitting or stemming.
    In both, Chinese, Japanese, Korean and Thai, which do not put spaces between words or endings, give every two
    neighbouring characters.

    Raises:
        ValueError: the analyzer has another name.
    """
    if analyzer == "plain":
        words = (match.lower() for match in _WORD.findall(text))
        return [term for word in words for term in _pairs(word) if term not in _STOP_WORDS]
    if analyzer != "code":
        raise ValueError(f"analyzer={analyzer!r} is not one of 'code', 'plain'.")
    terms: list[str] = []
    for token in _TOKEN.findall(text):
        terms.extend(_terms(token))
    return terms


@lru_cache(maxsize=200_000)
def _terms(token: str) -> tuple[str, ...]:
    words = re.split(r"[.\-/:]+", token)
    terms: list[str] = [token.lower()] if len(words) > 1 and len(token) <= _MAX_PATH else []
    for word in words:
        if not word.isascii() and _WIDE.search(word):
            terms += _pairs(word.lower())
        elif _IDENTIFIER.search(word):
            pieces = [piece.lower() for piece in _PIECE.findall(word)]
            terms.append(word.strip("_").lower())
            terms += [_stem(piece) for piece in pieces if len(pieces) > 1 and piece not in _STOP_WORDS]
        elif (lowered := word.lower()) and lowered not in _STOP_WORDS:
            terms.append(_stem(lowered))
    return tuple(terms)


def _pairs(word: str) -> list[str]:
    """The pairs of wide characters in a word, a single one as it is, and what stands between them whole."""
    if word.isascii():
        return [word]
    terms, start = list[str](), 0
    for run in _WIDE.finditer(word):
        terms += [word[start : run.start()]] if run.start() > start else []
        start, wide = run.end(), run[0]
        terms += [wide[i : i + 2] for i in range(max(1, len(wide) - 1))]
    return terms + ([word[start:]] if start < len(word) else [])


def _stem(word: str) -> str:
    stemmer = getattr(_stemmers, "english", None)
    if stemmer is None:  # one per thread: a stemmer is not safe to share
        import Stemmer

        stemmer = _stemmers.english = Stemmer.Stemmer("english")
    return str(stemmer.stemWord(word))


def read_terms(texts: Iterable[str], analyzer: Analyzer = "code") -> tuple[dict[str, int], list[array[int]]]:
    """Number the terms of texts: term to number, and the numbers of every text in order."""
    vocabulary: dict[str, int] = {}
    numbered = [
        array("i", [vocabulary.setdefault(term, len(vocabulary)) for term in analyze(text, analyzer)]) for text in texts
    ]
    return vocabulary, numbered


class LexicalIndex:
    """BM25 over a fixed set of texts. Made by :meth:`build` or :meth:`load`; safe to search from many threads."""

    def __init__(self, *, ids: list[str], analyzer: Analyzer, vocabulary: dict[str, int], scorer: Any) -> None:
        self.ids = ids
        self.analyzer: Analyzer = analyzer
        self._vocabulary = vocabulary
        self._scorer = scorer

    @classmethod
    def build(
        cls, ids: Iterable[str], texts: Iterable[str], *, analyzer: Analyzer = "code", k1: float = K1, b: float = B
    ) -> LexicalIndex:
        """Index texts.

        Args:
            ids: one per text.
            texts: consumed once; only their term numbers are held in memory.
            analyzer: see :func:`analyze`.
            k1: how soon repeated terms stop counting. The default finds as much by itself as the usual 1.2 and more
                together with cosines (docs/quality.md).
            b: how much long texts are held back, 0 to 1.

        Raises:
            ValueError: the numbers of ids and texts differ.
        """
        vocabulary, terms = read_terms(texts, analyzer)
        return cls.of_terms(ids, vocabulary, terms, analyzer=analyzer, k1=k1, b=b)

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
    ) -> LexicalIndex:
        """Index what :func:`read_terms` read; arguments as for :meth:`build`."""
        names = [str(id_) for id_ in ids]
        if len(names) != len(documents):
            raise ValueError(f"{len(names)} ids for {len(documents)} texts; give one id per text.")
        if not vocabulary:
            return cls(ids=names, analyzer=analyzer, vocabulary={}, scorer=None)
        scorer = _new_scorer(k1, b)
        scorer.index((list(documents), dict(vocabulary)), create_empty_token=False, show_progress=False)
        return cls(ids=names, analyzer=analyzer, vocabulary=vocabulary, scorer=scorer)

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of every text, (n,) float32, in the order of ``ids``; zero where no term is shared."""
        known = [self._vocabulary[term] for term in analyze(query, self.analyzer) if term in self._vocabulary]
        if not known:
            return np.zeros(len(self.ids), dtype=np.float32)
        return np.asarray(self._scorer.get_scores_from_ids(known), dtype=np.float32)

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
        """Write ``terms.json`` and three ``.npy`` arrays into ``folder``, which is made if missing."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        terms = {"analyzer": self.analyzer, "ids": self.ids, "vocabulary": list(self._vocabulary)}
        (root / "terms.json").write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8", errors="replace")
        for key, name in _FILES.items():
            values = self._scorer.scores[key] if self._scorer is not None else np.zeros(1, dtype=np.int32)
            np.save(root / name, values, allow_pickle=False)

    @classmethod
    def load(cls, folder: str | Path) -> LexicalIndex:
        """Read what :meth:`save` wrote.

        Raises:
            IndexingError: a file is missing or damaged.
        """
        root = Path(folder)
        try:
            terms = json.loads((root / "terms.json").read_bytes())
            arrays = {key: np.load(root / name, allow_pickle=False) for key, name in _FILES.items()}
            ids, vocabulary = list(terms["ids"]), {term: i for i, term in enumerate(terms["vocabulary"])}
            analyze("", terms["analyzer"])
            _check(arrays, len(ids), len(vocabulary))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise IndexingError(
                f"The lexical index in {str(root)!r} is missing or damaged ({error}); build the index again."
            ) from error
        if not vocabulary:
            return cls(ids=ids, analyzer=terms["analyzer"], vocabulary={}, scorer=None)
        scorer = _new_scorer(K1, B)  # the scores are stored ready-made, so these no longer matter
        scorer.scores = {**arrays, "num_docs": len(ids)}
        scorer.nonoccurrence_array = None
        return cls(ids=ids, analyzer=terms["analyzer"], vocabulary=vocabulary, scorer=scorer)


def _new_scorer(k1: float, b: float) -> Any:
    import bm25s

    return bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")


def _check(arrays: dict[str, np.ndarray], documents: int, terms: int) -> None:
    """Reject arrays that would send the scorer out of bounds."""
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    if not terms:
        return
    ordered = len(indptr) == terms + 1 and indptr[0] == 0 and (np.diff(indptr) >= 0).all()
    if not ordered or indptr[-1] != len(data) or len(data) != len(indices):
        raise ValueError("the arrays do not fit together")
    if len(indices) and not (indices.min() >= 0 and indices.max() < documents):
        raise ValueError("a term points outside the texts")
