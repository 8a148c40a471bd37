"""The dense form of the objective, as the method's published implementation computes it: the oracle, not the way.

Two passes of the LM. The first keeps the keys and values of every layer, the second reads them: every text every
other, with scores of B x B x H x L x L in every layer. Tests compare with it and benchmarks count from it; nobody
should train with it.

Shapes: G groups of B texts, N = G * B, H query heads, K key/value heads, L tokens, D and E head sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from revela_training.objective.interface import CausalLM, Layer, Layers

__all__ = ["read_twice", "reference_attention"]

_NORM_EPSILON = 1e-6


def reference_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Tensor,
    *,
    key_mask: Tensor | None,
    scaling: float,
    v_norm: bool,
    softcap: float | None = None,
) -> Tensor:
    """What `cross_attention` gives with all pairs, scores written out.

    Args:
        query: (N, H, L, D).
        key: (N, K, L, D).
        value: (N, K, L, E).
        weights: (G, B, B).
        key_mask: (N, L) bool, true for real tokens; None when all are.
        scaling: factor of the scores before the softmax.
        v_norm: divide by the attention's mean norm of the values read.
        softcap: cap of the scores.

    Returns:
        (N, H, L, E) in the dtype of ``value``.
    """
    groups, size, _ = weights.shape
    repeats = query.shape[1] // key.shape[1]
    query, key, value = (x.unflatten(0, (groups, size)) for x in (query, key, value))
    key, value = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    scores = torch.einsum("gihld,gjhmd->gijhlm", query, key) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if key_mask is not None:
        mask = key_mask.unflatten(0, (groups, size))[:, None, :, None, None, :]
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    attention = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    read = torch.einsum("gijhlm,gjhme->gijhle", attention, value)
    if v_norm:
        norms = torch.einsum("gijhlm,gjhm->gijhl", attention, value.norm(dim=-1))
        read = read / (norms[..., None] + _NORM_EPSILON)
    return torch.einsum("gij,gijhle->gihle", weights.to(read.dtype), read).flatten(0, 1)


def read_twice(
    lm: CausalLM,
    input_ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    weights: Tensor,
    *,
    key_mask: Tensor | None,
    v_norm: bool,
) -> tuple[Tensor | None, Tensor]:
    """Final hidden states of base and cross stream, (N, L, hidden) each, in two passes of the LM.

    Args:
        lm: the LM.
        input_ids: (N, L).
        mask: (N, L), 1 for real tokens.
        positions: (N, L).
        weights: (G, B, B).
        key_mask: (N, L) bool, true for real tokens; None when all are.
        v_norm: as for `reference_attention`.
    """
    base, layers = lm.recorded(input_ids, mask, positions)
    reader = _DenseReader(layers, weights, key_mask, v_norm)
    return base, lm.hidden_states(input_ids, mask, positions, reader)


@dataclass(frozen=True)
class _DenseReader:
    """Adds, in the second pass, what all the texts of a group read in the first."""

    layers: Layers
    weights: Tensor
    key_mask: Tensor | None
    v_norm: bool

    def attend(self, layer: Layer) -> Tensor:
        read = reference_attention(
            layer.query,
            *self.layers[layer.module],
            self.weights,
            key_mask=self.key_mask,
            scaling=layer.scaling,
            v_norm=self.v_norm,
            softcap=layer.softcap,
        )
        return layer.own() + read.transpose(1, 2)
