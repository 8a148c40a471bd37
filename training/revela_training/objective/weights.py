"""Who may read whom: in-batch attention weights from query and passage embeddings.

Shapes: B texts in a group, G independent groups, d embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from revela_rag.errors import TrainingError

__all__ = [
    "ObjectiveError",
    "similarity",
    "similarity_weights",
    "weights_from_similarity",
]

_VARIANCE_FLOOR = 1e-12


class ObjectiveError(TrainingError, ValueError):
    """What was handed to the objective does not fit: a shape, a value or a setting."""


def similarity(queries: Tensor, passages: Tensor) -> Tensor:
    """Cosine of every query with every passage of its group, in fp32 whatever the inputs or autocast say.

    Args:
        queries: (B, d) or (G, B, d); rows need not be unit length.
        passages: the same shape; row i is the passage of the text whose query is row i.

    Returns:
        (B, B) or (G, B, B) fp32, entry [i, j] = cos(query_i, passage_j).

    Raises:
        ObjectiveError: the shapes differ or are not 2- or 3-dimensional, B < 2, or a value is not finite.
    """
    if queries.shape != passages.shape or queries.ndim not in (2, 3):
        raise ObjectiveError(
            f"queries and passages must share one shape, (B, d) or (G, B, d), got {tuple(queries.shape)} and "
            f"{tuple(passages.shape)}: encode one query and one passage per text"
        )
    if queries.shape[-2] < 2:
        raise ObjectiveError(f"a group of B = {queries.shape[-2]} text(s) has no neighbours: use B >= 2")
    for name, value in (("queries", queries), ("passages", passages)):
        if not bool(torch.isfinite(value).all()):
            raise ObjectiveError(
                f"{name} hold values that are not finite: the retriever has diverged; "
                "lower the learning rate or encode in fp32 or bf16 instead of fp16"
            )
    # autocast would round the cosines to bf16 steps of 0.004 and make ties of near neighbours
    with torch.autocast(queries.device.type, enabled=False):
        unit_queries = F.normalize(queries.float(), dim=-1)
        unit_passages = F.normalize(passages.float(), dim=-1)
        return unit_queries @ unit_passages.transpose(-1, -2)


def similarity_weights(queries: Tensor, passages: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    """In-batch attention weights W: row softmax of cosine / temperature, the diagonal removed.

    Revela, arXiv 2506.16552, section 3. Always fp32: in bf16 cosines come in steps of about 0.004, while at the
    published temperature of 1e-4 exact fp32 weights are one-hot and send no gradient to the retriever.

    Args:
        queries: (B, d) or (G, B, d), the embeddings that ask; any float dtype, rows of any length.
        passages: the same shape, the embeddings that answer.
        temperature: divides the cosines, > 0. About 0.02 for a model trained for retrieval; with ``standardize``
            it is in standard deviations of a row.
        standardize: subtract a row's mean and divide by its standard deviation (both over the off-diagonal
            entries) before the softmax, so that one temperature serves embeddings of any spread. Default off.

    Returns:
        (B, B) or (G, B, B) fp32; rows sum to 1, the diagonal is exactly 0.

    Raises:
        ObjectiveError: bad shapes, B < 2, a value that is not finite, or a temperature that is not above 0.
    """
    return weights_from_similarity(similarity(queries, passages), temperature=temperature, standardize=standardize)


def weights_from_similarity(scores: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    """The second half of `similarity_weights`, for cosines that are already at hand.

    Args:
        scores: (B, B) or (G, B, B) fp32, as `similarity` returns them.
        temperature: as for `similarity_weights`.
        standardize: as for `similarity_weights`.

    Returns:
        Weights of the same shape.

    Raises:
        ObjectiveError: a temperature that is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ObjectiveError(f"temperature must be a finite number above 0, got {temperature}: try 0.02")
    size = scores.shape[-1]
    diagonal = torch.eye(size, dtype=torch.bool, device=scores.device)
    if standardize:
        mean = scores.masked_fill(diagonal, 0.0).sum(-1, keepdim=True) / (size - 1)
        centred = (scores - mean).masked_fill(diagonal, 0.0)
        variance = centred.square().sum(-1, keepdim=True) / (size - 1)
        scores = centred * (variance + _VARIANCE_FLOOR).rsqrt()
    return (scores / temperature).masked_fill(diagonal, float("-inf")).softmax(-1)
