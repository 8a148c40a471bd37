"""Which text reads which: the pairs whose weight matters, and what leaving out the others can cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from revela_training.weights import ObjectiveError

__all__ = ["Pairs", "select_pairs"]


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
        min_weight: pairs with W[i, j] <= this are left out, of the sum and of the gradient. At 0 nothing is: when
            ``weights`` carries a gradient even pairs of weight 0 are kept, the diagonal included, because their
            gradient is not 0.

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
