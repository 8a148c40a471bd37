"""From texts to pooled unit vectors with a SentenceTransformer, with gradient or in batches without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["embed_batches", "pool", "tokenize"]


def tokenize(
    model: SentenceTransformer, texts: Sequence[str], *, prompt: str, length: int, device: torch.device
) -> dict[str, Any]:
    """Token ids and masks (n, L) on ``device``, made as sentence-transformers makes them, cut to ``length``."""
    prepare = getattr(model, "preprocess", None)
    before = model.max_seq_length
    model.max_seq_length = length
    try:
        if prepare is not None:
            features: dict[str, Any] = prepare(list(texts), prompt=prompt or None)
        else:  # sentence-transformers before 5.4
            features = dict(model.tokenize([prompt + text for text in texts]))
            if prompt and any(getattr(module, "include_prompt", True) is False for module in model):
                features["prompt_length"] = model.tokenize([prompt])["input_ids"].shape[-1] - 1
    finally:
        model.max_seq_length = before
    return {key: value.to(device) if torch.is_tensor(value) else value for key, value in features.items()}


def pool(model: SentenceTransformer, features: dict[str, Any]) -> Tensor:
    """Unit sentence embeddings (n, d), float32, with whatever gradient the model's parameters ask for.

    Only the transformer runs under autocast or in its own type: pooled and normalised in bfloat16, cosines
    would come in steps of 0.004.
    """
    features = model[0](features)
    features["token_embeddings"] = features["token_embeddings"].float()
    with torch.autocast(features["token_embeddings"].device.type, enabled=False):
        for module in list(model)[1:]:
            features = module(features)
        embeddings: Tensor = features["sentence_embedding"]
        return embeddings if type(model[-1]).__name__ == "Normalize" else F.normalize(embeddings, dim=-1)


def embed_batches(
    embed: Callable[[list[str]], Tensor],
    texts: Sequence[str],
    out: Tensor,
    *,
    batch_size: int,
    show_progress: bool,
) -> Tensor:
    """Fill the rows of ``out`` (n, d) with the embeddings of ``texts``; texts of like length share a batch."""
    from tqdm.auto import tqdm

    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    with torch.no_grad(), tqdm(total=len(texts), desc="embed", unit="text", disable=not show_progress) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            out[rows] = embed([texts[row] for row in rows])
            bar.update(len(rows))
    return out
