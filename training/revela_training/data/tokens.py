"""Texts as tokens, made once and read from disk, so that nothing is tokenised while a device waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from revela_rag.errors import ModelError
from revela_training.loop.workspace import digest
from revela_training.retriever.embedding import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from revela_rag.model.st_format import Role
from revela_training.retriever.backbone import TrainableRetriever

__all__ = ["TokenStore", "tokenize_for_lm", "tokenize_for_retriever", "trim"]

_TEXTS_AT_ONCE = 1024


class _Arrays(Protocol):
    """Where arrays are kept: `Workspace.array`."""

    def __call__(self, name: str, compute: Callable[[], np.ndarray], *, mapped: bool = False) -> np.ndarray: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStore:
    """Token ids of N texts, one after the other.

    Attributes:
        tokens: (T,) int32 ids of all texts, usually memory-mapped.
        offsets: (N + 1,) int64; text i is ``tokens[offsets[i]:offsets[i + 1]]``.
        pad_id: what padding is made of.
        pad_left: whether padding stands before the text.
        constants: what else the model is handed with every batch, such as the length of the prompt.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    pad_id: int
    pad_left: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of ``rows``, (n,) int64."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask``, (n, L) int64 with L the longest of ``rows``, and the constants."""
        lengths = self.lengths(rows)
        width = max(1, int(lengths.max()))
        places = np.arange(width)
        mask = places >= width - lengths[:, None] if self.pad_left else places < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in rows])
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            **self.constants,
        }


def tokenize_for_lm(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, keep: _Arrays | None = None
) -> TokenStore:
    """What a causal LM reads of each text.

    Args:
        texts: the texts.
        tokenizer: the LM's, with a padding token.
        max_tokens: tokens kept of each text.
        keep: `Workspace.array`, so that a resumed run finds them on disk; None keeps them in memory.
    """

    def pieces() -> Iterator[np.ndarray]:
        for some in _some(texts):
            for ids in tokenizer(some, truncation=True, max_length=max_tokens)["input_ids"]:
                yield np.asarray(ids, dtype=np.int32)

    key = digest([_identity(tokenizer), str(max_tokens), *texts])
    tokens, offsets = _kept(f"tokens-lm-{key}", pieces, keep)
    pad = tokenizer.pad_token_id
    return TokenStore(
        tokens=tokens,
        offsets=offsets,
        pad_id=0 if pad is None else int(pad),
        pad_left=tokenizer.padding_side == "left",
    )


def tokenize_for_retriever(
    texts: Sequence[str], retriever: TrainableRetriever, role: Role, *, keep: _Arrays | None = None
) -> TokenStore:
    """What the retriever's backbone reads of each text while it trains, prompt included.

    Args:
        texts: the texts, without prompt.
        retriever: decides tokenizer, prompt and length.
        role: "query" or "document".
        keep: as for `tokenize_for_lm`.

    Raises:
        ModelError: the backbone needs more than ids and a mask.
    """
    model, prompt, length = retriever.model, retriever.prompts[role], retriever.max_length

    def features(some: Sequence[str]) -> dict[str, Any]:
        return tokenize(model, some, prompt=prompt, length=length, device=torch.device("cpu"))

    def pieces() -> Iterator[np.ndarray]:
        for some in _some(texts):
            made = features(some)
            for ids, mask in zip(made["input_ids"], made["attention_mask"].bool(), strict=True):
                yield ids[mask].numpy().astype(np.int32)

    sample = features(["a", "a b c"])
    tensors = {name: value for name, value in sample.items() if torch.is_tensor(value)}
    extra = {n for n, v in tensors.items() if n not in ("input_ids", "attention_mask") and bool(v.any())}
    if extra:
        raise ModelError(
            f"{retriever.base_name} reads {', '.join(sorted(extra))} besides token ids, which training inside the "
            'backbone does not provide. Use adapter="linear".'
        )
    tokenizer: Any = model.tokenizer
    key = digest([_identity(tokenizer), prompt, str(length), *texts])
    tokens, offsets = _kept(f"tokens-{role}-{key}", pieces, keep)
    return TokenStore(
        tokens=tokens,
        offsets=offsets,
        pad_id=int(tokenizer.pad_token_id or 0),
        pad_left=tokenizer.padding_side == "left",
        constants={name: value for name, value in sample.items() if name not in tensors},
    )


def trim(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both (n, L) without the columns that are padding in every row, on either side."""
    used = attention_mask.any(0).nonzero()
    if len(used) == 0:
        return input_ids[:, :1], attention_mask[:, :1]
    columns = slice(int(used[0]), int(used[-1]) + 1)
    return input_ids[:, columns], attention_mask[:, columns]


def _kept(name: str, pieces: Callable[[], Iterable[np.ndarray]], keep: _Arrays | None) -> tuple[np.ndarray, np.ndarray]:
    made: list[np.ndarray] = []

    def parts() -> list[np.ndarray]:
        if not made:
            made.extend(pieces())
        return made

    def flat() -> np.ndarray:
        return np.concatenate(parts()) if parts() else np.zeros(0, dtype=np.int32)

    def offsets() -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(part) for part in parts()], dtype=np.int64)])

    if keep is None:
        return flat(), offsets()
    return keep(name, flat, mapped=True), keep(f"{name}-offsets", offsets, mapped=True)


def _some(texts: Sequence[str]) -> Iterator[list[str]]:
    return (list(texts[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(texts), _TEXTS_AT_ONCE))


def _identity(tokenizer: Any) -> str:
    """Everything a tokenizer does, as text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        return json.dumps({name: state[name] for name in state if name not in ("padding", "truncation")})
    return f"{type(tokenizer).__name__} {sorted(tokenizer.get_vocab().items())}"
