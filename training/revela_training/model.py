"""Retriever, LM and objective as one module, in the pieces a step is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from revela_training.backbone import TrainableRetriever
from revela_training.config import AdaptConfig
from revela_training.distributed import full_tensor
from revela_training.embedding import pool
from revela_training.objective import RevelaObjective
from revela_training.weights import similarity_weights

__all__ = ["Reading", "RevelaModel", "first_half"]


def first_half(text: str) -> str:
    """The first half of a text in words, at least one; the paper's query for prose."""
    words = text.split(" ")
    return " ".join(words[: max(1, len(words) // 2)])


@dataclass(frozen=True, slots=True)
class Reading:
    """What the LM makes of some groups.

    Attributes:
        loss: () fp32, mean over tokens, with graph.
        metrics: further means over tokens, without graph, by the names they are logged under.
        max_weight: () mean over the texts of their largest in-batch weight.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    max_weight: Tensor


class RevelaModel(nn.Module):
    """The objective over a retriever's similarities, plus the optional contrastive term.

    Loss = LM loss of the cross stream (+ base stream when dual) + contrastive_weight * InfoNCE over marked pairs.
    `forward` is all of it in one graph. Training takes the pieces, see `revela_training.step.Step`, which gives the
    same gradients in as little memory as is asked for.

    Args:
        retriever: the retriever that is adapted.
        lm: the causal LM that reads; None leaves the objective out, so that only the contrastive term trains.
        config: settings.
        cached: pooled base embeddings of all texts, each (N, d), one tensor again where they are the same: what asks
            in the in-batch weights, the passages, and whole texts as queries for the contrastive term. The linear
            adapter needs them and never runs the backbone again; None encodes texts in every step.
    """

    query_cache: Tensor | None
    passage_cache: Tensor | None
    asked_cache: Tensor | None

    def __init__(
        self,
        retriever: TrainableRetriever,
        lm: PreTrainedModel | None,
        config: AdaptConfig,
        *,
        cached: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.objective = None
        if lm is not None:
            self.objective = RevelaObjective(lm, v_norm=config.v_norm, dual=config.dual, min_weight=config.min_weight)
        self.settings = config
        self.joint = False  # set by the trainer when the warm-up of the LM is over
        queries, passages, asked = cached or (None, None, None)
        self.register_buffer("query_cache", None if queries is passages else queries, persistent=False)
        self.register_buffer("asked_cache", None if asked is passages else asked, persistent=False)
        self.register_buffer("passage_cache", passages, persistent=False)

    @property
    def is_cached(self) -> bool:
        """Whether embeddings come from the caches, so that the backbone never runs."""
        return self.passage_cache is not None

    def forward(self, **batch: Any) -> dict[str, Any]:
        """One step in one graph.

        Args:
            **batch: what `GroupCollator` makes.

        Returns:
            ``loss`` (scalar) and ``metrics`` (name to scalar) for the log.
        """
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            queries, passages = self.embed(batch)
        loss, metrics = torch.zeros((), device=queries.device), {}
        if self.objective is not None:
            reading = self.read(batch["input_ids"], batch["attention_mask"], queries, passages)
            loss, metrics = reading.loss, {**reading.metrics, "max_weight": reading.max_weight}
        if self.contrasts:
            pairs = batch["pair_index"]
            contrastive = (
                self.contrast_cached(pairs, batch["pseudo_index"])
                if self.is_cached
                else self.contrast(queries.flatten(0, 1), passages.flatten(0, 1), batch["text_index"].flatten(), pairs)
            )
            if contrastive is not None:
                loss = loss + self.settings.contrastive_weight * contrastive
                metrics["contrastive_loss"] = contrastive.detach()
        return {"loss": loss, "metrics": metrics}

    @property
    def contrasts(self) -> bool:
        """Whether the contrastive term is part of the loss now."""
        return self.joint and self.settings.contrastive_weight > 0

    def embed(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Queries and passages of a batch, (G, B, d) each, unit rows."""
        index = batch["text_index"]
        if self.passage_cache is not None:
            passages = self.retriever.adapt_embeddings(self.passage_cache[index])
            if self.query_cache is None:
                return passages, passages
            return self.retriever.adapt_embeddings(self.query_cache[index]), passages
        passages = self.encode(batch["passages"]).view(*index.shape, -1)
        return self.encode(batch["queries"]).view(*index.shape, -1) if "queries" in batch else passages, passages

    def encode(self, features: Mapping[str, Any]) -> Tensor:
        """Embed tokenised texts with the backbone, LoRA inside: unit rows (n, d), float32."""
        return pool(self.retriever.model, dict(features))

    def read(self, input_ids: Tensor, attention_mask: Tensor, queries: Tensor, passages: Tensor) -> Reading:
        """Let the LM read groups whose texts see each other as much as the similarities say.

        Args:
            input_ids: (G*B, L), group after group.
            attention_mask: (G*B, L).
            queries: (G, B, d).
            passages: (G, B, d).
        """
        if self.objective is None:
            raise ValueError("This model has no LM to read with; give RevelaModel one.")
        settings = self.settings
        weights = similarity_weights(
            queries, passages, temperature=settings.temperature, standardize=settings.standardize
        )
        scale = 1.0 if settings.revela_weight is None else settings.revela_weight
        if scale != 1.0:  # the LM's own loss stays whole, only what reaches the retriever is scaled
            weights = scale * weights + (1 - scale) * weights.detach()
        output = self.objective(input_ids, attention_mask, weights=weights)
        metrics = {"lm_loss": output.cross_loss}
        if output.baseline_loss is not None:
            metrics["baseline_loss"] = output.baseline_loss.detach()
        return Reading(output.loss, metrics, weights.detach().amax(-1).mean())

    def contrast_cached(self, pair_index: Tensor, pseudo_index: Tensor) -> Tensor | None:
        """InfoNCE of each query against the answers of all of its kind, from the caches; the mean over kinds.

        Args:
            pair_index: (P, 2) structural queries and their answers; a query of -1 makes the answer a negative alone.
            pseudo_index: (Q, 3) kind, query and passage, likewise.
        """
        if self.passage_cache is None:
            return None
        asked = self.passage_cache if self.asked_cache is None else self.asked_cache
        kinds = [pair_index, *(pseudo_index[pseudo_index[:, 0] == kind, 1:] for kind in pseudo_index[:, 0].unique())]
        losses = []
        for rows in kinds:
            marked = rows[:, 0] >= 0
            rows = torch.cat([rows[marked], rows[~marked]])
            if len(rows) > 1 and (count := int(marked.sum())):
                queries = self.retriever.adapt_embeddings(asked[rows[:count, 0]])
                answers = self.retriever.adapt_embeddings(self.passage_cache[rows[:, 1]])
                losses.append(self._info_nce(queries, answers, rows[:, 1]))
        return torch.stack(losses).mean() if losses else None

    def contrast(self, queries: Tensor, passages: Tensor, texts: Tensor, pair_index: Tensor) -> Tensor | None:
        """InfoNCE of those marked pairs (P, 2) whose texts (n,) are among the embeddings (n, d)."""
        place = {text: row for row, text in enumerate(texts.tolist())}
        rows = [(place[q], place[a]) for q, a in pair_index.tolist() if q in place and a in place]
        if len(rows) < 2:
            return None
        index = torch.tensor(rows, device=queries.device)
        return self._info_nce(queries[index[:, 0]], passages[index[:, 1]], index[:, 1])

    def _info_nce(self, asked: Tensor, answers: Tensor, identity: Tensor) -> Tensor:
        """Query i of P must find answer i of n >= P among all answers and the other queries.

        Other queries as negatives: the improved contrastive loss of GTE (Li et al., 2023, arXiv 2308.03281), without
        its term between answers, which cost quality here. What has the same answer is no negative.
        """
        with torch.autocast(asked.device.type, enabled=False):
            asked, answers = asked.float(), answers.float()
            scores = torch.cat([asked @ answers.T, asked @ asked.T], dim=1) / self.settings.contrastive_temperature
            own = torch.arange(len(asked), device=scores.device)
            same = identity[: len(asked), None] == torch.cat([identity, identity[: len(asked)]])
            same[own, own] = False
            return nn.functional.cross_entropy(scores.masked_fill(same, float("-inf")), own)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters only, whole: a checkpoint needs neither the frozen backbone nor tied copies."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        kept: Mapping[str, Any] = super().state_dict(*args, **kwargs)
        return {name: full_tensor(value) for name, value in kept.items() if name in trained}
