"""InfoNCE on pairs of a query and the text that answers it: what trains by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["ContrastiveLoss"]


class ContrastiveLoss(nn.Module):
    r"""Each query must find its answer among the answers of all queries and among the other queries.

    With unit vectors q_i of P queries, a_j of n >= P answers (a_i answers query i, those from P on are further
    negatives), s(x, y) = x . y / temperature, and N(i) all answers and other queries but those that answer i as well:

    .. math::
        L = -\frac{1}{P} \sum_i \sum_{x \in N(i)} t_i(x) \log \frac{e^{s(q_i, x)}}{\sum_{y \in N(i)} e^{s(q_i, y)}}

    The target t_i is 1 for a_i and 0 for all else. With self-distillation, the share lambda of it is the softmax of the
    similarities that the unadapted model gives the same texts, t_i = (1 - lambda) 1[x = a_i] + lambda softmax(s_0),
    so that the model keeps what the base knew.

    ======================================  ====================================================================
    What                                    Advice
    ======================================  ====================================================================
    Pairs that structure gives away         docstring and body, heading and text, words of a passage and it
    A frozen backbone with a linear map     many pairs and negatives (64, 256), no self-distillation
    LoRA, which encodes in every step       fewer (24, 16), self-distillation 0.5, few steps: more made people's
                                            queries fare worse
    Several processes                       gather first: the more answers, the harder the task
    ======================================  ====================================================================

    References:
        - van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018 (InfoNCE),
          https://arxiv.org/abs/1807.03748
        - Li et al.: Towards General Text Embeddings with Multi-stage Contrastive Learning, 2023, whose improved loss
          has the other queries as negatives, https://arxiv.org/abs/2308.03281; its term between answers cost quality
          here and is left out.
        - Furlanello et al.: Born-Again Neural Networks, 2018 (self-distillation), https://arxiv.org/abs/1805.04770

    Args:
        temperature: of the softmax over cosines.
        self_distillation: share of the target that is the unadapted model's, in [0, 1).

    Example:
        >>> import torch
        >>> loss = ContrastiveLoss(temperature=0.5)
        >>> queries, answers = torch.eye(2), torch.eye(2)
        >>> round(float(loss(queries, answers, torch.tensor([3, 8]))), 3)
        0.24
    """

    def __init__(self, temperature: float = 0.05, self_distillation: float = 0.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.self_distillation = self_distillation

    def forward(
        self, queries: Tensor, answers: Tensor, identity: Tensor, base: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The mean loss of the queries, () float32 whatever autocast says.

        Args:
            queries: (P, d) unit rows.
            answers: (n, d) unit rows, n >= P: row i answers query i, those from P on answer none.
            identity: (n,) which text each answer is. What is the same text as a query's answer is no negative of it,
                nor is another query with that answer.
            base: queries and answers as the unadapted model embeds them, for self-distillation.
        """
        with torch.autocast(queries.device.type, enabled=False):
            own = torch.arange(len(queries), device=queries.device)
            same = identity[: len(queries), None] == torch.cat([identity, identity[: len(queries)]])
            same[own, own] = False
            scores = self._scores(queries, answers, same)
            target = nn.functional.one_hot(own, scores.shape[1]).float()
            if base is not None and self.self_distillation:
                target = target.lerp(self._scores(*base, same).softmax(-1), self.self_distillation)
            return nn.functional.cross_entropy(scores, target)

    def over_kinds(self, asked: Tensor, answers: Tensor, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The mean over the kinds of queries in a batch, each contrasted with its own kind; None without any.

        Args:
            asked: (M, d) embeddings of the queries.
            answers: (K, d) embeddings of the answers.
            batch: which texts those are, ``asked_index`` (M,) and ``answer_index`` (K,); ``pair_index`` (P, 2),
                structural queries and their answers, where a query of -1 makes the answer a negative alone; and
                ``pseudo_index`` (Q, 3), kind, query and passage, likewise. With self-distillation also ``base_asked``
                (M, d) and ``base_answers`` (K, d), of the unadapted model.
        """
        losses = []
        for rows in _kinds(batch):
            marked = rows[:, 0] >= 0
            rows = torch.cat([rows[marked], rows[~marked]])
            if len(rows) > 1 and (count := int(marked.sum())):
                queries = _places(batch["asked_index"], rows[:count, 0])
                texts = _places(batch["answer_index"], rows[:, 1])
                base = (batch["base_asked"][queries], batch["base_answers"][texts]) if "base_asked" in batch else None
                losses.append(self(asked[queries], answers[texts], rows[:, 1], base))
        return torch.stack(losses).mean() if losses else None

    def _scores(self, queries: Tensor, answers: Tensor, left_out: Tensor) -> Tensor:
        """Logits (P, n + P) over answers and queries, no more than a least one where ``left_out``."""
        queries, answers = queries.float(), answers.float()
        scores = torch.cat([queries @ answers.T, queries @ queries.T], dim=1) / self.temperature
        return scores.masked_fill(left_out, torch.finfo(scores.dtype).min / 2)


def _kinds(batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """(P, 2) rows of query and answer, kind by kind."""
    pseudo = batch["pseudo_index"]
    yield batch["pair_index"]
    for kind in pseudo[:, 0].unique():
        yield pseudo[pseudo[:, 0] == kind, 1:]


def _places(index: Tensor, wanted: Tensor) -> Tensor:
    """Where ``wanted`` texts stand in ``index``; the first place where a text stands in several."""
    order = index.argsort(stable=True)
    return order[torch.searchsorted(index[order], wanted.contiguous())]
