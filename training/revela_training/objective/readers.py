"""What the attention layers of an LM do while it reads its neighbours: the published way, or in one softmax.

Shapes: N = G * B texts, H query heads, K key/value heads, L tokens, D and E head sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revela_training.objective.attention import (
    Bucket,
    Implementation,
    Pairs,
    causal_mask,
    cross_attention,
    joint_attention,
)
from revela_training.objective.interface import Layer, Layers

__all__ = ["AddingReader", "HandOn", "JointReader"]


@dataclass(frozen=True, slots=True)
class AddingReader:
    """Adds, in every layer, what the cross stream reads in the base stream: the published way.

    Attributes:
        pairs: who reads whom.
        key_mask: (N, L) bool, true for real tokens; None when all are.
        v_norm: divide what is read by the attention's mean value norm.
        implementation: as for `revela_training.objective.attention.cross_attention`.
    """

    pairs: Pairs
    key_mask: Tensor | None
    v_norm: bool
    implementation: Implementation

    def attend(self, layer: Layer) -> Tensor:
        """The LM's own attention for both halves, and what the second reads in the first added to its part."""
        n = len(layer.query) // 2
        output = layer.own()
        return torch.cat([output[:n], output[n:] + self._read(layer, n)])

    @torch.compiler.disable  # its loops and kernels gain nothing; the LM around it is compiled as usual
    def _read(self, layer: Layer, n: int) -> Tensor:
        return cross_attention(
            layer.query[n:],
            layer.key[:n],
            layer.value[:n],
            self.pairs,
            key_mask=self.key_mask,
            scaling=layer.scaling,
            v_norm=self.v_norm,
            softcap=layer.softcap,
            implementation=self.implementation,
        ).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class JointReader:
    """Lets the cross stream attend once, over its own tokens and the base stream's of its neighbours.

    Attributes:
        buckets: who finds which tokens.
        log_weights: (P,) fp32, of the pairs.
        real: (N, L) bool, true for real tokens.
        layers: keys and values of the base stream by attention layer, where that ran before; None where it is the first
            half of the rows at hand.
    """

    buckets: list[Bucket]
    log_weights: Tensor
    real: Tensor
    layers: Layers | None
    _masks: dict[Any, Tensor] = field(default_factory=dict)

    def attend(self, layer: Layer) -> Tensor:
        """One softmax for the cross stream; the LM's own attention for the base stream, if that is here."""
        if self.layers is not None:
            return self._read(layer, *self.layers[layer.module])
        n = len(layer.query) // 2
        mask = layer.mask
        query, key, value = (x[n:] for x in (layer.query, layer.key, layer.value))
        rows = mask[n:] if mask is not None and len(mask) == 2 * n else mask
        cross = replace(layer, query=query, key=key, value=value, mask=rows)
        return torch.cat([layer.own()[:n], self._read(cross, layer.key[:n], layer.value[:n])])

    @torch.compiler.disable  # its gathering gains nothing; the LM around it is compiled as usual
    def _read(self, layer: Layer, base_key: Tensor, base_value: Tensor) -> Tensor:
        return joint_attention(
            layer.query,
            layer.key,
            layer.value,
            base_key,
            base_value,
            self.buckets,
            self.log_weights,
            own=self._own(layer.mask, layer.arguments.get("sliding_window")),
            scaling=layer.scaling,
            softcap=layer.softcap,
        ).transpose(1, 2)

    def _own(self, mask: Tensor | None, window: int | None) -> Tensor:
        """What a token sees of its own text: as the LM's mask says, or else all before it, within its window."""
        if mask is not None and mask.ndim == 4:
            return mask if mask.dtype == torch.bool else mask >= 0  # added to the scores: 0 or very small
        if window not in self._masks:
            self._masks[window] = causal_mask(self.real, window)
        return self._masks[window]


class HandOn(torch.autograd.Function):
    """Identity on the embeddings whose backward, the last to run, hands the leaf's gradient to the weights."""

    @staticmethod
    def forward(ctx: Any, leaf: list[Tensor], embeddings: Tensor, weights: Tensor) -> Tensor:
        """``embeddings`` as they are."""
        ctx.leaf = leaf
        return embeddings.view_as(embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor | None]:
        """The gradient as it is, and what the leaf collected for the weights."""
        (leaf,) = ctx.leaf
        collected, leaf.grad = leaf.grad, None
        return None, grad, collected
