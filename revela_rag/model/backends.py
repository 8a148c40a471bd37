"""What an encoder needs of a model, and how a model of sentence-transformers provides it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from revela_rag.model.open import input_module, read_dimension, read_length
from revela_rag.model.st_format import Role, role_prompts
from revela_rag.model.unknown_tokens import warn_of_unknown_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Backend", "Wrapped"]


class Backend(Protocol):
    """A loaded model that many threads may use at once."""

    @property
    def prompts(self) -> Mapping[Role, str]:
        """What is put before a text, by role."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens kept of a document; 0 when the model keeps all, or does not say."""
        ...

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None when only a forward pass can tell."""
        ...

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU."""
        ...

    def tokenize(self, texts: Sequence[str], role: Role) -> list[Any]:
        """Texts behind their prompt, made ready for :meth:`embed`; ``len`` of each is its number of tokens."""
        ...

    def look_for_unknown_tokens(self, texts: Sequence[str], name: str) -> bool:
        """Whether it warned of texts without tokens, see :mod:`revela_rag.model.unknown_tokens`."""
        ...

    def embed(self, items: Sequence[Any], role: Role) -> np.ndarray:
        """(n, d) float32 vectors of what :meth:`tokenize` gave, from one forward pass."""
        ...

    def embed_tokens(self, items: Sequence[Any], role: Role) -> list[np.ndarray]:
        """The (t, d) float32 vectors of the tokens of each of them, special ones too."""
        ...


@dataclass(frozen=True, slots=True)
class _Sized:
    text: str
    tokens: int

    def __len__(self) -> int:
        return self.tokens


class Wrapped:
    """Any ``SentenceTransformer``, through its own ``encode_query`` and ``encode_document``."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.prompts = role_prompts(model.prompts)
        self._lock = threading.Lock()  # its tokenizer takes one caller at a time

    @property
    def max_length(self) -> int:
        """See :class:`Backend`."""
        return read_length(self.model, "document")

    @property
    def dimension(self) -> int | None:
        """See :class:`Backend`."""
        return read_dimension(self.model)

    @property
    def on_cpu(self) -> bool:
        """See :class:`Backend`."""
        return str(self.model.device).startswith("cpu")

    def tokenize(self, texts: Sequence[str], role: Role) -> list[Any]:
        """Only counts the tokens; sentence-transformers makes them again itself, as it alone knows all its options."""
        behind = [self.prompts[role] + text for text in texts]
        ids = self._token_ids(behind, role)
        sizes = [1 + len(text) // 4 for text in behind] if ids is None else [len(one) for one in ids]
        return [_Sized(text, tokens) for text, tokens in zip(texts, sizes, strict=True)]

    def look_for_unknown_tokens(self, texts: Sequence[str], name: str) -> bool:
        """See :class:`Backend`."""
        ids = self._token_ids(list(texts), "document")
        tokenizer = getattr(input_module(self.model, "document"), "tokenizer", None)
        return ids is not None and warn_of_unknown_tokens(ids, getattr(tokenizer, "unk_token_id", None), name)

    def _token_ids(self, texts: list[str], role: Role) -> list[list[int]] | None:
        """None for a tokenizer that is not of transformers."""
        tokenizer = getattr(input_module(self.model, role), "tokenizer", None)
        if not callable(tokenizer):
            return None
        limit = read_length(self.model, role) or None
        with self._lock:
            ids: list[list[int]] = tokenizer(texts, truncation=limit is not None, max_length=limit)["input_ids"]
        return ids

    def embed(self, items: Sequence[Any], role: Role) -> np.ndarray:
        """See :class:`Backend`."""
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        with self._lock:
            vectors = encode(
                [item.text for item in items],
                prompt=self.prompts[role],
                batch_size=len(items),
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=False,
            )
        return np.asarray(vectors, dtype=np.float32)

    def embed_tokens(self, items: Sequence[Any], role: Role) -> list[np.ndarray]:
        """See :class:`Backend`; the states before the pooling, whatever comes after it."""
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        with self._lock:
            states: Any = encode(
                [item.text for item in items],
                prompt=self.prompts[role],
                batch_size=len(items),
                show_progress_bar=False,
                output_value="token_embeddings",
            )
        return [np.asarray(of.float().cpu().numpy()) for of in states]
