"""Embeddings behind an API where a model is expected: in an index, a retriever, an evaluation."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from revela_rag.api.maps import EmbeddingMap
from revela_rag.api.vectors import ApiVectors
from revela_rag.errors import EmbeddingError, ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.find import API
from revela_rag.model.record import recorded_trust
from revela_rag.model.st_format import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["ApiEncoder"]


class ApiEncoder(Encoder):
    """An encoder over embeddings behind an API; made by :meth:`revela_rag.Encoder.over`.

    Args:
        embeddings: LangChain ``Embeddings``, a LlamaIndex ``BaseEmbedding`` or an
            :class:`~revela_rag.api.ApiEmbeddings`.
        adapted: the folder that adapted them; None takes them as they are.
        cache: a file or a directory for vectors; None for the user's cache, False for none.

    Raises:
        EmbeddingError: the folder was adapted from other embeddings.
        ModelError: the embeddings cannot be called, or the folder holds no map.
    """

    def __init__(
        self, embeddings: Any, adapted: str | Path | None = None, *, cache: str | Path | bool | None = None
    ) -> None:
        self.vectors = ApiVectors(embeddings, cache=cache)
        self._map = None if adapted is None else EmbeddingMap.read(adapted)
        self._folder = "" if adapted is None else str(Path(adapted).expanduser().absolute())
        self.trust = recorded_trust(self._folder) if self._folder else None
        self._load_lock = threading.RLock()
        if self._map is not None:
            settings = self.vectors.embeddings
            now = {"query": settings.query_prompt, "document": settings.document_prompt}
            for what, was, given in (
                ("", self._map.base, settings.name),
                ("the prompts of ", dict(self._map.prompts), now),
            ):
                if was != given:
                    raise EmbeddingError(
                        f"The map in {self._folder!r} was learned on {what}{was!r}, not on {given!r}; give those "
                        "embeddings, or adapt again. If only the name differs, ApiEmbeddings.of(EMBEDDINGS, name=...)."
                    )
            self.vectors.expect(
                self._map.known, f"the map in {self._folder!r}", "Put the old model back, or adapt again."
            )

    @property
    def model_path(self) -> str:
        """The folder that adapted the embeddings, or their name."""
        return self._folder or self.vectors.name

    @property
    def name(self) -> str:
        """``api:`` and the name of the embeddings; an index records it, but only a program can call them again."""
        return f"{API}{self.vectors.name}"

    @property
    def chosen_max_length(self) -> int | None:
        """None: it is a setting of the embeddings."""
        return None

    @property
    def token_window(self) -> None:
        """None: its tokenizer is not here."""
        return None

    @property
    def model(self) -> SentenceTransformer:
        """There is none.

        Raises:
            ModelError: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ModelError(
            f"{self.vectors.name!r} is behind an API: there is no model here that could be loaded or trained."
        )

    def encode_tokens(self, texts: Sequence[str], *, role: Role = "document") -> list[np.ndarray]:
        """There are none.

        Raises:
            ModelError: always.
        """
        self._refuse()

    @property
    def loaded(self) -> bool:
        """Always: there is nothing to load."""
        return True

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        return self.vectors.known.dimension if self._map is None else self._map.known.dimension

    @property
    def max_length(self) -> int:
        """Tokens of a text that are sent; 0 for all."""
        return self.vectors.embeddings.max_tokens or 0

    @property
    def query_prompt(self) -> str:
        """What is put before every query."""
        return self.vectors.embeddings.query_prompt

    @property
    def document_prompt(self) -> str:
        """What is put before every document."""
        return self.vectors.embeddings.document_prompt

    @property
    def fingerprint(self) -> str:
        """Hash of name, prompts, the vectors' length and, where the embeddings were adapted, of probes and map."""
        if self._map is not None:
            return self._map.fingerprint
        told = ("revela-api-1", self.vectors.name, self.dimension, self.query_prompt, self.document_prompt)
        return hashlib.sha256(repr(told).encode("utf-8", "replace")).hexdigest()

    def mapped(self, vectors: np.ndarray) -> np.ndarray:
        """What (n, d) unit vectors of the base become: unit rows, float32."""
        return vectors if self._map is None else self._map(vectors)

    def _window(self, texts: Sequence[str], role: Role) -> np.ndarray:
        return self.mapped(self.vectors.embed(texts, role))

    def __repr__(self) -> str:
        over = f", {self._folder!r}" if self._folder else ""
        return f"Encoder.over({self.vectors.name!r}{over})"

    def __getstate__(self) -> dict[str, Any]:
        """Goes to another process where the embeddings themselves do."""
        return {name: value for name, value in self.__dict__.items() if name != "_load_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _load_lock=threading.RLock())
