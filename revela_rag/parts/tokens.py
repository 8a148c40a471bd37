"""Token by token: how well each token of a query is matched in a text, by the vectors of the encoder's own tokens.

Source: Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over
BERT", SIGIR 2020.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from revela_rag.errors import IndexingError

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["MaxSim", "TokenVectors"]

_KEPT = 1000


class TokenVectors:
    """The token vectors of texts, made by an encoder when they are asked for; safe to share between threads.

    Args:
        encoder: any model but embeddings behind an API.
        keep: so many texts that were used last keep theirs in memory, as float16: for MiniLM 77 KB for 100 tokens.

    Raises:
        IndexingError: ``keep`` is negative.
    """

    def __init__(self, encoder: Encoder, *, keep: int = _KEPT) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
            raise IndexingError(f"keep={keep!r} must be a number of texts, 0 for none.")
        self.encoder, self.keep = encoder, keep
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The (t, d) float16 unit vectors of each text's tokens."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        made = self.encoder.encode_tokens(list(missing.values()))
        found |= {key: vectors.astype(np.float16) for key, vectors in zip(missing, made, strict=True)}
        with self._lock:
            for key in keys:
                self._kept[key] = found[key]
                self._kept.move_to_end(key)
            while len(self._kept) > self.keep:
                self._kept.popitem(last=False)
        return [found[key] for key in keys]

    def matches(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """(n, f) float32: the highest cosine of each of the query's f tokens with any token of each of n texts."""
        asked = self.encoder.encode_tokens([query], role="query")[0]
        held = self.of(texts)
        if not held:
            return np.empty((0, len(asked)), dtype=np.float32)
        starts = np.cumsum([0, *(len(vectors) for vectors in held[:-1])])
        cosines = np.concatenate(held).astype(np.float32) @ asked.T
        best: np.ndarray = np.maximum.reduceat(cosines, starts, axis=0)
        return best


class MaxSim:
    """Reranks by the mean, over the query's tokens, of the best match in a text.

    Args:
        encoder: the index's, ``index.encoder``, or another that is not behind an API; or token vectors, to share them.
    """

    def __init__(self, encoder: Encoder | TokenVectors) -> None:
        self.tokens = encoder if isinstance(encoder, TokenVectors) else TokenVectors(encoder)

    def __call__(self, query: str, texts: Sequence[str], /) -> np.ndarray:
        """See :class:`revela_rag.parts.Reranker`."""
        scores: np.ndarray = self.tokens.matches(query, texts).mean(axis=1)
        return scores
