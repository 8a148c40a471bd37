"""How often which term, and which two neighbours, stand in which text: what BM25 is computed from.

Counts and not scores are kept, because a score depends on all texts of an index and a count on its text alone: postings
of texts that were added lie beside those that were there, and texts are taken out, without a change to what was
written.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.terms import VERSION

__all__ = ["Postings"]

_TERMS = "terms.json"
_ARRAYS = ("pairs", "starts", "places", "counts", "lengths")
_NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """The terms of n texts. Made by :meth:`of_terms`, :meth:`merged` or :meth:`load`; never changed.

    Attributes:
        vocabulary: t terms and their numbers.
        pairs: (p,) int64, ascending: what :func:`_keys` gives for two neighbours, in either order.
        starts: (t + p + 1,) int64; ``starts[c]`` to ``starts[c + 1]`` are the postings of column c, terms before pairs.
        places: (z,) int32, the text of each posting; a column has a text once.
        counts: (z,) unsigned, how often the column's term or pair stands there.
        lengths: (n,) int32, terms of each text.
    """

    vocabulary: Mapping[str, int]
    pairs: np.ndarray
    starts: np.ndarray
    places: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of_terms(
        cls, vocabulary: Mapping[str, int], documents: Sequence[array[int]], *, pairs: bool = True
    ) -> Postings:
        """Count what :func:`revela_rag.terms.read_terms` read; without ``pairs`` neighbours are not looked at."""
        lengths = np.array([len(document) for document in documents], dtype=np.int32)
        terms = np.frombuffer(b"".join(map(bytes, documents)), dtype=np.intc)
        texts = np.repeat(np.arange(len(documents), dtype=np.int32), lengths)
        single = _grouped(terms, texts, None)
        beside = texts[1:] == texts[:-1] if pairs else np.zeros(max(0, len(texts) - 1), dtype=bool)
        double = _grouped(_keys(terms[:-1][beside], terms[1:][beside]), texts[1:][beside], None)
        return cls._of_columns(vocabulary, single, double, lengths)

    @classmethod
    def merged(cls, parts: Sequence[tuple[Postings, np.ndarray]]) -> Postings:
        """The postings of several, one behind the other, without the texts that are marked False in (n,) bool."""
        vocabulary: dict[str, int] = {}
        singles: list[tuple[np.ndarray, ...]] = []
        doubles: list[tuple[np.ndarray, ...]] = []
        offset = 0
        for part, keep in parts:
            numbers = np.array(
                [vocabulary.setdefault(term, len(vocabulary)) for term in part.vocabulary], dtype=np.int64
            )
            first, second = _sides(part.pairs)
            texts = (np.cumsum(keep) - 1 + offset).astype(np.int32)
            for found, keys, starts in (
                (singles, numbers, part.starts[: len(numbers) + 1]),
                (doubles, _keys(numbers[first], numbers[second]), part.starts[len(numbers) :]),
            ):
                some = slice(starts[0], starts[-1])
                kept = keep[part.places[some]]
                columns = np.repeat(keys, np.diff(starts))
                found.append((columns[kept], texts[part.places[some][kept]], part.counts[some][kept]))
            offset += int(keep.sum())
        lengths = np.concatenate([part.lengths[keep] for part, keep in parts])
        # texts ascend within a part's column and from part to part, as grouping needs it
        single, double = (
            _grouped(*(np.concatenate(each) for each in zip(*found, strict=True))) for found in (singles, doubles)
        )
        return cls._of_columns(vocabulary, single, double, lengths)

    @classmethod
    def _of_columns(
        cls, vocabulary: Mapping[str, int], single: _Columns, double: _Columns, lengths: np.ndarray
    ) -> Postings:
        """Put the columns of terms and of pairs side by side; terms without any text are left out."""
        held = np.zeros(len(vocabulary), dtype=bool)
        held[single.keys] = True
        names = [name for name, kept in zip(vocabulary, held.tolist(), strict=True) if kept]
        first, second = (np.cumsum(held, dtype=np.int64)[side] - 1 for side in _sides(double.keys))
        counts = np.concatenate([single.counts, double.counts])
        return cls(
            {name: number for number, name in enumerate(names)},
            _keys(first, second),
            np.concatenate([[0], np.cumsum(np.concatenate([single.widths, double.widths]))]).astype(np.int64),
            np.concatenate([single.texts, double.texts]),
            counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
            lengths,
        )

    def of_term(self, term: str) -> tuple[np.ndarray, np.ndarray]:
        """The texts that hold a term, and how often."""
        column = self.vocabulary.get(term)
        return self._column(column) if column is not None else (_NOTHING, _NOTHING)

    def of_pair(self, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
        """The texts where two terms stand together, in either order, and how often."""
        numbers = self.vocabulary.get(first), self.vocabulary.get(second)
        if numbers[0] is None or numbers[1] is None or not len(self.pairs):
            return _NOTHING, _NOTHING
        key = int(_keys(np.array(numbers[0]), np.array(numbers[1])))
        place = int(np.searchsorted(self.pairs, key))
        if place == len(self.pairs) or self.pairs[place] != key:
            return _NOTHING, _NOTHING
        return self._column(len(self.vocabulary) + place)

    def _column(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        some = slice(self.starts[column], self.starts[column + 1])
        return self.places[some], self.counts[some]

    def save(self, folder: Path) -> None:
        """Write ``terms.json`` and five ``.npy`` arrays into ``folder``, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        terms = {"version": VERSION, "vocabulary": list(self.vocabulary)}
        (folder / _TERMS).write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8", errors="replace")
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Postings:
        """Read what :meth:`save` wrote.

        Raises:
            IndexingError: a file is missing or damaged, or its terms are those of another version.
        """
        try:
            terms = _read_terms(folder)
            if terms.get("version") != VERSION:
                raise ValueError(f"it has the terms of version {terms.get('version', 1)}, not {VERSION}")
            vocabulary = {str(term): i for i, term in enumerate(terms["vocabulary"])}
            found = cls(vocabulary, *(np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS))
            found._check(len(terms["vocabulary"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise IndexingError(
                f"The lexical index in {str(folder)!r} is missing, old or damaged ({error}); build the index again."
            ) from error
        return found

    @classmethod
    def is_current(cls, folder: Path) -> bool:
        """Whether :meth:`save` of this version wrote the terms in ``folder``."""
        try:
            return bool(_read_terms(folder).get("version") == VERSION)
        except (OSError, ValueError, AttributeError):
            return False

    def _check(self, terms: int) -> None:
        """Reject arrays that would send a search out of bounds."""
        arrays = [getattr(self, name) for name in _ARRAYS]
        if any(values.ndim != 1 or values.dtype.kind not in "iu" for values in arrays):
            raise ValueError("an array is no list of whole numbers")
        columns = len(self.starts) == terms + len(self.pairs) + 1 and self.starts[0] == 0
        together = columns and self.starts[-1] == len(self.places) == len(self.counts)
        if not together or (np.diff(self.starts) < 0).any():
            raise ValueError("the arrays do not fit together")
        if len(self.places) and not (self.places.min() >= 0 and self.places.max() < len(self.lengths)):
            raise ValueError("a term points outside the texts")


def _read_terms(folder: Path) -> Any:
    return json.loads((folder / _TERMS).read_bytes())


def _keys(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A number for each two terms, int64, the same in either order."""
    keys: np.ndarray = (np.minimum(first, second).astype(np.int64) << 32) | np.maximum(first, second)
    return keys


def _sides(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two terms that :func:`_keys` was given, the smaller first."""
    return keys >> 32, keys & 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Postings grouped by c ascending keys, of which each has ``widths`` texts."""

    keys: np.ndarray
    widths: np.ndarray
    texts: np.ndarray
    counts: np.ndarray


def _grouped(keys: np.ndarray, texts: np.ndarray, counts: np.ndarray | None) -> _Columns:
    """Group occurrences by key and text; the texts of a key ascend.

    Counts of None mean that each is one occurrence; otherwise a text comes once for a key.
    """
    order = np.argsort(keys, kind="stable")
    keys, texts = keys[order], texts[order]
    another = np.ones(len(keys), dtype=bool)
    another[1:] = keys[1:] != keys[:-1]
    if counts is not None:
        counts = counts[order]
    else:
        heads = another.copy()
        heads[1:] |= texts[1:] != texts[:-1]
        places = np.flatnonzero(heads)
        counts = np.diff(places, append=len(keys))
        keys, texts, another = keys[places], texts[places], another[places]
    starts = np.flatnonzero(another)
    return _Columns(keys[starts], np.diff(starts, append=len(keys)), texts, counts)
