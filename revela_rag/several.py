"""Several indexes searched as one, each with its own model."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.fusion import candidates, fused_scores
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.filters import Condition, Filter, parse_filter
from revela_rag.index.queries import unit_queries
from revela_rag.index.snapshot import Evidence, Snapshot
from revela_rag.index.types import check_k, check_mode, check_queries, check_query
from revela_rag.parts.pipeline import PartOptions, Parts

__all__ = ["IndexGroup"]

#: Of many subjects: what a model makes of texts that have nothing to do with each other.
_UNRELATED = (
    "A recipe for tomato soup with basil.",
    "The match ended two to one after extra time.",
    "Interest rates were raised by a quarter of a percent.",
    "How do I reset my password?",
    "The treaty was signed in 1648.",
    "def add(a, b): return a + b",
    "Patients were given the drug twice a day.",
    "The engine overheats at low speed.",
    "She plays the violin in an orchestra.",
    "Photosynthesis turns light into sugar.",
    "The parcel was delivered to the wrong address.",
    "The court dismissed the appeal.",
)


class IndexGroup:
    """Several indexes searched as one; made by :meth:`revela_rag.Retriever.over`.

    Scores of two indexes do not compare: their models differ, and a word that is rare in one is common in the other.
    So cosines count in each index' own steps (:func:`revela_rag.fusion.cosine_step`), above what its model gives
    texts that have nothing in common, words by how rare they are in all indexes together, and one fusion
    (:func:`revela_rag.fusion.fused_scores`) ranks the candidates of all.

    Args:
        indexes: two or more, open.

    Raises:
        IndexingError: there is none, or one is given twice.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        self.indexes = tuple(indexes)
        paths = [index.path for index in self.indexes]
        if not paths:
            raise IndexingError("There is no index to search; give at least one.")
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise IndexingError(f"The index {str(twice)!r} is given twice.")
        self._backgrounds: dict[tuple[Path, str], float] = {}

    def __len__(self) -> int:
        return sum(map(len, self.indexes))

    def __repr__(self) -> str:
        return f"IndexGroup({', '.join(repr(str(index.path)) for index in self.indexes)})"

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        mode: Mode = "auto",
        **parts: Unpack[PartOptions],
    ) -> list[Hit]:
        """The chunks of all indexes that answer a query best; ``Hit.index`` says where each is.

        Args:
            query: plain text.
            k: at most this many, together.
            filter: metadata a chunk must have, see :meth:`revela_rag.Index.search`.
            mode: likewise; ``"auto"`` is hybrid where it is for every index. Scores in mode ``"dense"`` are cosines
                where all indexes have the same model, else steps above what the model gives unrelated texts.
            **parts: likewise, without ``feedback``. What compares vectors (``select="mmr"``) needs one model for all.

        Raises:
            IndexingError: an argument cannot be used.
        """
        check_query(query)
        return self.search_many([query], k=k, filter=filter, mode=mode, **parts)[0]

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filter: Filter | None = None,
        mode: Mode = "auto",
        **parts: Unpack[PartOptions],
    ) -> list[list[Hit]]:
        """:meth:`search` for several queries at once; one list of hits per query."""
        check_queries(queries)
        check_k(k)
        condition, mode, beside = parse_filter(filter), self.resolve_mode(mode), Parts.of(**parts)
        if beside.refiner is not None:
            raise IndexingError("feedback moves a query's vector in one index; it is not for several.")
        if not len(queries):
            return []
        depth = beside.depth(k)
        vectors: list[dict[Path, np.ndarray]] = [{} for _ in queries] if mode == "lexical" else self._vectors(queries)

        def found(snapshots: Sequence[Snapshot]) -> list[list[Hit]]:
            read = functools.partial(self._read_vectors, snapshots)
            return [
                beside.applied(query, self._search(snapshots, query, vector, depth, condition, mode), k, read)
                for query, vector in zip(queries, vectors, strict=True)
            ]

        return self._read(found)

    def resolve_mode(self, mode: Mode) -> Mode:
        """What ``"auto"`` means for these indexes now."""
        check_mode(mode)
        if mode != "auto":
            return mode
        return "hybrid" if all(index.resolve_mode("auto") == "hybrid" for index in self.indexes) else "dense"

    def close(self) -> None:
        """Close all indexes."""
        with ExitStack() as stack:
            for index in self.indexes:
                stack.callback(index.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _alike(self) -> bool:
        return len({index.manifest.model.fingerprint for index in self.indexes}) == 1

    def _vectors(self, queries: Sequence[str]) -> list[dict[Path, np.ndarray]]:
        """The vector of each query in each index; a model embeds them once."""
        made: dict[str, np.ndarray] = {}
        by_index = {}
        for index in self.indexes:
            key = index.manifest.model.fingerprint
            if key not in made:
                made[key] = index.encoder.encode_queries(queries)
            if len(index):
                by_index[index.path] = unit_queries(made[key], index.manifest.query_dimension, index.path)
        return [{path: vectors[place] for path, vectors in by_index.items()} for place in range(len(queries))]

    def _read(self, search: Callable[[Sequence[Snapshot]], Any], held: Sequence[Snapshot] = ()) -> Any:
        """Search one generation of each index."""
        if len(held) == len(self.indexes):
            return search(held)
        return self.indexes[len(held)]._read(lambda snapshot: self._read(search, [*held, snapshot]))

    def _search(
        self,
        snapshots: Sequence[Snapshot],
        query: str,
        vectors: dict[Path, np.ndarray],
        k: int,
        filter: Condition | None,
        mode: Mode,
    ) -> list[Hit]:
        there = [pair for pair in zip(self.indexes, snapshots, strict=True) if pair[1].manifest.count]
        if not there:
            return []
        if mode == "dense":
            hits = list(self._dense(there, query, vectors, k, filter))
            return _best(hits, np.array([hit.score for hit in hits]), k)
        among = functools.reduce(operator.add, (snapshot.holdings(query) for _, snapshot in there))
        if mode == "lexical":
            lists = [_named(index, snapshot.lexical([query], k, filter, among)[0]) for index, snapshot in there]
            hits = [hit for each in lists for hit in each]
            return _best(hits, np.array([hit.score for hit in hits]), k)
        found = [snapshot.evidence(query, vectors[index.path], k, filter, among) for index, snapshot in there]
        logits = [
            (each.cosines - self._background(index, snapshot)) / each.step
            for each, (index, snapshot) in zip(found, there, strict=True)
        ]
        return self._fused(there, query, found, np.concatenate(logits), k)

    @staticmethod
    def _fused(
        there: Sequence[tuple[Index, Snapshot]], query: str, found: Sequence[Evidence], logits: np.ndarray, k: int
    ) -> list[Hit]:
        """The best candidates of all indexes by one fusion."""
        words, own = (np.concatenate([getattr(each, name) for each in found]) for name in ("words", "own"))
        if not len(words):
            return []
        trust = float(np.mean([each.trust for each in found]))
        scores = fused_scores(logits, words, cosine_step=1.0, share=trust, core=candidates(logits, words))
        order = np.lexsort((-own, -scores))[: 2 * k]  # some may be the same chunk
        starts = np.cumsum([0, *(len(each.rows) for each in found)])
        hits: dict[int, Hit] = {}
        for start, each, (index, snapshot) in zip(starts, found, there, strict=False):
            mine = order[(order >= start) & (order < start + len(each.rows))]
            rows = each.rows[mine - start].tolist()
            pairs = list(zip(rows, scores[mine].tolist(), strict=True))
            cosines = dict(zip(rows, own[mine].tolist(), strict=True))
            hits.update(zip(mine.tolist(), _named(index, snapshot.hits(query, pairs, cosines)), strict=True))
        ranked = [hits[place] for place in order.tolist()]
        return _best(ranked, -np.arange(len(ranked)), k)

    def _dense(
        self,
        there: Sequence[tuple[Index, Snapshot]],
        query: str,
        vectors: dict[Path, np.ndarray],
        k: int,
        filter: Condition | None,
    ) -> Iterator[Hit]:
        for index, snapshot in there:
            hits = _named(index, snapshot.dense([query], vectors[index.path].reshape(1, -1), k, filter, None)[0])
            if self._alike:
                yield from hits
                continue
            background, step = self._background(index, snapshot), snapshot.step
            yield from (replace(hit, score=(hit.score - background) / step) for hit in hits)

    def _background(self, index: Index, snapshot: Snapshot) -> float:
        """The cosine of texts that have nothing in common, where that differs from index to index."""
        if self._alike:
            return 0.0
        key = index.path, snapshot.manifest.generation
        if key not in self._backgrounds:
            probes = unit_queries(index.encoder.encode_queries(_UNRELATED), index.manifest.query_dimension, index.path)
            self._backgrounds[key] = snapshot.background(probes)
        return self._backgrounds[key]

    def _read_vectors(self, snapshots: Sequence[Snapshot], hits: Sequence[Hit]) -> np.ndarray:
        if not self._alike:
            raise IndexingError(
                "These indexes have different models, whose vectors do not compare; select='coverage' goes by words."
            )
        by_index = {str(index.path): snapshot for index, snapshot in zip(self.indexes, snapshots, strict=True)}
        return np.concatenate([by_index[hit.index].vectors_of([hit]) for hit in hits])


def _named(index: Index, hits: Sequence[Hit]) -> list[Hit]:
    return [replace(hit, index=str(index.path)) for hit in hits]


def _best(hits: Sequence[Hit], scores: np.ndarray, k: int) -> list[Hit]:
    """The k best, each chunk once, ranked from 1."""
    shown: dict[tuple[str, str], Hit] = {}
    for place in np.argsort(-scores, kind="stable").tolist():
        hit = hits[place]
        shown.setdefault((hit.chunk.id, hit.chunk.text), hit)
    return [replace(hit, rank=rank) for rank, hit in enumerate(list(shown.values())[:k], start=1)]
