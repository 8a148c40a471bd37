"""Which text reads which: the pairs whose weight matters, and what leaving out the others can cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from revela_training.objective.weights import ObjectiveError

__all__ = ["Pairs", "select_pairs"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs (i, j) in which text i reads text j.

    Attributes:
        readers: (P,) int64, i, ascending, as rows of the whole batch of N texts.
        sources: (P,) int64, j.
        weights: (P,) fp32, W[i, j], with gradient where W has one.
        dropped_mass: () fp32, mean over rows of the weight that pruning left out.
        reader_starts: (N + 1,) int32, where the pairs of every reader begin, and the last end.
        by_source: (P,) int32, the pairs in ascending order of their source.
        source_starts: (N + 1,) int32, where the pairs of every source begin in ``by_source``, and the last end.
    """

    readers: Tensor
    sources: Tensor
    weights: Tensor
    dropped_mass: Tensor
    reader_starts: Tensor
    by_source: Tensor
    source_starts: Tensor


def select_pairs(weights: Tensor, min_weight: float = 0.0) -> Pairs:
    """The pairs whose weight matters.

    What leaving pairs out costs. Let m_i be the weight dropped in row i, at most (B - 1) * ``min_weight``, g the
    gradient that reaches the attention output, gamma_i the sum of its norms over text i's heads and tokens, and M
    the largest norm of what is read, b_ij: 1 with V-norm, because |sum a_t v_t| <= sum a_t |v_t|; without it the
    largest norm of a value, because b_ij is a mean of values. Then, in one layer,

    - output: per head and token off by at most m_i * M (the triangle inequality);
    - gradient of the cosines behind row i of W, the softmax's temperature tau included: off by at most
      2 * m_i * gamma_i * M / tau, summed over the row. With c_j = <g_i, b_ij>, |c_j| <= gamma_i * M, exact is
      W_ij (c_j - sum_k W_ik c_k) / tau, and pruning leaves out the c_j of dropped j: kept entries are off by
      W_ij m_i gamma_i M / tau at most, dropped ones by W_ij (1 + m_i) gamma_i M / tau, in sum
      ((1 - m_i) m_i + m_i (1 + m_i)) gamma_i M / tau;
    - gradient of a query: off by at most 2 * m_i * M * scaling * max|k| * |g|, twice that with V-norm, whose
      divisor has a gradient of its own. Those of keys and values are off by the dropped weights times theirs.

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
    readers, sources = group * size + reader, group * size + source
    by_source = sources.argsort(stable=True)
    bounds = torch.arange(groups * size + 1, device=weights.device)
    return Pairs(
        readers=readers,
        sources=sources,
        weights=weights[group, reader, source],
        dropped_mass=dropped,
        reader_starts=torch.searchsorted(readers, bounds, out_int32=True),
        by_source=by_source.int(),
        source_starts=torch.searchsorted(sources[by_source], bounds, out_int32=True),
    )
