"""Retriever, LM and objective as one module, in the pieces a step is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from revela_training.config import AdaptConfig
from revela_training.loop.distributed import full_tensor
from revela_training.objective import RevelaObjective
from revela_training.objective.weights import similarity_weights
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

    Loss = LM loss of the cross stream (+ base stream when dual) + contrastive_weight * InfoNCE over marked pairs.
    `forward` is all of it in one graph. Training takes the pieces, see `revela_training.loop.step.Step`, which gives
    the same gradients in as little memory as is asked for.

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
        config: AdaptConfig,
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

    def forward(self, **batch: Any) -> dict[str, Any]:
        """One step in one graph.

        Args:
            **batch: what `GroupCollator` makes.

        Returns:
            ``loss`` (scalar) and ``metrics`` (name to scalar) for the log.
        """
        with torch.set_grad_enabled(self.retriever_learns and torch.is_grad_enabled()):
            made = self.embed(batch)
        loss, metrics = torch.zeros((), device=batch["text_index"].device), {}
        if self.objective is not None:
            reading = self.read(batch["input_ids"], batch["attention_mask"], made["queries"], made["passages"])
            loss, metrics = reading.loss, {**reading.metrics, "max_weight": reading.max_weight}
        if self.contrasts:
            contrastive = self.contrast(made["asked"], made["answers"], {**batch, **self.embed_unadapted(batch)})
            if contrastive is not None:
                loss = loss + self.settings.contrastive_weight * contrastive
                metrics["contrastive_loss"] = contrastive.detach()
        return {"loss": loss, "metrics": metrics}

    def embed_unadapted(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What `contrast` needs of the base: nothing without self-distillation."""
        if not self.distils:
            return {}
        with self.retriever.unadapted():
            return {f"base_{role}": self.embed_role(batch, role) for role in ("asked", "answers")}

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

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embeddings of a batch by role."""
        made = {role: self.embed_role(batch, role) for role in self.roles(batch)}
        return {"queries": made["passages"], **made} if "passages" in made else made

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
        scale = 1.0 if settings.revela_weight is None else settings.revela_weight
        if scale != 1.0:  # the LM's own loss stays whole, only what reaches the retriever is scaled
            weights = scale * weights + (1 - scale) * weights.detach()
        output = self.objective(input_ids, attention_mask, weights=weights)
        metrics = {"lm_loss": output.cross_loss}
        if output.baseline_loss is not None:
            metrics["baseline_loss"] = output.baseline_loss.detach()
        return Reading(output.loss, metrics, weights.detach().amax(-1).mean())

    def contrast(self, asked: Tensor, answers: Tensor, batch: Mapping[str, Tensor]) -> Tensor | None:
        """InfoNCE of each query against the answers of all of its kind; the mean over kinds.

        Args:
            asked: (M, d) embeddings of the queries.
            answers: (K, d) embeddings of the answers.
            batch: which texts those are, ``asked_index`` (M,) and ``answer_index`` (K,); ``pair_index`` (P, 2),
                structural queries and their answers, where a query of -1 makes the answer a negative alone; and
                ``pseudo_index`` (Q, 3), kind, query and passage, likewise. With self-distillation also ``base_asked``
                (M, d) and ``base_answers`` (K, d), of the unadapted model.
        """
        pseudo = batch["pseudo_index"]
        kinds = [batch["pair_index"], *(pseudo[pseudo[:, 0] == kind, 1:] for kind in pseudo[:, 0].unique())]
        losses = []
        for rows in kinds:
            marked = rows[:, 0] >= 0
            rows = torch.cat([rows[marked], rows[~marked]])
            if len(rows) > 1 and (count := int(marked.sum())):
                queries, texts = (
                    _places(batch["asked_index"], rows[:count, 0]),
                    _places(batch["answer_index"], rows[:, 1]),
                )
                base = (batch["base_asked"][queries], batch["base_answers"][texts]) if "base_asked" in batch else None
                losses.append(self._info_nce(asked[queries], answers[texts], rows[:, 1], base))
        return torch.stack(losses).mean() if losses else None

    def _info_nce(
        self, asked: Tensor, answers: Tensor, identity: Tensor, base: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Query i of P must find answer i of n >= P among all answers and the other queries.

        Other queries as negatives: the improved contrastive loss of GTE (Li et al., 2023, arXiv 2308.03281), without
        its term between answers, which cost quality here. What has the same answer is no negative. With ``base``, the
        same texts embedded by the unadapted model, a share of the target is the softmax of its similarities.
        """
        with torch.autocast(asked.device.type, enabled=False):
            own = torch.arange(len(asked), device=asked.device)
            same = identity[: len(asked), None] == torch.cat([identity, identity[: len(asked)]])
            same[own, own] = False
            scores = self._scores(asked, answers, same)
            target = nn.functional.one_hot(own, scores.shape[1]).float()
            if base is not None and self.settings.self_distillation:
                target = target.lerp(self._scores(*base, same).softmax(-1), self.settings.self_distillation)
            return nn.functional.cross_entropy(scores, target)

    def _scores(self, asked: Tensor, answers: Tensor, left_out: Tensor) -> Tensor:
        """Logits (P, n + P) of queries over answers and queries, no more than a least one where ``left_out``."""
        asked, answers = asked.float(), answers.float()
        scores = torch.cat([asked @ answers.T, asked @ asked.T], dim=1) / self.settings.contrastive_temperature
        return scores.masked_fill(left_out, torch.finfo(scores.dtype).min / 2)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters only, whole: a checkpoint needs neither the frozen backbone nor tied copies."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        kept: Mapping[str, Any] = super().state_dict(*args, **kwargs)
        return {name: full_tensor(value) for name, value in kept.items() if name in trained}


def _places(index: Tensor, wanted: Tensor) -> Tensor:
    """Where ``wanted`` texts stand in ``index``; the first place where a text stands in several."""
    order = index.argsort(stable=True)
    return order[torch.searchsorted(index[order], wanted.contiguous())]
