"""Candidates without reading every vector: a graph (HNSW), clusters of 8-bit codes (IVF-SQ8), or a code for each.

A code of 1, 4, 8 or 16 bits a dimension is all that stays in memory of a vector; those that come closest by their codes
are compared exactly, from disk.

No structure is changed once it is written. Rows that die later are left out while searching; the store searches rows
that came later by itself, and has a new structure built when some share is stale.

Sources: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2018;
Jégou et al., "Product quantization for nearest neighbor search", 2011 (inverted lists); Gao and Long, "RaBitQ:
Quantizing high-dimensional vectors with a theoretical error bound for approximate nearest neighbor search", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.index.stores.segments import Found, Segment, dead_file, link, read_faiss, read_rows, write_faiss

__all__ = ["LEAST", "Approximate", "cosines"]

#: Below so many vectors every kind searches exactly, which takes about 2 ms; clusters also need as many to be found.
LEAST = 10_000
_FILE, _ROWS = "approximate.faiss", "approximate.rows.npy"
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 32, 80, 128
_PROBES = 24
_SAMPLE = 64  # training vectors per cluster; FAISS asks for 39 at least
_SAMPLE_OF_CODES = 65_536  # vectors that tell where codes lie
_QUERY_BITS = 8  # of a query beside 1-bit codes; FAISS' default, floats, takes 400 times as long


@dataclass(frozen=True, slots=True)
class _Structure:
    """How a kind finds candidates.

    Attributes:
        factory: FAISS' description.
        candidates: per hit, compared exactly afterwards; 0 where what it finds is exact.
        stale: share of dead or uncovered vectors at which it is made anew.
        selective: filters that leave a smaller share are searched exactly.
    """

    factory: str
    candidates: int
    stale: float
    selective: float


#: Codes are made at half a million vectors a second, so that few need to be stale, and find what a filter leaves as
#: well as all; a graph finds 0.89 of the best at 7 % of 30,000.
_STRUCTURES: Mapping[str, _Structure] = {
    "hnsw": _Structure(f"IDMap,HNSW{_LINKS},Flat", 0, 0.2, 0.1),
    "ivf-sq8": _Structure("IVF{lists},SQ8", 4, 0.2, 0.1),
    "rabitq": _Structure("IDMap,RaBitQ", 24, 0.05, 0.01),
    "int4": _Structure("IDMap,SQ4", 4, 0.05, 0.01),
    "int8": _Structure("IDMap,SQ8", 4, 0.05, 0.01),
    "fp16": _Structure("IDMap,SQfp16", 2, 0.05, 0.01),
}


class Approximate:
    """A FAISS structure over the living vectors of some segments.

    Attributes:
        rows: (n,) int64, what it was built over.
        dead: (m,) int64, sorted; those of them that are not to be found any more.
    """

    def __init__(self, index: Any, kind: str, rows: np.ndarray, dead: np.ndarray, *, folder: Path | None) -> None:
        self.rows = rows
        self.dead = dead
        self._index = index
        self._kind = kind
        self._folder = folder
        self._living: np.ndarray | None = None
        if len(dead):
            self._living = np.zeros(int(rows.max()) + 1, dtype=bool)
            self._living[self.alive] = True

    @classmethod
    def open(cls, folder: Path, kind: str, dimension: int) -> Approximate | None:
        """Read the structure of a generation; None when it has none."""
        file = folder / _FILE
        if kind == "flat" or not file.exists():
            return None
        index, rows = read_faiss(file, dimension), read_rows(folder / _ROWS)
        if index.ntotal != len(rows):
            raise IndexingError(f"{str(file)!r} does not fit {_ROWS!r}; build the index again.")
        return cls(index, kind, rows, read_rows(dead_file(file)), folder=folder)

    @classmethod
    def build(cls, kind: str, segments: Sequence[Segment], dimension: int) -> Approximate:
        """Build over all living vectors, segment by segment."""
        import faiss

        rows = np.concatenate([segment.alive for segment in segments])
        lists = clusters(len(rows))
        index: Any = faiss.index_factory(
            dimension, _STRUCTURES[kind].factory.format(lists=lists), faiss.METRIC_INNER_PRODUCT
        )
        inner: Any = faiss.downcast_index(index.index) if kind != "ivf-sq8" else index
        if kind == "hnsw":
            inner.hnsw.efConstruction = _EF_CONSTRUCTION
        if kind == "rabitq":
            inner.qb = _QUERY_BITS
        if not index.is_trained:
            index.train(_sample(segments, _SAMPLE * lists if kind == "ivf-sq8" else _SAMPLE_OF_CODES))
        for segment in segments:
            numbers, vectors = segment.living()
            index.add_with_ids(np.ascontiguousarray(vectors), numbers)
        return cls(index, kind, rows, np.empty(0, dtype=np.int64), folder=None)

    def __len__(self) -> int:
        return len(self.rows) - len(self.dead)

    @property
    def alive(self) -> np.ndarray:
        """Rows that can be found."""
        return np.setdiff1d(self.rows, self.dead)

    @property
    def selective(self) -> float:
        """The share that a filter must leave to be answered here."""
        return _STRUCTURES[self._kind].selective

    def is_stale(self, count: int) -> bool:
        """Whether too many of ``count`` living vectors are not in it, or too many that are in it are dead."""
        share = _STRUCTURES[self._kind].stale
        return count - len(self) > share * count or len(self.dead) > share * len(self.rows)

    def remove(self, rows: np.ndarray) -> None:
        """Leave rows out from now on."""
        self.dead = np.union1d(self.dead, np.intersect1d(self.rows, rows))

    def write(self, folder: Path) -> None:
        """Write it into a generation."""
        write_faiss(self._index, folder / _FILE)
        np.save(folder / _ROWS, self.rows, allow_pickle=False)

    def link(self, folder: Path) -> None:
        """Take it over into another generation."""
        assert self._folder is not None
        for name in (_FILE, _ROWS):
            link(self._folder / name, folder / name)
        if len(self.dead):
            np.save(dead_file(folder / _FILE), self.dead, allow_pickle=False)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None, segments: Sequence[Segment]) -> Found:
        """Up to k rows and cosines per query.

        Args:
            queries: (q, d) float32 unit vectors.
            k: how many.
            allowed: (n,) bool by row, which rows may be found; None means all.
            segments: where the originals are, to compare candidates exactly.
        """
        import faiss

        chosen = self._living
        if allowed is not None:
            size = min(len(allowed), len(chosen)) if chosen is not None else len(allowed)
            chosen = allowed[:size] if chosen is None else chosen[:size] & allowed[:size]
        packed = None if chosen is None else np.packbits(chosen, bitorder="little")
        options: dict[str, Any] = {} if packed is None else {"sel": faiss.IDSelectorBitmap(packed)}  # type: ignore[call-arg, arg-type]
        if self._kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(_EF_SEARCH, 2 * k), **options)  # type: ignore[attr-defined]
            scores, rows = self._index.search(queries, min(k, len(self.rows)), params=parameters)
            return rows, scores
        if self._kind == "ivf-sq8":
            parameters = faiss.SearchParametersIVF(nprobe=_PROBES, **options)  # type: ignore[call-arg]
        else:
            parameters = faiss.SearchParameters(**options)
        candidates = _STRUCTURES[self._kind].candidates * k
        _, rows = self._index.search(queries, min(candidates, len(self.rows)), params=parameters)
        scores = np.stack([cosines(query, some, segments) for query, some in zip(queries, rows, strict=True)])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)


def clusters(count: int) -> int:
    """Number of inverted lists for so many vectors: 4 √n, but no more than there are vectors to train them."""
    return max(1, min(round(4 * count**0.5), count // 39))


def cosines(query: np.ndarray, rows: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Exact cosines of (n,) rows; -inf for the places that hold none."""
    scores = np.full(len(rows), -np.inf, dtype=np.float32)
    for segment in segments:
        places = segment.locate(rows)
        here = places >= 0
        if here.any():
            scores[here] = segment.vectors(places[here]) @ query
    return scores


def _sample(segments: Sequence[Segment], size: int) -> np.ndarray:
    """About ``size`` living vectors, evenly from all segments and always the same."""
    total = sum(len(segment) for segment in segments)
    random = np.random.default_rng(0)
    taken = []
    for segment in segments:
        places = np.flatnonzero(~np.isin(segment.rows, segment.dead))
        share = min(len(places), -(-size * len(places) // total))
        taken.append(segment.vectors(np.sort(random.choice(places, share, replace=False))))
    return np.ascontiguousarray(np.concatenate(taken))
