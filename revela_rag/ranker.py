"""Some texts in memory, ranked for a query: what picks an agent's tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from revela_rag.encoder import Encoder
from revela_rag.errors import IndexingError
from revela_rag.fusion import COSINE_STEP, DEPTH, candidates, cosine_step, fused_scores
from revela_rag.index import Mode
from revela_rag.index.types import check_mode
from revela_rag.lexical import LexicalIndex

__all__ = ["Ranker"]


class Ranker:
    """Ranks up to some thousand short texts that live in memory; for more, and to keep them, there is an index.

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
        self._texts: dict[str, str] = {}
        self._vectors = np.empty((0, 0), dtype=np.float32)  # (texts, dimension), unit rows, in their order
        self._step = COSINE_STEP
        self._lexical = LexicalIndex.build([], [])

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def mode(self) -> Mode:
        """What ranks the texts."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        check_mode(mode)
        self._mode: Mode = mode

    def add(self, texts: Mapping[str, str]) -> None:
        """Add texts by id, embedding them; those whose id is known stay as they are."""
        new = {id_: text for id_, text in texts.items() if id_ not in self._texts}
        if new:
            vectors = self._encoder.encode_documents(list(new.values()))
            self._vectors = np.concatenate([self._vectors, vectors]) if self._texts else vectors
            self._texts |= new
            self._step = cosine_step(len(self._vectors), self._vectors.__getitem__)
            self._lexical = LexicalIndex.build(self._texts, self._texts.values())

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """Id and score of the best ``k`` texts, best first.

        Scores are :func:`revela_rag.fusion.fused_scores`, which compare texts for one query only; cosines in mode
        ``"dense"``; BM25 in mode ``"lexical"``, where texts that share no word with the query are left out.

        Raises:
            IndexingError: ``k`` is below 1.
        """
        if k < 1:
            raise IndexingError(f"k={k} must be at least 1.")
        if not self._texts:
            return []
        ids = list(self._texts)
        words = self._lexical.scores(query)
        if self.mode == "lexical":
            places, scores = np.flatnonzero(words), words[words > 0]
        else:
            cosines = self._vectors @ self._encoder.encode_queries([query])[0]
            places, scores = np.arange(len(ids)), cosines
            if self.mode != "dense":
                places = candidates(cosines, words, max(k, DEPTH))
                scores = fused_scores(cosines[places], words[places], cosine_step=self._step)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(ids[places[at]], float(scores[at])) for at in best]
