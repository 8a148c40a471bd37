"""Base embeddings on disk, text by text, so that a new training run costs only training.

One SQLite file. A vector is found by the model's fingerprint, the prompt its role puts before the text, the tokens it
reads and the text itself; a killed run keeps what it had embedded.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from revela_rag.model.encoder import Encoder
from revela_rag.model.st_format import Role
from revela_training.retriever.backbone import TrainableRetriever

_BLOCK = 1024  # texts between two commits
_SELECT = 500  # keys in one query
_CHARACTERS_PER_TOKEN = 8  # longer texts are taken to fill the window without counting their tokens


class VectorCache:
    """What frozen backbones gave for texts.

    Args:
        folder: where ``embeddings.sqlite`` is kept.
        show_progress: show a bar while texts are embedded.
    """

    def __init__(self, folder: Path, *, show_progress: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "embeddings.sqlite"
        self.embedded = 0
        self._show_progress = show_progress
        self._fingerprints: WeakKeyDictionary[TrainableRetriever, str] = WeakKeyDictionary()
        with self._open() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")

    def retriever(self, base: str | Path, **options: Any) -> TrainableRetriever:
        """A retriever that embeds with its frozen backbone (linear adapter) through this cache.

        Args:
            base: the model.
            options: those of :class:`TrainableRetriever`.
        """
        return _CachedRetriever(base, cache=self, **options)

    def embed(
        self,
        retriever: TrainableRetriever,
        compute: Callable[..., torch.Tensor],
        texts: Sequence[str],
        role: Role,
        *,
        max_length: int | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Unit rows (n, d) of the unadapted model; those not yet known are embedded by ``compute``."""

        def of_missing(missing: list[str]) -> np.ndarray:
            return compute(missing, role, self._show_progress, max_length=max_length, **options).numpy(force=True)

        length = min(max_length or retriever.inference_max_length, retriever.inference_max_length)
        keys = self._keys(retriever, texts, role, length, options)
        return torch.from_numpy(self._vectors(texts, keys, of_missing, retriever.dimension)).to(retriever.device)

    def _keys(
        self, retriever: TrainableRetriever, texts: Sequence[str], role: Role, length: int, options: dict[str, Any]
    ) -> list[bytes]:
        """One key per text; one that fits has the same vector at every window, so it is kept under its own length."""
        if retriever not in self._fingerprints:
            self._fingerprints[retriever] = Encoder(retriever.model).fingerprint
        prompt = retriever.prompts[role]
        dtype = options.get("compute_dtype", "float32")
        start = hashlib.sha256(f"{self._fingerprints[retriever]}\0{dtype}\0{prompt}\0".encode("utf-8", "surrogatepass"))
        lengths = [length] * len(texts)
        short = [i for i, text in enumerate(texts) if len(text) <= length * _CHARACTERS_PER_TOKEN]
        if short:
            tokenizer: Any = retriever.model.tokenizer
            encoded = tokenizer([prompt + texts[i] for i in short], truncation=True, max_length=length + 1)
            for i, ids in zip(short, encoded["input_ids"], strict=True):
                lengths[i] = min(length, len(ids))
        keys = []
        for text, size in zip(texts, lengths, strict=True):
            state = start.copy()
            state.update(f"{size}\0{text}".encode("utf-8", "surrogatepass"))
            keys.append(state.digest()[:16])
        return keys

    def _vectors(
        self,
        texts: Sequence[str],
        keys: Sequence[bytes],
        compute: Callable[[list[str]], np.ndarray],
        dimension: int,
    ) -> np.ndarray:
        """Vectors (n, d) of texts; those not yet known are computed, longest first, and stored block by block."""
        known = self._read(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        order = sorted(missing, key=lambda key: -len(missing[key]))
        for start in range(0, len(order), _BLOCK):
            block = order[start : start + _BLOCK]
            vectors = compute([missing[key] for key in block]).astype(np.float32)
            rows = [(key, vector.tobytes()) for key, vector in zip(block, vectors, strict=True)]
            with self._open() as connection:
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            known.update(rows)
            self.embedded += len(rows)
        return np.frombuffer(b"".join(known[key] for key in keys), dtype=np.float32).reshape(-1, dimension).copy()

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        wanted = list(dict.fromkeys(keys))
        with self._open() as connection:
            for start in range(0, len(wanted), _SELECT):
                part = wanted[start : start + _SELECT]
                marks = ",".join("?" * len(part))
                found.update(connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part))
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            with connection:
                yield connection
        finally:
            connection.close()


class _CachedRetriever(TrainableRetriever):
    """A retriever that asks a cache for what its frozen backbone gives; with LoRA the backbone is not frozen."""

    def __init__(self, base: str | Path, *, cache: VectorCache, **options: Any) -> None:
        super().__init__(base, **options)
        self._cache = cache

    def embed_base(self, texts: Sequence[str], role: Role, show_progress: bool = False, **options: Any) -> torch.Tensor:
        """See :meth:`TrainableRetriever.embed_base`."""
        if self.adapter is None:
            return super().embed_base(texts, role, show_progress, **options)
        return self._cache.embed(self, super().embed_base, texts, role, **options)
