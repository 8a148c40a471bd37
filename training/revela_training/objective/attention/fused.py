"""Attention over chosen pairs of texts in one Triton kernel: nothing of a pair is kept but two numbers per query.

One program walks the texts that a block of queries reads, with an online softmax per text, and holds the weighted
sum in registers. The backward walks the pairs by reader for queries and weights, and by source for keys and values.

Shapes: N texts, P pairs, H query heads, K key/value heads, L tokens, D head size of queries and keys, E of values.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revela_training.objective.attention.launch import Launch
from revela_training.objective.attention.pairs import Pairs, select_pairs
from revela_training.objective.attention.reference import reference_attention

__all__ = ["fused_cross_attention", "why_not_fused"]

_LOGGER = logging.getLogger(__name__)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_LARGEST_HEAD = 256


def fused_cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pairs: Pairs,
    *,
    key_mask: Tensor | None,
    scaling: float,
    v_norm: bool,
) -> Tensor:
    """What `cross_attention` gives, by the Triton kernels. Ask `why_not_fused` first.

    Args:
        query: (N, H, L, D), fp32, bf16 or fp16.
        key: (N, K, L, D); H is a multiple of K.
        value: (N, K, L, E).
        pairs: who reads whom.
        key_mask: (N, L) bool, true for real tokens; None when all are.
        scaling: factor of the scores before the softmax.
        v_norm: divide by the attention's mean norm of the values read.

    Returns:
        (N, H, L, E) in the dtype of ``value``, sums made in fp32, the same bits for the same input.
    """
    query, key = (x.to(value.dtype) for x in (query, key))  # under autocast they may differ
    total: Tensor = _FusedAttention.apply(query, key, value, pairs.weights.float(), pairs, key_mask, scaling, v_norm)
    return total


def why_not_fused(query: Tensor, key: Tensor, value: Tensor, *, v_norm: bool, softcap: float | None) -> str | None:
    """Why the kernels cannot be used for these tensors; None when they can.

    The first time a kind of input is seen the kernels are compiled and tried on a few numbers. If that fails, the
    reason is logged once and given from then on.
    """
    if softcap is not None:
        return "the LM caps its attention scores"
    if value.dtype not in _DTYPES:
        return f"the LM computes in {value.dtype}"
    sizes = query.shape[-1], value.shape[-1]
    if max(sizes) > _LARGEST_HEAD:
        return f"the LM's heads have {max(sizes)} numbers, more than {_LARGEST_HEAD}"
    if find_spec("triton") is None:
        return "triton is not installed"
    from revela_training.objective.attention import kernels

    if query.device.type != "cuda" and not kernels.INTERPRETED:
        return f"the LM is on {query.device.type}"
    return _compiled(query.device, value.dtype, *sizes, v_norm, torch.get_float32_matmul_precision())


@cache
def _compiled(
    device: torch.device, dtype: torch.dtype, size: int, value_size: int, v_norm: bool, precision: str
) -> str | None:
    """Run the kernels on two texts, with and without a mask; what went wrong, or None."""
    try:
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            for masked in (True, False):
                _try(device, dtype, size, value_size, v_norm, masked)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may raise: the other way is always open
        reason = f"the kernels fail here ({type(error).__name__}: {error})".splitlines()[0]
        _LOGGER.warning("In-batch attention runs without its Triton kernels, several times slower: %s", reason)
        return reason
    return None


def _try(device: torch.device, dtype: torch.dtype, size: int, value_size: int, v_norm: bool, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 2, 18, size), (2, 1, 18, size), (2, 1, 18, value_size), (2, 2, 18, value_size)
    *inputs, grad = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    mask = (torch.arange(18, device=device) < torch.tensor([[17], [5]], device=device)) if masked else None
    weights = torch.tensor([[[0, 0.8], [0.6, 0]]], device=device)
    settings: dict[str, Any] = {"key_mask": mask, "scaling": size**-0.5, "v_norm": v_norm}

    def run(fused: bool) -> tuple[Tensor, ...]:
        q, k, v = ((x if fused else x.double()).detach().requires_grad_() for x in inputs)
        w = weights.clone().requires_grad_()
        if fused:
            out = fused_cross_attention(q, k, v, select_pairs(w), **settings)
        else:
            out = reference_attention(q, k, v, w, **settings)
        return out.detach(), *torch.autograd.grad(out, (q, k, v, w), grad.to(out.dtype))

    for name, found, wanted in zip(("output", "dq", "dk", "dv", "dw"), run(True), run(False), strict=True):
        error = float((found.double() - wanted).norm() / wanted.norm())
        if not error <= 0.05:
            raise ArithmeticError(f"{name} is off by {error:.2g} of its norm")


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        weights: Tensor,
        pairs: Pairs,
        key_mask: Tensor | None,
        scaling: float,
        v_norm: bool,
    ) -> Tensor:
        query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
        n, heads, length, _ = query.shape
        norms = value.float().norm(dim=-1) if v_norm else value.new_empty(1, dtype=torch.float32)
        mask, spans = _spans(key_mask, n, length, value.device)
        out = value.new_empty(n, length, heads, value.shape[-1]).transpose(1, 2)
        lse = torch.empty(len(pairs.readers), heads, length, dtype=torch.float32, device=value.device)
        mean_norms = torch.empty_like(lse) if v_norm else lse
        ctx.launch = launch = Launch(query, key, value, scaling, v_norm, key_mask is not None)
        launch(
            "output_kernel",
            (query, key, value, norms, mask, spans, pairs.reader_starts, pairs.sources, weights),
            (out, lse, mean_norms),
            (query, key, value, out),
            by_query=True,
            backward=False,
        )
        ctx.by_source = pairs.source_starts, pairs.by_source, pairs.readers
        ctx.by_reader = pairs.reader_starts, pairs.sources
        ctx.save_for_backward(query, key, value, weights, norms, mask, spans, lse, mean_norms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, norms, mask, spans, lse, mean_norms = ctx.saved_tensors
        grad = grad.to(value.dtype)
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        dq, dk, dv = (_like(x) for x in (query, key, value))
        along = torch.empty_like(lse)
        inputs = query, key, value, norms, mask, spans, *ctx.by_reader, weights
        ctx.launch(
            "query_grad_kernel",
            (*inputs, grad, lse, mean_norms),
            (dq, along),
            (query, key, value, grad, dq),
            by_query=True,
            backward=True,
        )
        if any(ctx.needs_input_grad[1:3]):
            inputs = query, key, value, norms, mask, *ctx.by_source, weights
            ctx.launch(
                "key_value_grad_kernel",
                (*inputs, grad, lse, mean_norms, along),
                (dk, dv),
                (query, key, value, grad, dk, dv),
                by_query=False,
                backward=True,
            )
        return dq, dk, dv, along.sum((1, 2)), None, None, None, None


def _spans(key_mask: Tensor | None, n: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(the mask as bytes, (N, 2) int32 first real token of every text and one past its last)."""
    if key_mask is None:
        spans = torch.tensor([0, length], dtype=torch.int32, device=device).repeat(n, 1)
        return spans, spans
    places = torch.arange(length, dtype=torch.int32, device=device)
    first = torch.where(key_mask, places, length).amin(-1)
    end = torch.where(key_mask, places + 1, 0).amax(-1)
    return key_mask.to(torch.uint8).contiguous(), torch.stack([first, end], dim=-1).int().contiguous()


def _like(tensor: Tensor) -> Tensor:
    """An empty tensor of that shape, laid out as the LM's projections leave theirs: (N, L, heads, size) in memory."""
    return torch.empty_like(tensor.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
