"""In-batch attention as pure tensor functions: which pairs matter, and what text i reads in text j.

Shapes: N = G * B texts, P pairs, H query heads, K key/value heads, L tokens, D head size of queries and keys,
E head size of values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from revela_training.weights import ObjectiveError

__all__ = ["Pairs", "cross_attention", "select_pairs"]

_NORM_EPSILON = 1e-6
_MAX_ELEMENTS = 2**25
"""Most numbers in one gathered tensor; more pairs than that go in chunks that are recomputed in the backward."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs (i, j) in which text i reads text j.

    Attributes:
        readers: (P,) int64, i, ascending, as rows of the whole batch of N texts.
        sources: (P,) int64, j.
        weights: (P,) fp32, W[i, j], with gradient where W has one.
        dropped_mass: () fp32, mean over rows of the weight that pruning left out.
    """

    readers: Tensor
    sources: Tensor
    weights: Tensor
    dropped_mass: Tensor


def select_pairs(weights: Tensor, min_weight: float = 0.0) -> Pairs:
    """The pairs whose weight matters.

    Args:
        weights: (G, B, B) fp32, zero diagonals.
        min_weight: pairs with W[i, j] <= this are left out, of the sum and of the gradient. At 0 nothing is:
            when ``weights`` carries a gradient even pairs of weight 0 are kept, the diagonal included, because
            their gradient is not 0.

    Returns:
        The pairs; kept weights are not renormalised.

    Raises:
        ObjectiveError: no pair is left.
    """
    groups, size, _ = weights.shape
    exact = min_weight == 0.0 and weights.requires_grad
    kept = torch.ones_like(weights, dtype=torch.bool) if exact else weights > min_weight
    group, reader, source = kept.nonzero(as_tuple=True)
    if len(group) == 0:
        raise ObjectiveError(
            f"no weight is above min_weight = {min_weight} (the largest is {float(weights.detach().max()):.4f}): "
            "lower min_weight or the temperature"
        )
    dropped = weights.detach().masked_fill(kept, 0.0).sum() / (groups * size)
    return Pairs(group * size + reader, group * size + source, weights[group, reader, source], dropped)


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pairs: Pairs,
    *,
    key_mask: Tensor | None,
    scaling: float,
    v_norm: bool,
    softcap: float | None = None,
    max_elements: int = _MAX_ELEMENTS,
) -> Tensor:
    """What every text reads in the others: sum_j W[i, j] b_ij, b_ij the full attention of i's queries over text j.

    With ``v_norm`` b_ij is divided, per head and token, by (attention_ij @ ||V_j||) + 1e-6. The norms ride along as
    one more value column, so a pair costs one fused attention call and no L x L scores exist.

    Args:
        query: (N, H, L, D), of the reading stream, after rotary embedding.
        key: (N, K, L, D), of the stream that is read, after rotary embedding; H is a multiple of K.
        value: (N, K, L, E).
        pairs: who reads whom.
        key_mask: (N, L) bool, true for real tokens; None when all are.
        scaling: factor of the scores before the softmax.
        v_norm: divide by the mean norm of the values read.
        softcap: cap of the scores, softcap * tanh(scores / softcap), as Gemma 2 has it. There is no fused kernel
            for it, so scores are materialised, chunk by chunk.
        max_elements: most numbers in one gathered tensor; beyond it pairs go in recomputed chunks.

    Returns:
        (N, H, L, E) in the dtype of ``value``; sums are made in fp32.
    """
    n, heads, length, size = query.shape
    kv_heads, value_size = key.shape[1], value.shape[-1]
    # full attention lets grouped heads stand in one long query: no copy of keys per query head
    query = query.reshape(n, kv_heads, heads // kv_heads * length, size)
    if v_norm:
        value = torch.cat([value, value.float().norm(dim=-1, keepdim=True).to(value.dtype)], dim=-1)
    width = max(size, value.shape[-1])
    if size != value.shape[-1]:  # fused kernels want equal head sizes, in multiples of 8
        width = -(-width // 8) * 8
        query, key, value = (F.pad(x, (0, width - x.shape[-1])) for x in (query, key, value))

    def read(
        query: Tensor, key: Tensor, value: Tensor, weights: Tensor, readers: Tensor, sources: Tensor
    ) -> Tensor:
        mask = None if key_mask is None else key_mask[sources][:, None, None, :]
        arguments = (
            query.index_select(0, readers),
            key.index_select(0, sources),
            value.index_select(0, sources),
        )
        if softcap is None:
            output = F.scaled_dot_product_attention(*arguments, attn_mask=mask, scale=scaling)
        else:
            output = _capped_attention(*arguments, mask, scaling, softcap)
        factor = weights[:, None, None, None]
        if v_norm:
            factor = factor / (output[..., value_size : value_size + 1].float() + _NORM_EPSILON)
        return output[..., :value_size] * factor

    cost = query.shape[1] * query.shape[2] * (width if softcap is None else max(width, length))
    step = max(1, max_elements // cost)
    total = torch.zeros(*query.shape[:3], value_size, dtype=torch.float32, device=query.device)
    for start in range(0, len(pairs.readers), step):
        chunk = slice(start, start + step)
        readers, sources = pairs.readers[chunk], pairs.sources[chunk]
        inputs = (query, key, value, pairs.weights[chunk], readers, sources)
        if step < len(pairs.readers) and torch.is_grad_enabled():
            part = checkpoint(read, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            part = read(*inputs)
        total.index_add_(0, readers, part.float())
    return total.reshape(n, heads, length, value_size).to(value.dtype)


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, softcap: float
) -> Tensor:
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scaling / softcap))
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
