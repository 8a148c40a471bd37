"""Retriever, LM and objective as one module, in the pieces a step is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from revela_training.loop.distributed import full_tensor
from revela_training.objective import RevelaObjective
from revela_training.objective.weights import similarity_weights
from revela_training.plan import RunPlan
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.embedding import pool
from revela_training.retriever.vectors import VectorRetriever

__all__ = ["Reading", "RevelaModel", "first_half"]


#: What a role's embeddings are indexed by in a batch.
_INDEX = {"passages": "text_index", "queries": "text_index", "asked": "asked_index", "answers": "answer_index"}


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

    Loss = LM loss of the cross stream (+ base stream when dual) + contrastive_weight * contrastive loss over pairs.
    Training puts the pieces together, see `revela_training.loop.step.Step`, in as little memory as is asked for.

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
        retriever: TrainableRetriever | VectorRetriever,
        lm: PreTrainedModel | None,
        config: RunPlan,
        *,
        cached: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.objective = None
        if lm is not None:
            self.objective = RevelaObjective(
                lm, read=config.read, v_norm=config.v_norm, dual=config.dual, min_weight=config.min_weight
            )
        self.settings = config
        self.retriever_learns = False  # set by the trainer when the warm-up of the LM is over
        queries, passages, asked = cached or (None, None, None)
        self.register_buffer("query_cache", None if queries is passages else queries, persistent=False)
        self.register_buffer("asked_cache", None if asked is passages else asked, persistent=False)
        self.register_buffer("passage_cache", passages, persistent=False)

    @property
    def is_cached(self) -> bool:
        """Whether embeddings come from the caches, so that the backbone never runs."""
        return self.passage_cache is not None

    @property
    def distils(self) -> bool:
        """Whether the contrastive term needs embeddings of the unadapted model now."""
        return self.contrasts and bool(self.settings.self_distillation)

    @property
    def contrasts(self) -> bool:
        """Whether the contrastive term is part of the loss now."""
        return self.retriever_learns and self.settings.contrastive_weight > 0

    def roles(self, batch: Mapping[str, Any]) -> list[str]:
        """The embeddings that a step needs.

        For the LM (G, B, d) "passages" and, unless those ask for themselves, "queries"; for the contrastive term
        (M, d) "asked" and (K, d) "answers".
        """
        wanted = []
        if self.objective is not None:
            apart = self.query_cache is not None if self.is_cached else "queries" in batch
            wanted += ["passages", "queries"] if apart else ["passages"]
        return [*wanted, "asked", "answers"] if self.contrasts else wanted

    def embed_role(self, batch: Mapping[str, Any], role: str) -> Tensor:
        """Embeddings of one role, unit rows, shaped as `roles` says."""
        index = batch[_INDEX[role]]
        if index.numel() == 0:
            return torch.zeros(0, self.retriever.dimension, device=index.device)
        if self.passage_cache is None:
            return self.encode(batch[role]).view(*index.shape, -1)
        other = {"queries": self.query_cache, "asked": self.asked_cache}.get(role)
        return self.retriever.adapt_embeddings((self.passage_cache if other is None else other)[index])

    def encode(self, features: Mapping[str, Any]) -> Tensor:
        """Embed tokenised texts with the backbone, LoRA inside: unit rows (n, d), float32."""
        assert isinstance(self.retriever, TrainableRetriever)
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
        scale = settings.revela_weight
        if scale != 1.0:  # the LM's own loss stays whole, only what reaches the retriever is scaled
            weights = scale * weights + (1 - scale) * weights.detach()
        output = self.objective(input_ids, attention_mask, weights=weights)
        metrics = {"lm_loss": output.cross_loss}
        if output.baseline_loss is not None:
            metrics["baseline_loss"] = output.baseline_loss.detach()
        return Reading(output.loss, metrics, weights.detach().amax(-1).mean())

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters only, whole: a checkpoint needs neither the frozen backbone nor tied copies."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        kept: Mapping[str, Any] = super().state_dict(*args, **kwargs)
        return {name: full_tensor(value) for name, value in kept.items() if name in trained}
