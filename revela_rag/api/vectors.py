"""Texts in, unit vectors out, by way of embeddings behind an API: each text is paid for once."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.api.answers import checked
from revela_rag.api.cache import open_cache
from revela_rag.api.cost import CostEstimate
from revela_rag.api.embeddings import ApiEmbeddings
from revela_rag.api.known import PROBES, Known
from revela_rag.api.requests import Requests
from revela_rag.corpus.text import about_tokens
from revela_rag.errors import EmbeddingError
from revela_rag.model.st_format import Role
from revela_rag.surrogates import encodable

__all__ = ["ApiVectors"]

logger = logging.getLogger(__name__)

_OTHER_NAME = (
    "What was embedded stays there. Give the new model a name of its own, ApiEmbeddings.of(..., name=...), or put the "
    "old one back."
)
_EMPTY = "."  # services refuse a text of nothing


class ApiVectors:
    """Embeddings behind an API with their cache; may be used by many threads.

    Before the first request that costs something, three short probe texts tell the vectors' length, whether queries are
    embedded as documents are, and whether the model is the one that the cache holds vectors of.

    Args:
        embeddings: how to ask for vectors.
        cache: a file or a directory for the vectors; None for the user's cache, False for none.

    Raises:
        ModelError: ``embeddings`` cannot be called.
    """

    def __init__(self, embeddings: Any, *, cache: str | Path | bool | None = None) -> None:
        self.embeddings = ApiEmbeddings.of(embeddings)
        self.cache = open_cache(cache)
        self._known: Known | None = None
        self._given: dict[bytes, np.ndarray] = {}
        self._expected: list[tuple[Known, str, str]] = []
        self._verified = False
        self._lock = threading.RLock()
        self._requests = Requests(self.embeddings)

    @property
    def name(self) -> str:
        """Of the model."""
        return self.embeddings.name

    @property
    def known(self) -> Known:
        """What the model is: from the cache, or asked for."""
        with self._lock:
            if self._known is None:
                self._known = self._remembered() or self.verify()
                if self.embeddings.dimension not in (None, self._known.dimension):
                    self._known = self.verify()
                self._compare(self._known)
            return self._known

    def expect(self, known: Known, where: str, remedy: str) -> None:
        """Have no other model answer than the one ``known`` from elsewhere."""
        with self._lock:
            self._expected.append((known, where, remedy))
            if self._known is not None:
                self._compare(self._known)

    def verify(self) -> Known:
        """Ask for the probes, once, and compare them with what is in the cache and what is expected.

        Raises:
            EmbeddingError: another model answers; nothing that was embedded is lost.
        """
        with self._lock:
            if self._verified and self._known is not None:
                return self._known
            now = self._probed()
            self._compare(now)
            before = self._remembered()
            if before is not None and self.cache is not None:
                before.check(now, self.name, f"the cache {str(self.cache.path)!r}", _OTHER_NAME)
            elif self.cache is not None:
                self.cache.remember(self._signature, {"roles_differ": now.roles_differ}, now.probes)
            self._known, self._verified = before or now, True
            return self._known

    def _remembered(self) -> Known | None:
        """What the cache knows of the model."""
        stored = self.cache.model(self._signature) if self.cache is not None else None
        return Known(stored[0]["dimension"], bool(stored[0]["roles_differ"]), stored[1]) if stored else None

    @property
    def _signature(self) -> str:
        """Names the model and what else its probes depend on."""
        settings = self.embeddings
        prompts = (settings.query_prompt, settings.document_prompt, settings.embed_queries is not None)
        return settings.name if prompts == ("", "", False) else json.dumps([settings.name, *prompts])

    def _compare(self, now: Known) -> None:
        for known, where, remedy in self._expected:
            known.check(now, self.name, where, remedy)

    def embed(self, texts: Sequence[str], role: Role, *, show_progress: bool = False) -> np.ndarray:
        """Vectors of texts, from the cache or asked for.

        Args:
            texts: n texts, without prompt.
            role: "query" or "document".
            show_progress: draw a progress bar over the texts that are asked for.

        Returns:
            (n, d) float32 unit rows.

        Raises:
            EmbeddingError: the model does not answer, or not with such vectors. What it gave before stays in the cache.
            DiskError: the cache cannot be written.
        """
        known = self.known
        if not len(texts):
            return np.empty((0, known.dimension), dtype=np.float32)
        sent = [self._sent(text, role) for text in texts]
        keys = self._keys(sent, role)
        found = self._cached(keys)
        missing = {key: text for key, text in zip(keys, sent, strict=True) if key not in found}
        if missing:
            self.verify()
            self._ask(missing, self._as(role), found, show_progress)
        return np.stack([found[key] for key in keys]).astype(np.float32, copy=False)

    def estimate(self, documents: Sequence[str], queries: Sequence[str]) -> CostEstimate:
        """What embedding these texts would send, with what is in the cache left out."""
        wanted: dict[Role, dict[bytes, str]] = {"document": {}, "query": {}}
        of_role: tuple[tuple[Role, Sequence[str]], ...] = (("document", documents), ("query", queries))
        for role, texts in of_role:
            sent = [self._sent(text, role) for text in texts]
            wanted[self._as(role)].update(zip(self._keys(sent, role), sent, strict=True))
        cached = self._cached([key for texts in wanted.values() for key in texts])
        missing = {role: [text for key, text in texts.items() if key not in cached] for role, texts in wanted.items()}
        return CostEstimate(
            self.name,
            texts=sum(map(len, missing.values())),
            cached=len(cached),
            tokens=round(sum(about_tokens(text) for texts in missing.values() for text in texts)),
            requests=sum(len(self._requests.batches(texts, role)) for role, texts in missing.items()),
            price=self.embeddings.price,
        )

    def give(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Take (n, d) vectors of documents from elsewhere, such as a store; they do not go into the cache."""
        sent = [self._sent(text, "document") for text in texts]
        rows = checked(vectors, sent, "The store", self.known.dimension)
        self._given.update(zip(self._keys(sent, "document"), rows, strict=True))

    @property
    def has_documents(self) -> bool:
        """Whether vectors of documents were given."""
        return bool(self._given)

    # -- asking ------------------------------------------------------------------------------------------------

    def _probed(self) -> Known:
        settings = self.embeddings
        documents = self._probe("document", settings.dimension)
        apart = settings.embed_queries is not None or settings.query_prompt != settings.document_prompt
        return Known.of(documents, self._probe("query", documents.shape[1]) if apart else None)

    def _probe(self, role: Role, dimension: int | None) -> np.ndarray:
        """(3, d) vectors of the probes in one role."""
        parts = self._requests.batches([self.embeddings.prompt(role) + text for text in PROBES], role)
        return np.concatenate([self._requests.embed(part, role, dimension) for part in parts])

    def _ask(self, missing: dict[bytes, str], role: Role, found: dict[bytes, np.ndarray], show_progress: bool) -> None:
        """Ask for vectors, the longest texts first: what is refused for its length is so at once."""
        from tqdm.auto import tqdm

        dimension = self.known.dimension
        order = sorted(missing, key=lambda key: -len(missing[key]))
        lock = threading.Lock()

        def ask(keys: Sequence[bytes]) -> int:
            vectors = self._requests.embed([missing[key] for key in keys], role, dimension)
            if self.cache is not None:
                self.cache.put(keys, vectors)
            with lock:
                found.update(zip(keys, vectors, strict=True))
            return len(keys)

        try:
            with tqdm(total=len(order), desc="embed", unit="text", disable=not show_progress) as bar:
                for count in self._requests.each(ask, self._requests.batches(order, role)):
                    bar.update(count)
        except EmbeddingError as error:
            kept = "none of them are kept (cache=False)" if self.cache is None else f"kept in {str(self.cache.path)!r}"
            raise EmbeddingError(
                f"{error} {sum(key in found for key in order):,} of {len(order):,} texts were embedded, {kept}; run "
                "again to go on with the others."
            ) from error.__cause__

    # -- keys --------------------------------------------------------------------------------------------------

    def _as(self, role: Role) -> Role:
        """The role in which a text is embedded: queries go with documents where that gives the same vectors."""
        return role if self.known.roles_differ else "document"

    def _sent(self, text: str, role: Role) -> str:
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__}.")
        text = encodable(text)
        text = self.embeddings.prompt(role) + (text if text.strip() else _EMPTY)
        limit = self.embeddings.max_tokens
        tokens = about_tokens(text) if limit is not None else 0
        return text[: int(len(text) * limit / tokens)] if limit is not None and tokens > limit else text

    def _keys(self, sent: Sequence[str], role: Role) -> list[bytes]:
        start = hashlib.sha256(f"{self._signature}\0{self._as(role)}\0".encode("utf-8", "replace"))
        keys = []
        for text in sent:
            state = start.copy()
            state.update(text.encode())
            keys.append(state.digest()[:16])
        return keys

    def _cached(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found = {key: self._given[key] for key in keys if key in self._given}
        if self.cache is None:
            return found
        kept = self.cache.get([key for key in keys if key not in found])
        return found | {key: vector for key, vector in kept.items() if len(vector) == self.known.dimension}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_verified")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _verified=False)
