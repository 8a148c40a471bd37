"""One generation, opened for reading: it never changes, so any number of threads may search it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from revela_rag.context import DocumentContext
from revela_rag.errors import IndexingError
from revela_rag.fusion import DEPTH, largest
from revela_rag.index.filters import Condition
from revela_rag.index.manifest import MANIFEST_FILE, Manifest
from revela_rag.index.rotation import Rotation
from revela_rag.index.stores import store_class
from revela_rag.index.texts import TEXTS_FILE, TextStore
from revela_rag.index.types import Hit, Mode
from revela_rag.index.words import WordIndex, are_current
from revela_rag.lexical import Holdings
from revela_rag.parts.feedback import refined
from revela_rag.parts.protocols import Refiner

__all__ = ["LEXICAL_FOLDER", "Evidence", "Snapshot"]

logger = logging.getLogger(__name__)

LEXICAL_FOLDER = "lexical"
_RETRIES = 20
_SAMPLE = 1024
_QUICK = 20_000  # chunks whose words are read in some seconds


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an index has for a query: (n,) each of its candidates.

    Attributes:
        rows: of the chunks.
        own: cosines of the chunks alone.
        cosines: in the context of their documents.
        words: BM25, in the context of their documents.
        step: rise of the cosine that makes a chunk e times as likely.
        trust: how much cosines count beside BM25.
    """

    rows: np.ndarray
    own: np.ndarray
    cosines: np.ndarray
    words: np.ndarray
    step: float
    trust: float


class Snapshot:
    """Texts, vectors and, on first use, the lexical index of one generation."""

    def __init__(self, root: Path, manifest: Manifest, *, verify: bool = False) -> None:
        self.manifest = manifest
        self.folder = root / manifest.generation
        manifest.verify(self.folder, full=verify)
        self.texts = TextStore.open(self.folder / TEXTS_FILE)
        if len(self.texts) != manifest.count:
            raise IndexingError(
                f"{str(self.folder / TEXTS_FILE)!r} holds {len(self.texts)} chunks, the manifest says "
                f"{manifest.count}; build again."
            )
        self.vectors = store_class(manifest.store).open(
            self.folder, dimension=manifest.dimension, count=manifest.count, kind=manifest.kind
        )
        self._rotation: Rotation | None = None
        if manifest.model_dimension is not None:
            self._rotation = Rotation.read(self.folder, (manifest.model_dimension, manifest.dimension))
        self._lexical: WordIndex | None = None
        self._context: DocumentContext | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, root: Path, *, verify: bool = False) -> Snapshot:
        """Open the current generation; tries again when a writer replaced it meanwhile."""
        for _ in range(_RETRIES):
            manifest = Manifest.read(root, full=verify)
            try:
                return cls(root, manifest, verify=verify)
            except IndexingError:
                if Manifest.read(root).generation == manifest.generation:
                    raise
        raise IndexingError(f"{str(root / MANIFEST_FILE)!r} changes faster than it can be read; try again.")

    def find(
        self,
        mode: Mode,
        queries: Sequence[str],
        vectors: np.ndarray,
        k: int,
        filter: Condition | None,
        refiner: Refiner | None,
    ) -> list[list[Hit]]:
        """Top k by a mode other than "auto", see the methods of these names; lexical search takes no vectors."""
        if mode == "lexical":
            return self.lexical(queries, k, filter)
        return (self.dense if mode == "dense" else self.hybrid)(queries, vectors, k, filter, refiner)

    def dense(
        self, queries: Sequence[str], vectors: np.ndarray, k: int, filter: Condition | None, refiner: Refiner | None
    ) -> list[list[Hit]]:
        """Top k by cosine for each of (q, d) unit queries; with a refiner those of a second search with what it made.

        Scores are then cosines with that, but what hits have as ``cosine`` is always the query's own.
        """
        allowed, vectors = self._allowed(filter), self._shortened(vectors)
        near = self.vectors.search(vectors, k, allowed)
        if refiner is None:
            return [self._hits(query, found, dict(found)) for query, found in zip(queries, near, strict=True)]
        hits = []
        for query, vector, found in zip(queries, vectors, near, strict=True):
            again = self.vectors.search(self._refined(refiner, vector, [row for row, _ in found]), k, allowed)[0]
            hits.append(self._hits(query, again, self._cosines(vector, [row for row, _ in again], dict(found))))
        return hits

    def lexical(
        self, queries: Sequence[str], k: int, filter: Condition | None, among: Holdings | None = None
    ) -> list[list[Hit]]:
        """Top k by BM25; ``among`` says what terms are worth where this is one index of several."""
        ranked = self._rank_lexically(queries, k, self._allowed(filter), among)
        return [self._hits(query, found) for query, found in zip(queries, ranked, strict=True)]

    def hybrid(
        self, queries: Sequence[str], vectors: np.ndarray, k: int, filter: Condition | None, refiner: Refiner | None
    ) -> list[list[Hit]]:
        """Top k of the best by cosine and by words, at least 100 each; see :func:`revela_rag.fusion.fused_scores`.

        Words count by the mean of a chunk's BM25 and its document's, cosines by the chunk's vector in the context of
        its document (:class:`revela_rag.context.DocumentContext`). With a refiner the best of that make another vector
        of the query's, whose cosines are fused with the same BM25.
        """
        allowed, vectors = self._allowed(filter), self._shortened(vectors)
        words = self._load_words()
        rows = words.rows
        mask = np.ones(len(rows), dtype=bool) if allowed is None else np.isin(rows, allowed, assume_unique=True)
        depth = max(k, DEPTH)
        near = self.vectors.search(vectors, depth, allowed)
        hits = []
        for query, vector, found in zip(queries, vectors, near, strict=True):
            bm25 = words.scores_in_context(query)
            able = np.flatnonzero(mask & (bm25 > 0))
            best = rows[able[largest(bm25[able], depth)]].tolist()
            ranked, cosines = self._fused(vector, found, bm25, best, k if refiner is None else depth)
            if refiner is not None and ranked:
                moved = self._refined(refiner, vector, [row for row, _ in ranked])
                again = self.vectors.search(moved, depth, allowed)[0]
                ranked, _ = self._fused(moved[0], again, bm25, best, k)
                cosines = self._cosines(vector, [row for row, _ in ranked], cosines)
            hits.append(self._hits(query, ranked, cosines))
        return hits

    def evidence(self, query: str, vector: np.ndarray, k: int, filter: Condition | None, among: Holdings) -> Evidence:
        """What speaks for the best by cosine and by words, at least 100 each, to be compared with other indexes'.

        Args:
            query: plain text.
            vector: (d,) unit vector of the query.
            k: how many are wanted.
            filter: on the metadata.
            among: what terms are worth in all indexes together.
        """
        allowed, vector = self._allowed(filter), self._shortened(vector.reshape(1, -1))[0]
        words, context, depth = self._load_words(), self._load_context(), max(k, DEPTH)
        bm25 = words.scores_in_context(query, among)
        mask = np.ones(len(words.rows), dtype=bool) if allowed is None else np.isin(words.rows, allowed)
        able = np.flatnonzero(mask & (bm25 > 0))
        best = words.rows[able[largest(bm25[able], depth)]].tolist()
        near = self.vectors.search(vector.reshape(1, -1), depth, allowed)[0]
        cosines = self._cosines(vector, best, dict(near))
        rows, own = np.array(list(cosines), dtype=np.int64), np.array(list(cosines.values()))
        held = bm25[np.searchsorted(words.rows, rows).clip(max=len(words.rows) - 1)]
        return Evidence(rows, own, context.cosines(vector, rows, own), held, context.step, context.trust)

    def holdings(self, query: str) -> Holdings:
        """How many chunks and documents hold each term and pair of a query."""
        return self._load_words().holdings(query)

    def background(self, vectors: np.ndarray) -> float:
        """The mean cosine of (q, d) unit vectors with the chunks, of which at most 1,024 are read."""
        rows = self.texts.rows()
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64)]
        return float((self.vectors.vectors(some) @ self._shortened(vectors).T).mean())

    @property
    def step(self) -> float:
        """Rise of the cosine that makes a chunk e times as likely."""
        return self._load_context().step

    def hits(self, query: str, found: Sequence[tuple[int, float]], cosines: Mapping[int, float]) -> list[Hit]:
        """The chunks of some rows with their scores."""
        return self._hits(query, found, cosines)

    def _fused(
        self, vector: np.ndarray, found: Sequence[tuple[int, float]], bm25: np.ndarray, best: Sequence[int], k: int
    ) -> tuple[list[tuple[int, float]], dict[int, float]]:
        """Row and score of the k best for one (d,) query, and the cosines of all candidates.

        Args:
            vector: the query's.
            found: row and cosine of the nearest.
            bm25: of every row of the words.
            best: rows of the best by that.
            k: at most this many.
        """
        words, context = self._load_words(), self._load_context()
        cosines = self._cosines(vector, best, dict(found))
        found_rows, close = np.array(list(cosines), dtype=np.int64), np.array(list(cosines.values()))
        bm25_of = bm25[np.searchsorted(words.rows, found_rows).clip(max=len(words.rows) - 1)]
        order, scores = context.rank_hybrid(vector, found_rows, close, bm25_of, k)
        return list(zip(found_rows[order].tolist(), scores.tolist(), strict=True)), cosines

    def _cosines(self, vector: np.ndarray, rows: Sequence[int], known: Mapping[int, float]) -> dict[int, float]:
        """The cosines that are known, and those of further rows with a (d,) unit vector."""
        cosines = dict(known)
        missing = [row for row in rows if row not in cosines]
        if missing:
            exact = np.clip(self.vectors.vectors(np.array(missing)) @ vector, -1.0, 1.0)
            cosines.update(zip(missing, exact.tolist(), strict=True))
        return cosines

    def _refined(self, refiner: Refiner, vector: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """(1, d), what a refiner makes of a query's vector and those of the first of some rows."""
        some = np.array(rows[: refiner.count], dtype=np.int64)
        return (refined(refiner, vector, self.vectors.vectors(some)) if len(some) else vector).reshape(1, -1)

    def vectors_of(self, hits: Sequence[Hit]) -> np.ndarray:
        """(n, d) float32 unit vectors of the chunks of n hits of this generation."""
        records = self.texts.records([hit.chunk.id for hit in hits])
        return self.vectors.vectors(np.array([records[hit.chunk.id][0] for hit in hits], dtype=np.int64))

    def warm(self, before: Snapshot) -> None:
        """Load what searches of ``before`` needed, so that others need not wait for it.

        Words that would have to be read from the texts are left to the first search that needs them.
        """
        if before._lexical is not None and are_current(self.folder / LEXICAL_FOLDER, self.texts.rows()):
            self._load_words(before._lexical)
        if before._context is not None:
            self._load_context()
        self.texts.attributes.warm(before.texts.attributes)

    def _shortened(self, queries: np.ndarray) -> np.ndarray:
        """(q, d) queries in the dimensions that are kept."""
        return queries if self._rotation is None else self._rotation.apply(queries)

    def _allowed(self, filter: Condition | None) -> np.ndarray | None:
        return None if filter is None else self.texts.select(filter)

    def _rank_lexically(
        self, queries: Sequence[str], k: int, allowed: np.ndarray | None, among: Holdings | None
    ) -> list[list[tuple[int, float]]]:
        words = self._load_words()
        mask = None if allowed is None else np.isin(words.rows, allowed, assume_unique=True)
        return [words.search(query, k, mask=mask, among=among) for query in queries]

    def _load_words(self, before: WordIndex | None = None) -> WordIndex:
        with self._lock:
            if self._lexical is None:
                rows, documents = self.texts.rows(), list(self.texts.documents())
                try:
                    self._lexical = WordIndex.load(self.folder / LEXICAL_FOLDER, rows, documents, before=before)
                except IndexingError:
                    # not written for very many chunks, of an earlier version, or removed by a writer meanwhile
                    slow = len(self.texts) > _QUICK
                    logger.log(
                        logging.WARNING if slow else logging.INFO,
                        "Building the lexical index of %d chunks in memory: there is none of this version in %s, "
                        "a sync or the next write that changes it makes one.",
                        len(self.texts),
                        self.folder,
                    )
                    self._lexical = WordIndex.build(rows, self.texts.texts(), documents)
            return self._lexical

    def _load_context(self) -> DocumentContext:
        with self._lock:
            if self._context is None:
                rows, documents = self.texts.rows(), self.texts.documents()
                self._context = DocumentContext.build(
                    rows, documents, self.vectors.vectors, trust=self.manifest.model.trust
                )
            return self._context

    def _hits(
        self, query: str, found: Sequence[tuple[int, float]], cosines: Mapping[int, float] | None = None
    ) -> list[Hit]:
        chunks = self.texts.chunks([row for row, _ in found])
        try:
            return [
                Hit(chunks[row], score, rank, None if cosines is None else cosines[row], query)
                for rank, (row, score) in enumerate(found, start=1)
            ]
        except KeyError as error:
            raise IndexingError(
                f"{str(self.folder)!r} has a vector without a text (row {error}); build again."
            ) from error

    def close(self) -> None:
        """Let go of files and memory."""
        self.texts.close()
        self.vectors.close()
