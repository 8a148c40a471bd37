"""From texts to pooled unit vectors with a SentenceTransformer, with gradient or in batches without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["embed_batches", "like_length", "pool", "rows_of", "tokenize"]

_BLOCK = 512  # texts that are tokenised together
_PIECE_TOKENS = (1024, 16384)  # of a forward pass; on a CPU shorter padding is worth more than larger products


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
    prepare: Callable[[list[str]], dict[str, Any]],
    encode: Callable[[dict[str, Any]], Tensor],
    texts: Sequence[str],
    out: Tensor,
    *,
    show_progress: bool,
) -> Tensor:
    """Fill the rows of ``out`` (n, d) with the embeddings of ``texts``; texts of like length share a forward pass.

    Args:
        prepare: makes features of some texts, such as `tokenize` does.
        encode: makes embeddings (m, d) of features of m texts, such as `pool` does.
        texts: what to embed.
        out: where to.
        show_progress: show a progress bar.
    """
    from tqdm.auto import tqdm

    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    with torch.no_grad(), tqdm(total=len(texts), desc="embed", unit="text", disable=not show_progress) as bar:
        for start in range(0, len(order), _BLOCK):
            block = torch.tensor(order[start : start + _BLOCK], device=out.device)
            features = prepare([texts[row] for row in block.tolist()])
            for rows in like_length(features["attention_mask"].sum(-1)):
                out[block[rows]] = encode(rows_of(features, rows))
                bar.update(len(rows))
    return out


def like_length(lengths: Tensor, at_once: int | None = None) -> list[Tensor]:
    """Row numbers of texts to encode together, longest first.

    Args:
        lengths: (n,) tokens of each text.
        at_once: texts in each piece but the last; None takes as many as make a good load for the device.
    """
    order = lengths.argsort(descending=True, stable=True)
    if at_once is not None:
        return list(order.split(at_once))
    budget, counts, longest, count = _PIECE_TOKENS[lengths.device.type != "cpu"], [], 0, 0
    for length in lengths[order].tolist():
        if count and longest * (count + 1) > budget:
            counts.append(count)
            count = 0
        longest = longest if count else length
        count += 1
    return list(order.split([*counts, count]))


def rows_of(features: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Features of some texts, without the columns that are padding in all of them."""
    shape = features["input_ids"].shape
    used = features["attention_mask"][rows].any(0).nonzero()
    columns = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)

    def part(value: Any) -> Any:
        if not torch.is_tensor(value) or value.shape[:1] != shape[:1]:
            return value
        return value[rows][:, columns] if value.shape[:2] == shape else value[rows]

    return {name: part(value) for name, value in features.items()}
