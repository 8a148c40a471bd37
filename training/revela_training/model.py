"""Retriever, LM and objective as one module that the Trainer can drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from revela_training.backbone import TrainableRetriever
from revela_training.batching import Group
from revela_training.config import AdaptConfig
from revela_training.objective import RevelaObjective
from revela_training.weights import similarity_weights

__all__ = ["GroupCollator", "RevelaModel", "first_half"]


def first_half(text: str) -> str:
    """The first half of a text in words, at least one; the paper's query for prose."""
    words = text.split(" ")
    return " ".join(words[: max(1, len(words) // 2)])


class GroupCollator:
    """Stack G groups into the LM's input.

    Args:
        texts: all training texts.
        tokenizer: the LM's tokenizer, with a padding token.
        max_tokens: tokens kept of each text.
    """

    def __init__(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> None:
        self._texts = texts
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    def __call__(self, groups: Sequence[Group]) -> dict[str, Tensor]:
        """Batch of G groups: input_ids and attention_mask (G*B, L), text_index (G, B), pair_index (P, 2)."""
        text_index = torch.stack([torch.from_numpy(group.texts) for group in groups])
        encoded = self._tokenizer(
            [self._texts[i] for i in text_index.flatten().tolist()],
            truncation=True,
            max_length=self._max_tokens,
            padding=True,
            return_tensors="pt",
        )
        pair_index = torch.cat([torch.from_numpy(group.pairs) for group in groups]).unique(dim=0)
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "text_index": text_index,
            "pair_index": pair_index,
        }


class RevelaModel(nn.Module):
    """The objective over a retriever's similarities, plus the optional contrastive term.

    Loss = LM loss of the cross stream (+ base stream when dual) + contrastive_weight * InfoNCE over marked pairs.

    Args:
        retriever: the retriever that is adapted.
        lm: the causal LM that reads.
        texts: all training texts, addressed by index.
        config: settings.
        cached: pooled base embeddings of all texts as (queries, passages), each (N, d); needed by the linear adapter,
            which never runs the backbone again; None encodes texts in every step.
    """

    query_cache: Tensor | None
    passage_cache: Tensor | None

    def __init__(
        self,
        retriever: TrainableRetriever,
        lm: PreTrainedModel,
        texts: Sequence[str],
        config: AdaptConfig,
        *,
        cached: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.objective = RevelaObjective(lm, v_norm=config.v_norm, dual=config.dual, min_weight=config.min_weight)
        self.settings = config
        self.joint = False  # set by the trainer when the warm-up of the LM is over
        self._texts = texts
        self.register_buffer("query_cache", cached[0] if cached else None, persistent=False)
        self.register_buffer("passage_cache", cached[1] if cached else None, persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, text_index: Tensor, pair_index: Tensor
    ) -> dict[str, Any]:
        """One step.

        Args:
            input_ids: (G*B, L) tokens for the LM.
            attention_mask: (G*B, L).
            text_index: (G, B) which text each row is.
            pair_index: (P, 2) texts that structure marks as query and answer.

        Returns:
            ``loss`` (scalar) and ``metrics`` (name to float) for the log.
        """
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            queries, passages = self._embed(text_index)
            weights = similarity_weights(
                queries, passages, temperature=self.settings.temperature, standardize=self.settings.standardize
            )
        scale = self.settings.revela_weight
        if scale != 1.0:  # the LM's own loss stays whole, only what reaches the retriever is scaled
            weights = scale * weights + (1 - scale) * weights.detach() if scale else weights.detach()
        output = self.objective(input_ids, attention_mask, weights=weights)
        loss = output.loss
        metrics = {
            "lm_loss": output.cross_loss,
            "baseline_loss": output.baseline_loss,
            "max_weight": weights.detach().amax(-1).mean(),
        }
        if self.joint and self.settings.contrastive_weight and len(pair_index) > 1:
            contrastive = self._contrastive(queries, passages, text_index, pair_index)
            if contrastive is not None:
                loss = loss + self.settings.contrastive_weight * contrastive
                metrics["contrastive_loss"] = contrastive
        return {"loss": loss, "metrics": metrics}

    def _embed(self, text_index: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and passages (G, B, d), unit rows."""
        if self.query_cache is not None and self.passage_cache is not None:
            return (
                self.retriever.adapt_embeddings(self.query_cache[text_index]),
                self.retriever.adapt_embeddings(self.passage_cache[text_index]),
            )
        texts = [self._texts[i] for i in text_index.flatten().tolist()]
        asked = [first_half(text) for text in texts] if self.settings.query_part == "first_half" else texts
        shape = (*text_index.shape, -1)
        return self.retriever.encode(asked, "query").view(shape), self.retriever.encode(texts, "document").view(shape)

    def _contrastive(self, queries: Tensor, passages: Tensor, text_index: Tensor, pair_index: Tensor) -> Tensor | None:
        """InfoNCE of each marked query against all answers of the step: (P, d) x (P, d)."""
        if self.query_cache is not None and self.passage_cache is not None:
            asked = self.retriever.adapt_embeddings(self.query_cache[pair_index[:, 0]])
            answers = self.retriever.adapt_embeddings(self.passage_cache[pair_index[:, 1]])
        else:
            place = {text: row for row, text in enumerate(text_index.flatten().tolist())}
            rows = [(place[q], place[a]) for q, a in pair_index.tolist() if q in place and a in place]
            if len(rows) < 2:
                return None
            index = torch.tensor(rows, device=queries.device)
            asked, answers = queries.flatten(0, 1)[index[:, 0]], passages.flatten(0, 1)[index[:, 1]]
        scores = asked.float() @ answers.float().T / self.settings.contrastive_temperature
        target = torch.arange(len(scores), device=scores.device)
        return nn.functional.cross_entropy(scores, target)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters only: a checkpoint needs neither the frozen backbone nor tied copies."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        full: Mapping[str, Any] = super().state_dict(*args, **kwargs)
        return {name: value for name, value in full.items() if name in trained}
