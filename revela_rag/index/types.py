"""What an index gives back, and what every vector store can do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError

if TYPE_CHECKING:
    from revela_rag.parts.highlights import Highlight

__all__ = [
    "Hit",
    "Mode",
    "SyncReport",
    "VectorStore",
    "check_k",
    "check_mode",
    "check_queries",
    "check_query",
    "listed_ids",
]

#: How to search; see :meth:`revela_rag.Index.search`.
Mode = Literal["auto", "dense", "lexical", "hybrid"]


def check_mode(mode: str) -> None:
    """IndexingError unless ``mode`` is a :data:`Mode`."""
    if mode not in get_args(Mode):
        raise IndexingError(f"mode={mode!r} is not one of {', '.join(map(repr, get_args(Mode)))}.")


def check_k(k: Any, name: str = "k") -> None:
    """IndexingError unless ``k`` is a number of hits."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise IndexingError(f"{name}={k!r} must be a whole number of at least 1.")


def check_query(query: Any) -> None:
    """IndexingError unless ``query`` is a string."""
    if not isinstance(query, str):
        raise IndexingError(f"The query must be a string, got {type(query).__name__}.")


def check_queries(queries: Any) -> None:
    """IndexingError for one string where several are expected."""
    if isinstance(queries, str):
        raise IndexingError("queries is one string; pass a list, or use search().")


def listed_ids(ids: Iterable[str], name: str = "ids") -> list[str]:
    """Ids as a list; IndexingError for a single string."""
    if isinstance(ids, str):
        raise IndexingError(f"{name} is one string, {ids!r}; pass a list of ids.")
    return [str(id_) for id_ in ids]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        chunk: the chunk as it was indexed.
        score: higher is better. Dense: cosine in [-1, 1]. Lexical: BM25, above 0. Hybrid: the share
            among the query's candidates, in (0, 1] (:func:`revela_rag.fusion.fused_scores`), which compares no two
            queries. Reranked: what the reranker gave.
        rank: place in the result, from 1.
        cosine: in [-1, 1], what a threshold can be set on; None in lexical search.
        query: what it was found by.
        index: directory of the index it is in, where several were searched.
    """

    chunk: Chunk
    score: float
    rank: int
    cosine: float | None = None
    query: str = field(default="", repr=False, compare=False)
    index: str = field(default="", compare=False)

    @property
    def highlights(self) -> tuple[Highlight, ...]:
        """Where in ``chunk.text`` the query's words stand, see :func:`revela_rag.parts.highlights`; looked for now."""
        from revela_rag.parts.highlights import highlights

        return highlights(self.query, self.chunk.text, kind=self.chunk.kind)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What :meth:`Index.sync` did, in chunks.

    Attributes:
        added: were not in the index before.
        updated: were there, but their text, title, place or metadata had changed.
        deleted: were there and are no longer in the corpus.
        unchanged: were there and stayed as they were.
        embedded: of the added and updated ones, those whose embedded text was new, so that the model had to run.
        kept: are not in the corpus and stay all the same, see ``keep`` of :meth:`Index.sync`.
    """

    added: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    embedded: int = 0
    kept: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.added or self.updated or self.deleted)

    def summary(self) -> str:
        """One line for people."""
        kept = f", {self.kept} kept" if self.kept else ""
        return (
            f"{self.added} added, {self.updated} updated, {self.deleted} deleted{kept}, "
            f"{self.unchanged} unchanged ({self.embedded} embedded)"
        )


class VectorStore(Protocol):
    """Unit vectors under integer rows, inside one generation directory.

    A store is either a draft, made by ``create`` and changed until ``save``, or opened for reading only.
    """

    @classmethod
    def create(cls, folder: Path, *, dimension: int, kind: str, source: Path | None = None) -> VectorStore:
        """Start a draft in ``folder``: empty, or holding what the store in the folder ``source`` holds."""
        ...

    @classmethod
    def open(cls, folder: Path, *, dimension: int, count: int, kind: str) -> VectorStore:
        """Open for reading; IndexingError when damaged or not of this shape."""
        ...

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Add (n, d) float32 unit vectors under (n,) int64 rows that are not in use."""
        ...

    def remove(self, rows: np.ndarray) -> None:
        """Remove (n,) int64 rows that were in use when the draft was begun."""
        ...

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[list[tuple[int, float]]]:
        """For each of (q, d) unit queries up to ``k`` pairs of row and cosine, best first.

        ``allowed`` holds the (n,) int64 rows that may be found; None means all.
        """
        ...

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) float32 vectors, as they were added, under (n,) int64 rows that are there."""
        ...

    def rows(self) -> np.ndarray:
        """(n,) int64, the rows of all vectors of a store that is open for reading, in any order."""
        ...

    def save(self) -> None:
        """Write the draft out and close it."""
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...
