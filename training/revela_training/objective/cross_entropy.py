"""Next-token cross-entropy that never holds (tokens x vocabulary) logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["chunked_cross_entropy"]

_CHUNK_ELEMENTS = {"cpu": 2**21}  # more logits than the caches hold gain nothing
_CHUNK_ELEMENTS_ELSEWHERE = 2**27  # each chunk adds to the gradient of the head: few, large ones


def chunked_cross_entropy(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    *,
    vocabulary: int,
) -> Tensor:
    """Mean cross-entropy of ``head(hidden)`` against ``targets``, some hundred tokens at a time.

    Gradients are made chunk by chunk in the forward, while the chunk's logits are at hand, so nothing is recomputed
    and only the gradients of ``hidden`` and of the head live until the backward.

    Args:
        hidden: (M, d) final hidden states.
        targets: (M,) int64 token ids.
        head: maps (m, d) to logits (m, vocabulary).
        parameters: what ``head`` is made of; those that require gradients receive them.
        vocabulary: size of the vocabulary, to choose the chunk.

    Returns:
        () fp32.
    """
    elements = _CHUNK_ELEMENTS.get(hidden.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
    rows = max(256, elements // vocabulary)
    total: Tensor = _ChunkedCrossEntropy.apply(head, targets, rows, hidden, *parameters)
    return total / len(targets)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        head: Callable[[Tensor], Tensor],
        targets: Tensor,
        rows: int,
        hidden: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        needs_hidden, *needs_parameters = ctx.needs_input_grad[3:]
        learned = [p for p, needed in zip(parameters, needs_parameters, strict=True) if needed]
        # fp32 sums: a bf16 sum over many chunks would lose the small terms
        learned_grads = [torch.zeros_like(p, dtype=torch.float32) for p in learned]
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part, target, start in zip(
            hidden.split(rows), targets.split(rows), range(0, len(hidden), rows), strict=True
        ):
            with torch.set_grad_enabled(needs_hidden or bool(learned)):
                part = part.detach().requires_grad_(needs_hidden)
                loss = F.cross_entropy(head(part).float(), target, reduction="sum")
            total += loss.detach()
            if not (needs_hidden or learned):
                continue
            wanted = [part, *learned] if needs_hidden else learned
            grads = list(torch.autograd.grad(loss, wanted, allow_unused=True))
            if hidden_grad is not None:
                hidden_grad[start : start + len(part)] = grads.pop(0)
            for accumulated, grad in zip(learned_grads, grads, strict=True):
                if grad is not None:
                    accumulated += grad
        ctx.needs_parameters = needs_parameters
        ctx.dtypes = [p.dtype for p in learned]
        ctx.hidden_grad, ctx.learned_grads = hidden_grad, learned_grads
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad = None if ctx.hidden_grad is None else (ctx.hidden_grad * grad).to(ctx.hidden_grad.dtype)
        learned = ((g * grad).to(d) for g, d in zip(ctx.learned_grads, ctx.dtypes, strict=True))
        return (
            None,
            None,
            None,
            hidden_grad,
            *(next(learned) if needed else None for needed in ctx.needs_parameters),
        )
