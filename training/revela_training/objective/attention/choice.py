"""Attention between texts, by whichever implementation serves the tensors at hand."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from revela_training.objective.attention.fused import fused_cross_attention, why_not_fused
from revela_training.objective.attention.pairs import Pairs
from revela_training.objective.attention.sdpa import sdpa_cross_attention
from revela_training.objective.weights import ObjectiveError

__all__ = ["Implementation", "cross_attention"]

Implementation = Literal["auto", "triton", "sdpa"]


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
    implementation: Implementation = "auto",
) -> Tensor:
    """What every text reads in the others: sum_j W[i, j] b_ij, b_ij the full attention of i over j.

    With ``v_norm`` b_ij is divided, per head and token, by (attention_ij @ ||V_j||) + 1e-6. No L x L scores
    exist outside a kernel, but for LMs with soft caps.

    Args:
        query: (N, H, L, D), of the reading stream, after rotary embedding.
        key: (N, K, L, D), of the stream that is read, after rotary embedding; H is a multiple of K.
        value: (N, K, L, E).
        pairs: who reads whom.
        key_mask: (N, L) bool, true for real tokens; None when all are.
        scaling: factor of the scores before the softmax.
        v_norm: divide by the mean norm of the values read.
        softcap: cap of the scores, softcap * tanh(scores / softcap), as Gemma 2 has it.
        implementation: "auto" takes the Triton kernels on CUDA where they can be used and else PyTorch's own fused
            attention; "triton" and "sdpa" insist on one.

    Returns:
        (N, H, L, E) in the dtype of ``value``; sums are made in fp32.

    Raises:
        ObjectiveError: the Triton kernels were insisted on and cannot be used.
    """
    if implementation == "triton" or (implementation == "auto" and query.device.type == "cuda"):
        reason = why_not_fused(query, key, value, v_norm=v_norm, softcap=softcap)
        if reason is None:
            return fused_cross_attention(query, key, value, pairs, key_mask=key_mask, scaling=scaling, v_norm=v_norm)
        if implementation == "triton":
            raise ObjectiveError(f'the Triton kernels of in-batch attention cannot be used: {reason}. Use "auto"')
    return sdpa_cross_attention(
        query, key, value, pairs, key_mask=key_mask, scaling=scaling, v_norm=v_norm, softcap=softcap
    )
