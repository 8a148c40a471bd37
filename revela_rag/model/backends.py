"""What an encoder needs of a model, and how a model of sentence-transformers provides it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from revela_rag.model.unknown_tokens import warn_of_unknown_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Backend", "Role", "Wrapped"]

Role = Literal["query", "document"]


class Backend(Protocol):
    """A loaded model that many threads may use at once."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Texts that are put before an input, by name."""
        ...

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt that is meant when none is named."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens kept of a text; 0 when the model does not say."""
        ...

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None when only a forward pass can tell."""
        ...

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU."""
        ...

    def tokenize(self, texts: Sequence[str], prompt: str) -> list[Any]:
        """Texts made ready for :meth:`embed`; ``len`` of each is its number of tokens."""
        ...

    def look_for_unknown_tokens(self, texts: Sequence[str], name: str) -> bool:
        """Whether it warned of texts without tokens, see :mod:`revela_rag.model.unknown_tokens`."""
        ...

    def embed(self, items: Sequence[Any], role: Role) -> np.ndarray:
        """(n, d) float32 vectors of what :meth:`tokenize` gave, from one forward pass."""
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
        self._lock = threading.Lock()  # its tokenizer takes one caller at a time

    @property
    def prompts(self) -> Mapping[str, str]:
        """See :class:`Backend`."""
        return {name: prompt or "" for name, prompt in (self.model.prompts or {}).items()}

    @property
    def default_prompt_name(self) -> str | None:
        """See :class:`Backend`."""
        return self.model.default_prompt_name

    @property
    def max_length(self) -> int:
        """See :class:`Backend`."""
        return int(self.model.max_seq_length or 0)

    @property
    def dimension(self) -> int | None:
        """See :class:`Backend`."""
        read = getattr(self.model, "get_embedding_dimension", None) or self.model.get_sentence_embedding_dimension
        return self.model.truncate_dim or read()

    @property
    def on_cpu(self) -> bool:
        """See :class:`Backend`."""
        return str(self.model.device).startswith("cpu")

    def tokenize(self, texts: Sequence[str], prompt: str) -> list[Any]:
        """Only counts the tokens; sentence-transformers makes them again itself, as it alone knows all its options."""
        tokenizer = getattr(self.model, "tokenizer", None)
        if not callable(tokenizer):
            return [_Sized(text, 1 + len(prompt + text) // 4) for text in texts]
        limit = self.max_length or None
        with self._lock:
            found = tokenizer([prompt + text for text in texts], truncation=limit is not None, max_length=limit)
        return [_Sized(text, len(ids)) for text, ids in zip(texts, found["input_ids"], strict=True)]

    def look_for_unknown_tokens(self, texts: Sequence[str], name: str) -> bool:
        """See :class:`Backend`."""
        tokenizer = getattr(self.model, "tokenizer", None)
        if not callable(tokenizer):
            return False
        with self._lock:
            found = tokenizer(list(texts), truncation=bool(self.max_length), max_length=self.max_length or None)
        return warn_of_unknown_tokens(found["input_ids"], getattr(tokenizer, "unk_token_id", None), name)

    def embed(self, items: Sequence[Any], role: Role) -> np.ndarray:
        """See :class:`Backend`."""
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        with self._lock:
            vectors = encode(
                [item.text for item in items],
                batch_size=len(items),
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=False,
            )
        return np.asarray(vectors, dtype=np.float32)
