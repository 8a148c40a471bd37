"""A server that embeds words by their hash, and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from revela_rag.api import ApiEmbeddings


def word_vector(word: str, dimension: int, seed: int = 0) -> np.ndarray:
    digest = hashlib.sha256(f"{seed} {word}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(dimension)


class Server:
    """Sums of word vectors; ``faults`` are looked up by the number of the call, and may raise or change the answer."""

    def __init__(self, dimension: int = 16, *, seed: int = 0) -> None:
        self.dimension, self.seed = dimension, seed
        self.calls: list[list[str]] = []
        self.faults: dict[int, Callable[[np.ndarray], Any]] = {}

    def __call__(self, texts: list[str]) -> Any:
        self.calls.append(texts)
        words = [re.findall(r"\w+", text.lower()) or ["."] for text in texts]
        rows = [sum(word_vector(word, self.dimension, self.seed) for word in some) for some in words]
        vectors = np.array(rows).reshape(len(texts), self.dimension)
        fault = self.faults.get(len(self.calls))
        return vectors.tolist() if fault is None else fault(vectors)

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def embeddings(self, **settings: Any) -> ApiEmbeddings:
        return ApiEmbeddings(**{"name": "words", "embed_documents": self, "batch_size": 4, **settings})


class HttpError(Exception):
    """As client libraries raise it."""

    def __init__(self, status_code: int, message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response = type("Response", (), {"headers": headers or {}, "status_code": status_code})()


def raising(error: BaseException) -> Callable[[np.ndarray], Any]:
    def fault(vectors: np.ndarray) -> Any:
        raise error

    return fault
