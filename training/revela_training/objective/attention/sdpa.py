"""Attention over chosen pairs of texts through PyTorch's own fused attention, on any device.

Shapes: N = G * B texts, P pairs, H query heads, K key/value heads, L tokens, D head size of queries and keys,
E head size of values, F fused head size: D or E + 1, whichever is more, in multiples of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from revela_training.objective.attention.pairs import Pairs

__all__ = ["sdpa_cross_attention"]

_NORM_EPSILON = 1e-6
_MAX_ELEMENTS = 2**25  # most numbers in one gathered tensor


def sdpa_cross_attention(
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
    """What `cross_attention` gives, with its arguments, through `scaled_dot_product_attention`.

    The value norms ride along as one more value column, so a pair costs one fused attention call and no L x L scores
    exist. Only soft caps, which no fused kernel knows, have scores materialised, chunk by chunk.

    ``max_elements`` is the most numbers in one gathered tensor; more pairs than that go in chunks whose attention
    is recomputed in the backward.
    """
    n, heads, length, size = query.shape
    kv_heads, value_size = key.shape[1], value.shape[-1]
    # in full attention grouped heads may stand as one long query: no copy of the keys per query head
    query = query.reshape(n, kv_heads, heads // kv_heads * length, size)
    if v_norm:
        norms = value.to(_precise(value)).norm(dim=-1, keepdim=True)
        value = torch.cat([value, norms.to(value.dtype)], dim=-1)
    width = max(size, value.shape[-1])
    if size != value.shape[-1]:  # fused kernels want equal head sizes, in multiples of 8
        width = -(-width // 8) * 8
        query, key, value = (functional.pad(x, (0, width - x.shape[-1])) for x in (query, key, value))

    def attend(query: Tensor, key: Tensor, value: Tensor, readers: Tensor, sources: Tensor) -> Tensor:
        mask = None if key_mask is None else key_mask[sources][:, None, None, :]
        with _copies((query, readers), (key, sources), (value, sources)) as (query_rows, key_rows, value_rows):
            if softcap is not None:
                return _capped_attention(query_rows, key_rows, value_rows, mask, scaling, softcap)
            return functional.scaled_dot_product_attention(
                query_rows, key_rows, value_rows, attn_mask=mask, scale=scaling
            )

    cost = query.shape[1] * query.shape[2] * (width if softcap is None else max(width, length))
    step = max(1, max_elements // cost)
    recompute = step < len(pairs.readers) and torch.is_grad_enabled()
    total: Tensor | float = 0.0
    for start in range(0, len(pairs.readers), step):
        readers, sources = pairs.readers[start : start + step], pairs.sources[start : start + step]
        inputs = (query, key, value, readers, sources)
        if recompute:
            read = checkpoint(attend, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            read = attend(*inputs)
        total = total + _weighted_sum(read, pairs.weights[start : start + step], readers, n, value_size, v_norm)
    assert isinstance(total, Tensor)
    return total.reshape(n, heads, length, value_size).to(value.dtype)


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, softcap: float
) -> Tensor:
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scaling / softcap))
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=_precise(scores)).to(value.dtype) @ value


def _add_rows(total: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """``total[index[p]] += rows[p]`` for every p, in place."""
    if total.device.type != "cpu":
        return total.index_add_(0, index, rows.to(total.dtype))
    for row, addend in zip(index.tolist(), rows, strict=True):  # index_add_ goes number by number on the CPU
        total[row] += addend
    return total


def _gather(tensor: Tensor, index: Tensor) -> Tensor:
    rows: Tensor = _Gather.apply(tensor, index)
    return rows


@contextmanager
def _copies(*origins: tuple[Tensor, Tensor]) -> Iterator[list[Tensor]]:
    """Copies of rows; what is made of them within keeps for the backward what they are copies of, not the copies.

    Every text is read several times; kept until the backward, its copies would outweigh what the LM itself keeps.
    """
    rows = [_gather(tensor, index) for tensor, index in origins]
    known = {row.data_ptr(): (row.shape, x.detach(), index) for row, (x, index) in zip(rows, origins, strict=True)}

    def pack(saved: Tensor) -> tuple[Tensor, Tensor | None]:
        shape, tensor, index = known.get(saved.data_ptr(), (None, saved, None))
        return (tensor, index) if saved.shape == shape else (saved, None)

    def unpack(packed: tuple[Tensor, Tensor | None]) -> Tensor:
        tensor, index = packed
        return tensor if index is None else tensor.index_select(0, index)

    with saved_tensors_hooks(pack, unpack):
        yield rows


class _Gather(torch.autograd.Function):
    """``index_select`` of rows, with `_add_rows` as its backward."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = tensor.shape
        return tensor.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        total = grad.new_zeros(ctx.shape, dtype=_precise(grad))
        return _add_rows(total, index, grad).to(grad.dtype), None


def _weighted_sum(read: Tensor, weights: Tensor, readers: Tensor, n: int, value_size: int, v_norm: bool) -> Tensor:
    total: Tensor = _WeightedSum.apply(read, weights, readers, n, value_size, v_norm)
    return total


class _WeightedSum(torch.autograd.Function):
    """(P, K, T, F) attention outputs to (N, K, T, E): sum over a text's pairs of w * b, or of w * b / (norm + eps).

    By hand, because autograd would keep the products and pad each slice of the output anew in the backward.
    """

    @staticmethod
    def forward(
        ctx: Any, read: Tensor, weights: Tensor, readers: Tensor, n: int, value_size: int, v_norm: bool
    ) -> Tensor:
        ctx.save_for_backward(read, weights, readers)
        ctx.value_size, ctx.v_norm = value_size, v_norm
        factor = weights[:, None, None, None] * _inverse_norm(read, value_size, v_norm)
        total = factor.new_zeros(n, *read.shape[1:-1], value_size)
        return _add_rows(total, readers, read[..., :value_size] * factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        read, weights, readers = ctx.saved_tensors
        inverse = _inverse_norm(read, ctx.value_size, ctx.v_norm)
        rows = grad.index_select(0, readers)
        along = (rows * read[..., : ctx.value_size]).sum(-1, keepdim=True) * inverse
        factor = weights[:, None, None, None] * inverse
        read_grad = torch.zeros_like(read)
        read_grad[..., : ctx.value_size] = rows.mul_(factor)
        if ctx.v_norm:
            read_grad[..., ctx.value_size] = (along * -factor)[..., 0]
        return read_grad, along.sum((1, 2, 3)), None, None, None, None


def _inverse_norm(read: Tensor, value_size: int, v_norm: bool) -> Tensor:
    if not v_norm:
        return torch.ones((), dtype=_precise(read), device=read.device).expand(*read.shape[:-1], 1)
    return (read[..., value_size : value_size + 1].to(_precise(read)) + _NORM_EPSILON).reciprocal()


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
