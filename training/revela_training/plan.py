"""What a run does, decided to the last value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["RunPlan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """The settings of one run, all of them decided; made by `revela_training.resolve`.

    Fields are named and mean as in `revela_training.AdaptConfig`, but that nothing is left open. None is a decision
    itself: no LM, no limit, all texts, all activations kept.

    Attributes:
        lm: the LM that reads; None where the objective is left out.
        max_steps: at most so many steps; `revela_training.assemble.plan_steps` takes fewer, down to ``fewest_steps``,
            where the corpus has few pairs, and from then on it is the number of steps.
        fewest_steps: see ``max_steps``; the same number where steps were asked for.
    """

    base: str
    adapter: Literal["linear", "lora"]
    lm: str | None
    max_steps: int
    fewest_steps: int
    time_limit: float | None
    seed: int
    revela_weight: float
    read: Literal["joint", "published"]
    temperature: float
    standardize: bool
    v_norm: bool
    dual: bool
    query_part: Literal["first_half", "whole"]
    group_size: int
    neighbours: int
    batching: Literal["auto", "related", "interleave"]
    min_weight: float
    max_tokens: int
    lm_training: Literal["auto", "full", "lora", "frozen"]
    lm_warmup_steps: int
    lm_lr: float
    contrastive_weight: float
    contrastive_pairs: int
    contrastive_negatives: int
    contrastive_temperature: float
    self_distillation: float
    pseudo_queries: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    holdout: float
    max_eval_queries: int
    max_eval_documents: int
    strengths: tuple[float, ...]
    max_words: int
    max_training_texts: int | None
    retriever_max_tokens: int
    groups_per_step: int
    retriever_lr: float
    weight_decay: float
    precision: Literal["auto", "fp32", "bf16"]
    shard: bool
    groups_at_once: int
    retriever_chunk: int | None
    checkpoint_steps: int
    trackers: tuple[str, ...]
    trust_remote_code: bool

    def replace(self, **changes: Any) -> RunPlan:
        """A copy with ``changes``."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """The settings that give this plan again, by name, as plain values for JSON."""
        values = dataclasses.asdict(self)
        del values["fewest_steps"]
        return values
