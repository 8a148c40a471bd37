"""One generation, opened for reading: it never changes, so any number of threads may search it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from revela_rag.context import DocumentContext
from revela_rag.errors import IndexingError
from revela_rag.fusion import DEPTH, largest
from revela_rag.index.diversity import most_diverse
from revela_rag.index.filters import Condition
from revela_rag.index.manifest import MANIFEST_FILE, Manifest
from revela_rag.index.rotation import Rotation
from revela_rag.index.stores import store_class
from revela_rag.index.texts import TEXTS_FILE, TextStore
from revela_rag.index.types import Hit
from revela_rag.index.words import WordIndex, are_current

__all__ = ["LEXICAL_FOLDER", "Snapshot"]

logger = logging.getLogger(__name__)

LEXICAL_FOLDER = "lexical"
_RETRIES = 20
_QUICK = 20_000  # chunks whose words are read in some seconds


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

    def dense(self, queries: np.ndarray, k: int, filter: Condition | None) -> list[list[Hit]]:
        """Top k by cosine for each of (q, d) unit queries."""
        found = self.vectors.search(self._shortened(queries), k, self._allowed(filter))
        return [self._hits(near, dict(near)) for near in found]

    def diverse(
        self, query: np.ndarray, k: int, candidates: int, balance: float, filter: Condition | None
    ) -> list[Hit]:
        """Up to k of the best by cosine for one (d,) unit query, by maximal marginal relevance."""
        query = self._shortened(query.reshape(1, -1))[0]
        found = self.vectors.search(query.reshape(1, -1), candidates, self._allowed(filter))[0]
        vectors = self.vectors.vectors(np.array([row for row, _ in found], dtype=np.int64))
        chosen = [found[place] for place in most_diverse(query, vectors, k, balance)] if found else []
        return self._hits(chosen, dict(chosen))

    def lexical(self, queries: Sequence[str], k: int, filter: Condition | None) -> list[list[Hit]]:
        """Top k by BM25."""
        return [self._hits(found) for found in self._rank_lexically(queries, k, self._allowed(filter))]

    def hybrid(self, queries: Sequence[str], vectors: np.ndarray, k: int, filter: Condition | None) -> list[list[Hit]]:
        """Top k of the best by cosine and by words, at least 100 each; see :func:`revela_rag.fusion.fused_scores`.

        Words count by the mean of a chunk's BM25 and its document's, cosines by the chunk's vector in the context of
        its document (:class:`revela_rag.context.DocumentContext`).
        """
        allowed, vectors = self._allowed(filter), self._shortened(vectors)
        words, context = self._load_words(), self._load_context()
        rows = words.rows
        mask = np.ones(len(rows), dtype=bool) if allowed is None else np.isin(rows, allowed, assume_unique=True)
        depth = max(k, DEPTH)
        near = self.vectors.search(vectors, depth, allowed)
        hits = []
        for query, vector, found in zip(queries, vectors, near, strict=True):
            bm25 = words.scores_in_context(query)
            able = np.flatnonzero(mask & (bm25 > 0))
            best = rows[able[largest(bm25[able], depth)]]
            cosines = dict(found)
            missing = [row for row in best.tolist() if row not in cosines]
            if missing:
                exact = np.clip(self.vectors.vectors(np.array(missing)) @ vector, -1.0, 1.0)
                cosines.update(zip(missing, exact.tolist(), strict=True))
            found_rows, close = np.array(list(cosines), dtype=np.int64), np.array(list(cosines.values()))
            bm25_of = bm25[np.searchsorted(rows, found_rows).clip(max=len(rows) - 1)]
            order, scores = context.rank_hybrid(vector, found_rows, close, bm25_of, k)
            ranked = list(zip(found_rows[order].tolist(), scores.tolist(), strict=True))
            hits.append(self._hits(ranked, cosines))
        return hits

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
        self, queries: Sequence[str], k: int, allowed: np.ndarray | None
    ) -> list[list[tuple[int, float]]]:
        words = self._load_words()
        mask = None if allowed is None else np.isin(words.rows, allowed, assume_unique=True)
        return [words.search(query, k, mask=mask) for query in queries]

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

    def _hits(self, found: Sequence[tuple[int, float]], cosines: Mapping[int, float] | None = None) -> list[Hit]:
        chunks = self.texts.chunks([row for row, _ in found])
        try:
            return [
                Hit(chunks[row], score, rank, None if cosines is None else cosines[row])
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
