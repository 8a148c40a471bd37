"""Chunks in the context of their documents: a chunk is found also by what the rest of its document is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from revela_rag.fusion import candidates, cosine_step, dense_share, fused_scores

__all__ = ["DOCUMENT_SHARE", "DocumentContext", "surroundings"]

#: How much of a chunk's vector in context is its document's.
DOCUMENT_SHARE = 0.35
_BATCH = 8192


def surroundings(documents: Iterable[str]) -> list[str]:
    """The document that each chunk stands in, by any name.

    One that holds more than half of all chunks is no context, as it tells none of them from the rest: an index of one
    book, or pieces that name their whole collection as source. Each of its chunks stands alone.
    """
    names = list(documents)
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if 2 * count <= len(names):
        return names
    return [f"{each}\0{place}" if each == name else each for place, each in enumerate(names)]


class DocumentContext:
    """What it takes to turn the cosines of chunks into those of their vectors in context. Made by :meth:`build`.

    In context a chunk's unit vector v becomes ``(1 - share) * v + share * m``, m being the mean of its document's
    vectors, both of unit length, and the result too. The chunk of a document that has no other stays as it is. Measured
    on bug reports to files, and on docstrings to methods, in dev/log, hybrid.

    Attributes:
        rows: (n,) int64, of the chunks, ascending.
        owners: (n,) int64, each chunk's document in ``means``; -1 where it is the only chunk.
        means: (m, d) float32 unit rows, of the documents that have several chunks.
        lengths: (n,) float32, of the mixed vectors; 1 where there is nothing to mix.
        share: of the document.
        step: rise of the cosine that makes a chunk e times as likely, see :func:`revela_rag.fusion.cosine_step`.
        trust: how much cosines count beside BM25, see :func:`revela_rag.fusion.dense_share`.
    """

    def __init__(
        self,
        rows: np.ndarray,
        owners: np.ndarray,
        means: np.ndarray,
        lengths: np.ndarray,
        *,
        share: float,
        step: float,
        trust: float,
    ) -> None:
        self.rows, self.owners, self.means, self.lengths = rows, owners, means, lengths
        self.share, self.step, self.trust = share, step, trust

    @classmethod
    def build(
        cls,
        rows: np.ndarray,
        documents: Iterable[str],
        vectors: Callable[[np.ndarray], np.ndarray],
        *,
        share: float = DOCUMENT_SHARE,
        trust: float | None = None,
    ) -> DocumentContext:
        """Read every vector of documents with several chunks, twice, some thousands at a time, and a sample of all.

        Args:
            rows: (n,) int64, ascending.
            documents: n ids.
            vectors: gives the (b, d) unit vectors of (b,) rows.
            share: of the document, between 0, the chunk alone, and 1, the document alone.
            trust: how much cosines count beside BM25; None measures it, see :func:`revela_rag.fusion.dense_share`.

        Raises:
            ValueError: the numbers of vectors and ids differ, or the share is out of range.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} must be between 0 and 1.")
        names: dict[str, int] = {}
        around = surroundings(documents)
        owners = np.fromiter((names.setdefault(name, len(names)) for name in around), dtype=np.int64)
        if len(owners) != len(rows):
            raise ValueError(f"{len(rows)} vectors need as many document ids, got {len(owners)}.")
        if trust is None:
            trust = dense_share(owners, lambda places: vectors(rows[places]))
        several = np.bincount(owners, minlength=len(names)) > 1
        owners = np.where(several[owners], np.cumsum(several)[owners] - 1, -1)
        many, lengths = np.flatnonzero(owners >= 0), np.ones(len(rows), dtype=np.float32)
        batches = [many[start : start + _BATCH] for start in range(0, len(many), _BATCH)]
        means = np.zeros((int(several.sum()), vectors(rows[many[:1]]).shape[1] if len(many) else 0), dtype=np.float32)
        for some in batches:
            np.add.at(means, owners[some], vectors(rows[some]))
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        step = cosine_step(len(rows), lambda places: vectors(rows[places]))
        context = cls(rows, owners, means, lengths, share=share, step=step, trust=trust)
        for some in batches:
            mixed = np.linalg.norm(context.mix(vectors(rows[some]), owners[some]), axis=1)
            lengths[some] = np.maximum(mixed, np.finfo(np.float32).tiny)
        return context

    def mix(self, vectors: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """(b, d) vectors of chunks mixed with those of their documents, not yet of unit length."""
        mixed: np.ndarray = (1 - self.share) * vectors + self.share * self.means[owners]
        return mixed

    def cosines(self, query: np.ndarray, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
        """(b,) cosines of a (d,) unit query with (b,) rows in context, given ``own``, those of the chunks alone."""
        places = np.searchsorted(self.rows, rows)
        owners = self.owners[places]
        many = owners >= 0
        found = np.array(own, dtype=np.float64)
        documents, which = np.unique(owners[many], return_inverse=True)
        around = (self.means[documents] @ query)[which] if len(documents) else np.empty(0)
        found[many] = ((1 - self.share) * found[many] + self.share * around) / self.lengths[places[many]]
        return np.clip(found, -1.0, 1.0)

    def rank_hybrid(
        self, query: np.ndarray, rows: np.ndarray, own: np.ndarray, lexical: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best of a query's candidates by cosines in context and BM25 together.

        Args:
            query: (d,) unit vector.
            rows: (b,) of the candidates: at least the hundred best by cosine and the hundred best by BM25.
            own: (b,) cosines of the chunks alone, which say who the hundred best by cosine are.
            lexical: (b,) BM25 scores.
            k: at most this many.

        Returns:
            Places among the candidates and their scores, see :func:`revela_rag.fusion.fused_scores`, best first; of
            equal ones the better cosine, then the first in the order given.
        """
        order = np.argsort(rows)  # of ties the first rows are among the hundred best
        core = order[candidates(own[order], lexical[order])]
        near = self.cosines(query, rows, own)
        scores = fused_scores(near, lexical, cosine_step=self.step, share=self.trust, core=core)
        best = np.lexsort((-own, -scores))[:k]
        return best, scores[best]
