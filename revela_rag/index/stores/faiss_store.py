"""Vectors in FAISS: exact inner products over unit vectors, that is, cosines, with a faster search on request.

The originals lie in segments of up to ``SEGMENT`` vectors. A write adds segments and lists the dead rows of older ones,
so its cost follows what changed, and memory holds one segment. All kinds but ``"flat"`` add a structure that finds
candidates; what was added since it was built is searched exactly, so nothing new is ever missed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.index.stores.approximate import LEAST, Approximate
from revela_rag.index.stores.segments import Found, Segment, dead_file, link

__all__ = ["SEGMENT", "FaissStore", "pairs"]

logger = logging.getLogger(__name__)

#: Vectors in a segment: 100 MB at 384 dimensions.
SEGMENT = 65_536
_NAME = "vectors-{:06d}.faiss"
_STALE = 0.2  # share of dead vectors at which a segment is made anew
_SMALL = 8  # so many segments of a few vectors may lie around before they are merged


class FaissStore:
    """Segments and, for some kinds, an :class:`Approximate` over them."""

    def __init__(
        self,
        segments: list[Segment],
        approximate: Approximate | None,
        *,
        dimension: int,
        kind: str,
        folder: Path | None,
    ) -> None:
        self._segments = segments
        self._approximate = approximate
        self._dimension = dimension
        self._kind = kind
        self._folder = folder  # None: read only
        self._rows: list[np.ndarray] = []  # a draft's vectors that fill no segment yet
        self._vectors: list[np.ndarray] = []
        self._removed: list[np.ndarray] = []
        self._fresh: list[Segment] = []
        self._number = 1 + max((_number(segment) for segment in segments), default=0)
        self._highest = max((int(segment.rows.max()) for segment in segments if len(segment.rows)), default=0)
        self._parts = self._living_parts() if folder is None else []

    @classmethod
    def create(cls, folder: Path, *, dimension: int, kind: str = "flat", source: Path | None = None) -> FaissStore:
        """Start a draft in ``folder``."""
        segments = [] if source is None else _segments(source, dimension)
        approximate = None if source is None else Approximate.open(source, kind, dimension)
        return cls(segments, approximate, dimension=dimension, kind=kind, folder=folder)

    @classmethod
    def open(cls, folder: Path, *, dimension: int, count: int, kind: str = "flat") -> FaissStore:
        """Open for reading."""
        segments = _segments(folder, dimension)
        held = sum(len(segment) for segment in segments)
        if held != count:
            raise IndexingError(f"{str(folder)!r} holds {held} vectors, the manifest says {count}; build again.")
        return cls(segments, Approximate.open(folder, kind, dimension), dimension=dimension, kind=kind, folder=None)

    # -- writing -----------------------------------------------------------------------------------------------

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors under new rows."""
        if len(rows):
            self._rows.append(rows.astype(np.int64))
            self._vectors.append(np.asarray(vectors, dtype=np.float32))
            if sum(map(len, self._rows)) >= SEGMENT:
                self._flush()

    def remove(self, rows: np.ndarray) -> None:
        """Remove rows that were there before this draft was begun."""
        if len(rows):
            self._removed.append(rows.astype(np.int64))

    def save(self, *, least: int | None = None) -> None:
        """Write what changed, link what did not.

        Args:
            least: vectors from which on a structure of the kind is built; None means 10,000.
        """
        assert self._folder is not None
        removed = np.unique(np.concatenate(self._removed)) if self._removed else np.empty(0, dtype=np.int64)
        kept = []
        for segment in self._segments:
            dead = np.intersect1d(segment.rows, removed)
            segment.dead = np.union1d(segment.dead, dead) if len(dead) else segment.dead
            if len(segment.dead) <= _STALE * len(segment.rows):
                kept.append(segment)
            else:
                self.add(*segment.living())
        small = [segment for segment in kept if len(segment) < SEGMENT // 4]
        if len(small) > _SMALL:
            kept = [segment for segment in kept if segment not in small]
            for segment in small:
                self.add(*segment.living())
        self._flush()
        for segment in kept:
            assert segment.file is not None
            link(segment.file, self._folder / segment.file.name)
            if len(segment.dead):
                np.save(dead_file(self._folder / segment.file.name), segment.dead, allow_pickle=False)
        self._save_approximate([*kept, *self._fresh], removed, LEAST if least is None else least)
        self.close()

    def _flush(self) -> None:
        """Write the vectors that wait as a segment."""
        if self._rows:
            assert self._folder is not None
            file = self._folder / _NAME.format(self._number)
            Segment.of(np.concatenate(self._rows), np.concatenate(self._vectors)).write(file)
            self._number += 1
            self._rows, self._vectors = [], []
            self._fresh.append(Segment.open(file, self._dimension))

    def _save_approximate(self, segments: Sequence[Segment], removed: np.ndarray, least: int) -> None:
        if self._kind == "flat":
            return
        assert self._folder is not None
        count = sum(len(segment) for segment in segments)
        if count < least:
            logger.info("%d vectors are searched exactly; kind %r begins at %d.", count, self._kind, least)
            return
        old = self._approximate
        if old is not None:
            old.remove(removed)
            if not old.is_stale(count):
                old.link(self._folder)
                return
        logger.info("Building %r over %d vectors.", self._kind, count)
        Approximate.build(self._kind, segments, self._dimension).write(self._folder)

    # -- reading -----------------------------------------------------------------------------------------------

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[list[tuple[int, float]]]:
        """Top k per query; exact for kind ``"flat"``, for selective filters, and where candidates run short."""
        count = sum(len(segment) for segment in self._segments)
        k = min(k, count if allowed is None else len(allowed))
        if k < 1 or not len(queries):
            return [[] for _ in range(len(queries))]
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        bits = None
        if allowed is not None:
            bits = np.zeros(self._highest + 1, dtype=bool)
            bits[allowed] = True
        quick = self._approximate is not None and (
            allowed is None or len(allowed) > self._approximate.selective * count
        )
        if quick:
            assert self._approximate is not None
            found = [
                self._approximate.search(queries, k, bits, self._segments),
                *self._exact(queries, k, bits, new=True),
            ]
            rows, scores = _merge(found, k)
            if (rows >= 0).all():
                return pairs(rows, scores)
        return pairs(*_merge(self._exact(queries, k, bits, new=False), k))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of some rows."""
        found = np.zeros((len(rows), self._dimension), dtype=np.float32)
        for segment in self._segments:
            places = segment.locate(rows)
            here = places >= 0
            found[here] = segment.vectors(places[here])
        return found

    def rows(self) -> np.ndarray:
        """The rows of all vectors."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(segment.alive for segment in self._segments)])

    def _living_parts(self) -> list[tuple[Segment, np.ndarray | None, np.ndarray]]:
        """Each segment, its living rows as bits (None: all live), and those that the structure does not cover."""
        covered = np.zeros(self._highest + 1, dtype=bool)
        if self._approximate is not None:
            there = self._approximate.alive
            covered[there[(there >= 0) & (there <= self._highest)]] = True
        parts = []
        for segment in self._segments:
            living, bits = segment.alive, None
            if len(segment.dead):
                bits = np.zeros(self._highest + 1, dtype=bool)
                bits[living] = True
            parts.append((segment, bits, living[~covered[living]]))
        return parts

    def _exact(self, queries: np.ndarray, k: int, allowed: np.ndarray | None, *, new: bool) -> list[Found]:
        """Exact search of every segment, or of what the structure does not cover."""
        found = []
        for segment, living, uncovered in self._parts:
            if new and not len(uncovered):
                continue
            chosen = living
            if new:
                chosen = np.zeros(self._highest + 1, dtype=bool)
                chosen[uncovered] = True
            if allowed is not None:
                chosen = allowed if chosen is None else chosen & allowed
            packed = None if chosen is None else np.packbits(chosen, bitorder="little")
            found.append(segment.search(queries, k, packed))
        return found

    def close(self) -> None:
        """Forget the vectors; searches that still run keep them alive until they end."""
        self._folder = None


def pairs(rows: np.ndarray, scores: np.ndarray) -> list[list[tuple[int, float]]]:
    """(q, k) rows and cosines as one list per query, without the places where nothing was found."""
    clipped = np.clip(scores, -1.0, 1.0)
    return [
        [(int(row), float(score)) for row, score in zip(*both, strict=True) if row >= 0]
        for both in zip(rows, clipped, strict=True)
    ]


def _merge(found: Sequence[Found], k: int) -> Found:
    """The best k of several searches, (q, k)."""
    if len(found) == 1 and found[0][0].shape[1] >= k:
        return found[0]
    rows = np.concatenate([rows for rows, _ in found], axis=1)
    scores = np.concatenate([scores for _, scores in found], axis=1)
    scores = np.where(rows >= 0, scores, -np.inf)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)


def _segments(folder: Path, dimension: int) -> list[Segment]:
    return [Segment.open(file, dimension) for file in sorted(folder.glob("vectors-*.faiss"))]


def _number(segment: Segment) -> int:
    return 0 if segment.file is None else int(segment.file.stem.rpartition("-")[2])
