"""Joint reading: one softmax over a text's own tokens and those of its neighbours, log W a prior over what to read.

    o = softmax([ q K_own s (causal) | q K_j s + log W[i, j]  for j != i ]) [ V_own | V_j ... ]

The published form adds W[i, j] times the attention over j to the text's own attention, which overwhelms an LM that was
not trained for it. Here W only shifts scores, so any causal LM reads its neighbours as it reads its own past.

Shapes: N = G * B texts, H query heads, K key/value heads, L tokens, D head size of queries and keys, E of values,
T tokens that a reader finds in its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from revela_training.objective.attention.pairs import Pairs

__all__ = ["Bucket", "causal_mask", "joint_attention", "plan_buckets"]

_BUCKETS = 4  # readers with about as many neighbours' tokens share one call


@dataclass(frozen=True, slots=True)
class Bucket:
    """Readers that find about as many tokens in their neighbours; padded to the most.

    Attributes:
        readers: (n,) int64, rows of the batch.
        tokens: (n, T) int64, places in the batch flattened to (N * L,); 0 where there is none.
        there: (n, T) bool, false for that padding.
        pairs: (n, T) int64, the pair by which each token is found, as an index into `Pairs`; 0 where there is none.
    """

    readers: Tensor
    tokens: Tensor
    there: Tensor
    pairs: Tensor


def plan_buckets(pairs: Pairs, real: Tensor, *, buckets: int = _BUCKETS) -> list[Bucket]:
    """Which tokens every reader finds, without those of texts it does not read and without padding.

    Args:
        pairs: who reads whom.
        real: (N, L) bool, true for real tokens.
        buckets: at most so many; more of them pad less and call more often.

    Returns:
        Every reader in exactly one bucket, those without a neighbour too.
    """
    n, length = real.shape
    reads = pairs.weights.detach()[:, None] > 0  # at weight 0 nothing is read, and log W is infinite
    pair, place = (real[pairs.sources] & reads).nonzero(as_tuple=True)  # by pair, and those by reader
    owner = pairs.readers[pair]
    flat = pairs.sources[pair] * length + place
    counts = torch.bincount(owner, minlength=n)
    column = torch.arange(len(owner), device=real.device) - (counts.cumsum(0) - counts)[owner]
    order = counts.argsort(stable=True)
    made = []
    for rows in order.tensor_split(min(buckets, n)):
        width = int(counts[rows].max())
        row_of = torch.full((n,), -1, dtype=torch.int64, device=real.device)
        row_of[rows] = torch.arange(len(rows), device=real.device)
        mine = (row_of[owner] >= 0).nonzero()[:, 0]
        at = row_of[owner[mine]], column[mine]
        tokens, found_by = (torch.zeros(len(rows), width, dtype=torch.int64, device=real.device) for _ in range(2))
        there = torch.zeros(len(rows), width, dtype=torch.bool, device=real.device)
        tokens[at], found_by[at], there[at] = flat[mine], pair[mine], True
        made.append(Bucket(rows, tokens, there, found_by))
    return made


def causal_mask(real: Tensor, window: int | None = None) -> Tensor:
    """(N, 1, L, L) bool: real tokens up to the reading one, at most ``window`` of them where that is given."""
    places = torch.arange(real.shape[1], device=real.device)
    distance = places[:, None] - places
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return seen & real[:, None, None, :]


def joint_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    base_key: Tensor,
    base_value: Tensor,
    buckets: list[Bucket],
    log_weights: Tensor,
    *,
    own: Tensor,
    scaling: float,
    softcap: float | None = None,
) -> Tensor:
    """What every text reads in itself and its neighbours, in one softmax.

    Args:
        query: (N, H, L, D), of the cross stream, after rotary embedding.
        key: (N, K, L, D), of the cross stream; H is a multiple of K.
        value: (N, K, L, E), of the cross stream.
        base_key: (N, K, L, D), of the base stream, what neighbours are read by.
        base_value: (N, K, L, E), of the base stream.
        buckets: who finds which tokens, from `plan_buckets`.
        log_weights: (P,) fp32, log W[i, j] of the pairs, with gradient where W has one.
        own: (N, 1, L, L) bool, what a token sees of its own text. A row without any (padding) sees everything.
        scaling: factor of the scores before the softmax.
        softcap: cap of the scores, before log W is added.

    Returns:
        (N, H, L, E) in the dtype of ``value``.
    """
    heads, kv_heads, value_size = query.shape[1], key.shape[1], value.shape[-1]
    repeats = heads // kv_heads
    base_key, base_value = (x.transpose(1, 2).flatten(0, 1) for x in (base_key, base_value))  # (N * L, K, size)
    attend = _fused if softcap is None else _written
    parts = []
    for bucket in buckets:
        rows = bucket.readers
        found_key, found_value = (x[bucket.tokens].transpose(1, 2) for x in (base_key, base_value))  # (n, K, T, size)
        # grouped heads stand as one long query: no copy of the keys per query head
        asked = query[rows].unflatten(1, (kv_heads, repeats)).flatten(2, 3)
        keys = torch.cat([found_key.to(key.dtype), key[rows]], dim=2)
        values = torch.cat([found_value.to(value.dtype), value[rows]], dim=2)
        bias = functional.pad(log_weights[bucket.pairs].masked_fill(~bucket.there, 0.0), (0, key.shape[2]))
        seen = _seen(own[rows], bucket.there).repeat(1, 1, repeats, 1)
        read = attend(asked, keys, values, bias, seen, scaling, softcap)
        parts.append(read[..., :value_size].unflatten(2, (repeats, -1)).flatten(1, 2))
    order = torch.cat([bucket.readers for bucket in buckets]).argsort()
    return torch.cat(parts)[order]


def _seen(own: Tensor, there: Tensor) -> Tensor:
    """(n, 1, L, T + L) bool. What stands for padding sees all, so that no softmax is empty; nobody reads it."""
    found = there[:, None, None, :].expand(-1, 1, own.shape[2], -1)
    return torch.cat([found, own], dim=-1) | ~own.any(-1, keepdim=True)


def _fused(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, seen: Tensor, scaling: float, softcap: float | None
) -> Tensor:
    """Through PyTorch's fused attention, which has no gradient for a bias: log W rides along as columns of the keys.

    In half precision it is split in two, the rounded value and what that lost.
    """
    high = bias.to(key.dtype)
    columns = [high] if key.dtype.itemsize >= 4 else [high, (bias - high.detach().float()).detach().to(key.dtype)]
    width = -(-max(key.shape[-1] + len(columns), value.shape[-1]) // 8) * 8  # kernels want sizes in multiples of 8
    ones = query.new_full((*query.shape[:-1], len(columns)), 1.0 / scaling)
    query = functional.pad(torch.cat([query, ones], dim=-1), (0, width - query.shape[-1] - len(columns)))
    riding = torch.stack(columns, dim=-1)[:, None].expand(-1, key.shape[1], -1, -1)
    key = functional.pad(torch.cat([key, riding], dim=-1), (0, width - key.shape[-1] - len(columns)))
    value = functional.pad(value, (0, width - value.shape[-1]))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)


def _written(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, seen: Tensor, scaling: float, softcap: float | None
) -> Tensor:
    """With the scores written out: for caps, which no fused kernel knows."""
    scores = query @ key.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = (scores + bias[:, None, None, :]).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1).to(value.dtype) @ value
