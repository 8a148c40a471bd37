"""Some texts in memory, ranked for a query: what picks an agent's tools."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.context import DocumentContext
from revela_rag.errors import IndexingError
from revela_rag.fusion import DEPTH, candidates
from revela_rag.index import Mode
from revela_rag.index.types import check_mode
from revela_rag.lexical import LexicalIndex
from revela_rag.model.encoder import Encoder

__all__ = ["Ranker"]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The texts at one moment, and what ranks them; never changed, so that a search sees one of them throughout."""

    texts: dict[str, str]
    vectors: np.ndarray  # (texts, dimension), unit rows, in their order
    context: DocumentContext  # each text is a document of its own
    lexical: LexicalIndex

    @classmethod
    def of(cls, texts: dict[str, str], vectors: np.ndarray, trust: float | None = None) -> _Ranked:
        context = DocumentContext.build(np.arange(len(texts)), texts, vectors.__getitem__, trust=trust)
        return cls(texts, vectors, context, LexicalIndex.build(texts, texts.values()))


class Ranker:
    """Ranks up to some thousand short texts that live in memory; for more, and to keep them, there is an index.

    Threads may search while others add and remove.

    Args:
        model: model that embeds texts and queries.
        mode: ``"hybrid"`` (or ``"auto"``) ranks by the model and BM25 together, ``"dense"`` by the model alone,
            ``"lexical"`` by BM25 alone.

    Raises:
        IndexingError: the mode has another name.
    """

    def __init__(self, *, model: str | Path | Encoder, mode: Mode = "hybrid") -> None:
        self.mode = mode
        self._encoder = model if isinstance(model, Encoder) else Encoder(model)
        self._ranked = _Ranked.of({}, np.empty((0, 0), dtype=np.float32))
        self._changing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changing=threading.Lock())

    def __len__(self) -> int:
        return len(self._ranked.texts)

    @property
    def mode(self) -> Mode:
        """What ranks the texts."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        check_mode(mode)
        self._mode: Mode = mode

    def add(self, texts: Mapping[str, str], *, without: Iterable[str] = ()) -> None:
        """Add texts by id, embedding them; those whose id is known stay as they are.

        Args:
            texts: to add.
            without: ids to remove in the same moment.
        """
        with self._changing:
            held, vectors = self._without(without)
            new = {id_: text for id_, text in texts.items() if id_ not in held}
            if new:
                added = self._encoder.encode_documents(list(new.values()))
                vectors = np.concatenate([vectors, added]) if held else added
            if new or len(held) < len(self):
                self._ranked = _Ranked.of(held | new, vectors, getattr(self._encoder, "trust", None))

    def remove(self, ids: Iterable[str]) -> int:
        """Remove texts by id, passing over unknown ones; gives how many were removed."""
        with self._changing:
            before = len(self)
            held, vectors = self._without(ids)
            if len(held) < before:
                self._ranked = _Ranked.of(held, vectors, getattr(self._encoder, "trust", None))
            return before - len(held)

    def _without(self, ids: Iterable[str]) -> tuple[dict[str, str], np.ndarray]:
        """The texts without some, and their vectors."""
        gone, ranked = set(ids), self._ranked
        texts = {id_: text for id_, text in ranked.texts.items() if id_ not in gone}
        return texts, ranked.vectors[np.array([id_ in texts for id_ in ranked.texts], dtype=bool)]

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """Id and score of the best ``k`` texts, best first.

        Scores are :func:`revela_rag.fusion.fused_scores`, which compare texts for one query only; cosines in mode
        ``"dense"``; BM25 in mode ``"lexical"``, where texts that share no word with the query are left out.

        Raises:
            IndexingError: ``k`` is below 1.
        """
        if k < 1:
            raise IndexingError(f"k={k} must be at least 1.")
        ranked, mode = self._ranked, self.mode
        if not ranked.texts:
            return []
        ids = list(ranked.texts)
        if mode == "lexical":
            return ranked.lexical.search(query, k)
        vector = self._encoder.encode_queries([query])[0]
        cosines = ranked.vectors @ vector
        if mode == "dense":
            best = np.argsort(-cosines, kind="stable")[:k]
            return [(ids[place], float(cosines[place])) for place in best]
        words = ranked.lexical.scores(query)
        places = candidates(cosines, words, max(k, DEPTH))
        order, scores = ranked.context.rank_hybrid(vector, places, cosines[places], words[places], k)
        return [(ids[place], float(score)) for place, score in zip(places[order], scores, strict=True)]
