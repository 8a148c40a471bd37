"""Groups of settings, each value with its bounds. None stands for what suits corpus, adapter and machine."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from revela_rag.errors import TrainingError
from revela_training.describe import wrong_value

__all__ = [
    "ContrastiveSettings",
    "GateSettings",
    "LoraSettings",
    "MachineSettings",
    "ObjectiveSettings",
    "Settings",
    "TrainingSettings",
]

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Tokens = Annotated[int, Field(ge=8, le=131_072)]
Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Temperature = Annotated[float, Field(gt=0, le=100)]
Strength = Annotated[float, Field(gt=0, le=10)]


class Settings(BaseModel):
    """Values that are checked when they are given, and cannot be changed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(values)
        except ValidationError as error:
            raise TrainingError(wrong_value(cls, error)) from None


class ObjectiveSettings(Settings):
    """The Revela objective: act only where a language model reads, but for ``group_size`` and ``batching``.

    Attributes:
        revela_weight: scale of the gradient that reaches the retriever through the in-batch weights; 0 leaves the LM
            out, so that only the contrastive term trains, the control that any claim for the objective must beat.
            None takes 1 where ``lm`` names a model or ``contrastive_weight`` is 0, else 0: the bundled LM adds nothing
            to the contrastive term and takes most of the time (docs/results.md).
        read: how the LM reads its neighbours, ``"joint"`` or ``"published"``, see `revela_training.RevelaObjective`.
        temperature: softmax temperature of the in-batch weights. In standard deviations of a row of similarities
            when ``standardize`` is set, in units of cosine otherwise.
        standardize: standardise each row of similarities before the softmax, so that one temperature serves
            backbones with spread and with bunched cosines.
        v_norm: in published reading, normalise what is read from a neighbour by the attended value norms. Paper: on for
            prose, off for code.
        dual: add the loss of the stream without neighbours, which keeps an LM that trains a language model.
        query_part: what of a text the retriever encodes as query, ``"first_half"`` or ``"whole"``.
        group_size: texts that can read each other, B.
        neighbours: units in each group that are BM25 neighbours of its seed; the rest is drawn at random.
        batching: ``"related"`` fills a group with neighbours and random units, ``"interleave"`` cuts groups out of
            d11, d21, ..., dn1, d12, ... (paper), ``"auto"`` interleaves where documents are long.
        min_weight: pairs with a smaller in-batch weight are not computed; 0 computes all.
        max_tokens: tokens of each text that the LM reads (paper: 160); None takes 64 on a CPU, where the LM is
            nearly all of a step, else 160.
        lm_training: train the LM's own weights (``"full"``), low-rank updates (``"lora"``) or not at all
            (``"frozen"``); ``"auto"`` leaves an LM frozen that reads jointly, which it can as it stands, and else takes
            full below 100 million parameters.
        lm_warmup_steps: steps in which the LM learns to read neighbours while the retriever stands still; an LM that is
            frozen needs none.
        lm_lr: peak learning rate of the LM; None takes 5e-4 for the bundled one and 1e-4 (paper) for any other.
    """

    revela_weight: Weight | None = None
    read: Literal["joint", "published"] = "joint"
    temperature: Temperature = 0.3
    standardize: bool = True
    v_norm: bool = True
    dual: bool = False
    query_part: Literal["first_half", "whole"] = "whole"
    group_size: int = Field(default=16, ge=2, le=4096)
    neighbours: int = Field(default=6, ge=0, le=4095)
    batching: Literal["auto", "related", "interleave"] = "auto"
    min_weight: float = Field(default=0.03, ge=0, lt=1)
    max_tokens: Tokens | None = None
    lm_training: Literal["auto", "full", "lora", "frozen"] = "auto"
    lm_warmup_steps: int = Field(default=0, ge=0, le=10_000_000)
    lm_lr: Rate | None = None


class ContrastiveSettings(Settings):
    """The contrastive loss on pairs that structure gives away, see `revela_training.losses.ContrastiveLoss`.

    Attributes:
        contrastive_weight: weight of the term; 0 is the pure objective.
        contrastive_pairs: pairs of each kind per group; None takes 64 for the linear adapter and 24 for LoRA, which
            encodes them in every step.
        contrastive_negatives: further answers of each kind, drawn for each group, that its queries must be told apart
            from; None takes 256 for the linear adapter and 16 for LoRA.
        contrastive_temperature: temperature of the softmax over cosines.
        self_distillation: share of the target that is not the one answer but what the unadapted model holds for likely
            among the same texts, so that LoRA keeps what the base knew; None takes 0.5 for LoRA and 0 for the linear
            adapter.
        pseudo_queries: passages to make keyword and span queries from, two further kinds of pairs beside the structural
            ones; 0 for none.
    """

    contrastive_weight: Weight = 1.0
    contrastive_pairs: int | None = Field(default=None, ge=0, le=100_000)
    contrastive_negatives: int | None = Field(default=None, ge=0, le=1_000_000)
    contrastive_temperature: Temperature = 0.05
    self_distillation: float | None = Field(default=None, ge=0, lt=1)
    pseudo_queries: int = Field(default=1500, ge=0, le=10_000_000)


class LoraSettings(Settings):
    """Low-rank updates, of the retriever and, with ``lm_training="lora"``, of the LM.

    Attributes:
        lora_rank: rank r (paper: 256).
        lora_alpha: scale numerator, the scale is alpha / r (paper: 64).
        lora_dropout: dropout probability (paper: 0.1).
    """

    lora_rank: int = Field(default=64, ge=1, le=65_536)
    lora_alpha: int = Field(default=64, ge=1, le=65_536)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)


class GateSettings(Settings):
    """What decides whether the adapted model is better than its base.

    Attributes:
        holdout: share of structural pairs whose query part is kept from training, half to choose and half to report.
        max_eval_queries: at most so many queries in each of the two halves; None takes 1,000, and 400 for LoRA on a
            CPU.
        max_eval_documents: at most so many documents are searched in the evaluation, relevant ones included; None takes
            5,000, and 2,000 for LoRA on a CPU, which embeds them once for each strength.
        strengths: strengths of the adapter to choose from; 0 (the base) is always among the choices. None takes the
            eighths up to 1, the quarters for LoRA, and 0.5 and 1 for LoRA on a CPU.
    """

    holdout: float = Field(default=0.3, gt=0, lt=1)
    max_eval_queries: Count | None = None
    max_eval_documents: Count | None = None
    strengths: tuple[Strength, ...] | None = Field(default=None, min_length=1)


class TrainingSettings(Settings):
    """Texts and the retriever's optimiser.

    Attributes:
        max_words: words of a prose chunk.
        max_training_texts: at most so many texts are used, drawn at random; None picks 8,000 on a CPU, else all.
        retriever_max_tokens: tokens of each text that the retriever encodes in training; None takes 96 for LoRA on a
            CPU, else 160 (paper).
        groups_per_step: independent groups in one step, G, of each process where there are several.
        retriever_lr: peak learning rate of the adapter; None takes 1e-3 for linear and 5e-4 for LoRA (paper: 1e-4, at a
            scale of 1/4).
        weight_decay: decoupled weight decay of the adapter.
    """

    max_words: int = Field(default=120, ge=10, le=100_000)
    max_training_texts: Count | None = None
    retriever_max_tokens: Tokens | None = None
    groups_per_step: int = Field(default=2, ge=1, le=4096)
    retriever_lr: Rate | None = None
    weight_decay: float = Field(default=0.01, ge=0, le=10)


class MachineSettings(Settings):
    """How the work is done, which changes no result but for rounding.

    Attributes:
        precision: ``"bf16"`` runs LM and backbone under autocast, ``"fp32"`` does not, ``"auto"`` takes bf16 on GPUs
            and CPUs that have it. Weights, similarities and losses are float32 in any case.
        shard: split LM, gradients and optimizer state between the processes (FSDP2) instead of repeating them.
        groups_at_once: groups the LM reads at once, with the gradients of the whole step; None takes all, and fewer
            after running out of memory.
        retriever_chunk: texts the LoRA retriever encodes at once, encoding them again for the gradient (GradCache);
            None keeps all activations until memory runs out.
        checkpoint_steps: save a checkpoint every so many steps; None takes 25, and 5 for LoRA, whose steps are slow.
        trackers: experiment trackers of ``transformers.Trainer`` (``report_to``).
        trust_remote_code: run code that comes with a model; off unless you turn it on.
    """

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    shard: bool = False
    groups_at_once: int | None = Field(default=None, ge=1, le=4096)
    retriever_chunk: int | None = Field(default=None, ge=1, le=1_000_000)
    checkpoint_steps: Steps | None = None
    trackers: tuple[str, ...] = ()
    trust_remote_code: bool = False
