"""Everything that decides an adaptation, in one frozen object that is saved with the model it made."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from revela_rag.errors import TrainingError

__all__ = ["PRESETS", "RAW_DECODER", "AdaptConfig", "load_config"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptConfig:
    """Settings of one adaptation (defaults: what measured best for a supervised base on a CPU).

    Attributes:
        base: sentence-transformers or Hugging Face model to adapt, a directory or a name.
        lm: causal LM that reads the texts, "bundled" for the one in the package. None leaves the objective out, see
            ``revela_weight``; where that asks for it all the same, the bundled LM reads.
        read: how it reads its neighbours, ``"joint"`` or ``"published"``, see `revela_training.RevelaObjective`.
        adapter: ``"linear"`` trains one d x d map on cached embeddings (seconds), ``"lora"`` low-rank updates inside
            the backbone (minutes on a CPU). ``"auto"`` takes LoRA for up to 1,500 chunks of prose, such as tool
            catalogues, and the linear map for all else and where the gate refuses LoRA.
        lora_rank: rank r of LoRA on the retriever and, when ``lm_training="lora"``, on the LM (paper: 256).
        lora_alpha: LoRA scale numerator, the scale is alpha / r (paper: 64).
        lora_dropout: LoRA dropout probability (paper: 0.1).
        lm_training: train the LM's own weights (``"full"``), low-rank updates (``"lora"``) or not at all
            (``"frozen"``); ``"auto"`` leaves an LM frozen that reads jointly, which it can as it stands, and else takes
            full below 100 million parameters.
        temperature: softmax temperature of the in-batch weights. In standard deviations of a row of similarities
            when ``standardize`` is set, in units of cosine otherwise.
        standardize: standardise each row of similarities before the softmax, so that one temperature serves
            backbones with spread and with bunched cosines.
        v_norm: in published reading, normalise what is read from a neighbour by the attended value norms. Paper: on for
            prose, off for code.
        dual: add the loss of the stream without neighbours, which keeps an LM that trains a language model.
        query_part: what of a text the retriever encodes as query, ``"first_half"`` or ``"whole"``.
        group_size: texts that can read each other, B.
        groups_per_step: independent groups in one step, G, of each process where there are several.
        groups_at_once: groups the LM reads at once, with the gradients of the whole step; None takes all, and fewer
            after running out of memory.
        retriever_chunk: texts the LoRA retriever encodes at once, encoding them again for the gradient (GradCache);
            None keeps all activations until memory runs out.
        precision: ``"bf16"`` runs LM and backbone under autocast, ``"fp32"`` does not, ``"auto"`` takes bf16 on GPUs
            and CPUs that have it. Weights, similarities and losses are float32 in any case.
        shard: split LM, gradients and optimizer state between the processes (FSDP2) instead of repeating them.
        neighbours: units in each group that are BM25 neighbours of its seed; the rest is drawn at random.
        batching: ``"related"`` fills a group with neighbours and random units, ``"interleave"`` cuts groups out of
            d11, d21, ..., dn1, d12, ... (paper), ``"auto"`` interleaves where documents are long.
        min_weight: pairs with a smaller in-batch weight are not computed; 0 computes all.
        max_tokens: tokens of each text that the LM reads (paper: 160); None takes 64 on a CPU, where the LM is
            nearly all of a step, else 160.
        retriever_max_tokens: tokens of each text that the retriever encodes in training; None takes 96 for LoRA on a
            CPU, else 160 (paper).
        max_words: words of a prose chunk.
        lm_warmup_steps: steps in which the LM learns to read neighbours while the retriever stands still; an LM that is
            frozen needs none.
        max_steps: optimiser steps in all, warm-up included; None takes as many as show each contrastive pair five
            times, after the warm-up between 20 and 150, or 24 for LoRA: more made people's queries fare worse.
        time_limit: seconds for all of an adaptation; None for no limit. The speed of a few texts decides how many train
            and judge, and the steps are planned to fit into what is left.
        retriever_lr: peak learning rate of the adapter; None takes 1e-3 for linear and 5e-4 for LoRA (paper: 1e-4, at a
            scale of 1/4).
        lm_lr: peak learning rate of the LM; None takes 5e-4 for the bundled one and 1e-4 (paper) for any other.
        weight_decay: decoupled weight decay of the adapter.
        revela_weight: scale of the gradient that reaches the retriever through the in-batch weights; 0 leaves the LM
            out, so that only the contrastive term trains, the control that any claim for the objective must beat.
            None takes 1 where ``lm`` names a model or ``contrastive_weight`` is 0, else 0: the bundled LM adds nothing
            to the contrastive term and takes most of the time (docs/results.md).
        contrastive_weight: weight of an InfoNCE term on pairs that structure gives away; 0 is the pure objective.
        contrastive_pairs: pairs of each kind in the InfoNCE term per group; None takes 64 for the linear adapter and 24
            for LoRA, which encodes them in every step.
        contrastive_negatives: further answers of each kind, drawn for each group, that its queries must be told apart
            from; None takes 256 for the linear adapter and 16 for LoRA.
        pseudo_queries: passages to make keyword and span queries from, two further kinds of pairs beside the structural
            ones; 0 for none.
        contrastive_temperature: temperature of that term.
        self_distillation: share of that term's target that is not the one answer but what the unadapted model holds for
            likely among the same texts, so that LoRA keeps what the base knew; None takes 0.5 for LoRA and 0 for the
            linear adapter.
        holdout: share of structural pairs whose query part is kept from training, half to choose and half to report.
        max_eval_queries: at most so many queries in each of the two halves; None takes 1,000, and 400 for LoRA on a
            CPU.
        max_eval_documents: at most so many documents are searched in the evaluation, relevant ones included; None takes
            5,000, and 2,000 for LoRA on a CPU, which embeds them once for each strength.
        max_training_texts: at most so many texts are used, drawn at random; None picks 8,000 on a CPU, else all.
        strengths: strengths of the adapter to choose from; 0 (the base) is always among the choices. None takes the
            eighths up to 1, the quarters for LoRA, and 0.5 and 1 for LoRA on a CPU.
        checkpoint_steps: save a checkpoint every so many steps; None takes 25, and 5 for LoRA, whose steps are slow.
        seed: seed of every random choice.
        trackers: experiment trackers of ``transformers.Trainer`` (``report_to``).
        trust_remote_code: run code that comes with a model; off unless you turn it on.
    """

    base: str = "all-MiniLM-L6-v2"
    lm: str | None = None
    read: Literal["joint", "published"] = "joint"
    adapter: Literal["auto", "linear", "lora"] = "auto"
    lora_rank: int = 64
    lora_alpha: int = 64
    lora_dropout: float = 0.0
    lm_training: Literal["auto", "full", "lora", "frozen"] = "auto"
    temperature: float = 0.3
    standardize: bool = True
    v_norm: bool = True
    dual: bool = False
    query_part: Literal["first_half", "whole"] = "whole"
    group_size: int = 16
    groups_per_step: int = 2
    groups_at_once: int | None = None
    retriever_chunk: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    shard: bool = False
    neighbours: int = 6
    batching: Literal["auto", "related", "interleave"] = "auto"
    min_weight: float = 0.03
    max_tokens: int | None = None
    retriever_max_tokens: int | None = None
    max_words: int = 120
    lm_warmup_steps: int = 0
    max_steps: int | None = None
    time_limit: float | None = None
    retriever_lr: float | None = None
    lm_lr: float | None = None
    weight_decay: float = 0.01
    revela_weight: float | None = None
    contrastive_weight: float = 1.0
    contrastive_pairs: int | None = None
    contrastive_negatives: int | None = None
    pseudo_queries: int = 1500
    contrastive_temperature: float = 0.05
    self_distillation: float | None = None
    holdout: float = 0.3
    max_eval_queries: int | None = None
    max_eval_documents: int | None = None
    max_training_texts: int | None = None
    strengths: tuple[float, ...] | None = None
    checkpoint_steps: int | None = None
    seed: int = 0
    trackers: tuple[str, ...] = ()
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name))
        _check(self.temperature > 0, "temperature", self.temperature, "a positive number such as 0.3")
        _check(self.group_size >= 2, "group_size", self.group_size, "at least 2 texts, 16 is the paper's")
        _check(self.groups_per_step >= 1, "groups_per_step", self.groups_per_step, "1 or more")
        _check(
            self.groups_at_once is None or self.groups_at_once >= 1, "groups_at_once", self.groups_at_once, "1 or more"
        )
        _check(
            self.retriever_chunk is None or self.retriever_chunk >= 1,
            "retriever_chunk",
            self.retriever_chunk,
            "1 or more",
        )
        _check(0 <= self.min_weight < 1, "min_weight", self.min_weight, "a number in [0, 1)")
        for name in ("max_tokens", "retriever_max_tokens"):
            value = getattr(self, name)
            _check(value is None or value >= 8, name, value, "8 or more")
        _check(self.max_words >= 10, "max_words", self.max_words, "10 or more, 120 is the paper's")
        _check(self.max_steps is None or self.max_steps >= 1, "max_steps", self.max_steps, "1 or more")
        _check(self.lm_warmup_steps >= 0, "lm_warmup_steps", self.lm_warmup_steps, "0 or more")
        limit = self.time_limit
        _check(limit is None or (limit > 0 and math.isfinite(limit)), "time_limit", limit, "seconds above 0")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        _check(self.contrastive_temperature > 0, "contrastive_temperature", self.contrastive_temperature, "above 0")
        for name in ("max_eval_queries", "max_eval_documents", "max_training_texts", "checkpoint_steps"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, value, "1 or more")
        _check(0 < self.holdout < 1, "holdout", self.holdout, "a share between 0 and 1")
        _check(self.neighbours >= 0, "neighbours", self.neighbours, "0 or more")
        _check(self.lora_rank >= 1, "lora_rank", self.lora_rank, "1 or more")
        _check(self.revela_weight is None or self.revela_weight >= 0, "revela_weight", self.revela_weight, "0 or more")
        _check(
            self.revela_weight != 0 or self.contrastive_weight > 0,
            "contrastive_weight",
            self.contrastive_weight,
            "above 0 where revela_weight is 0, or there is nothing to train",
        )
        _check(self.pseudo_queries >= 0, "pseudo_queries", self.pseudo_queries, "0 or more")
        for name in ("contrastive_pairs", "contrastive_negatives"):
            _check((getattr(self, name) or 0) >= 0, name, getattr(self, name), "0 or more")
        share = self.self_distillation
        _check(share is None or 0 <= share < 1, "self_distillation", share, "a share in [0, 1)")
        _check(self.contrastive_weight >= 0, "contrastive_weight", self.contrastive_weight, "0 or more")
        _check(
            self.strengths is None or (bool(self.strengths) and all(s > 0 for s in self.strengths)),
            "strengths",
            self.strengths,
            "positive numbers",
        )

    def replace(self, **changes: Any) -> AdaptConfig:
        """A copy with ``changes``; unknown names raise TrainingError."""
        return dataclasses.replace(self, **_known(changes))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)


#: Named settings. "prose" and "code" differ as the paper's do; "published" keeps the paper's temperature.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "prose": {"v_norm": True, "query_part": "first_half"},
    "code": {"v_norm": False, "query_part": "whole"},
    "published": {
        "read": "published",
        "temperature": 1e-4,
        "standardize": False,
        "adapter": "lora",
        "lora_rank": 256,
        "lora_dropout": 0.1,
        "retriever_max_tokens": 160,
        "lm_training": "lora",
        "dual": False,
        "lm_warmup_steps": 0,
        "neighbours": 0,
        "batching": "interleave",
        "min_weight": 0.0,
        "contrastive_weight": 0.0,
        "query_part": "first_half",
        "groups_per_step": 1,
        "retriever_lr": 1e-4,
        "lm_lr": 1e-4,
        "strengths": (1.0,),
    },
}

#: What suits a base that is a plain language model, which knows nothing of retrieval: there is nothing to keep.
RAW_DECODER: Mapping[str, Any] = {
    "adapter": "lora",
    "lora_rank": 32,
    "lora_alpha": 32,
    "retriever_lr": 4e-4,
    "query_part": "first_half",
    "groups_per_step": 1,
    "self_distillation": 0.0,
    "strengths": (1.0,),
    "max_eval_queries": 200,
    "max_eval_documents": 1000,
}


def load_config(path: str | Path) -> dict[str, Any]:
    """Read settings from a TOML or JSON file.

    Raises:
        TrainingError: the file cannot be read or names a setting that does not exist.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise TrainingError(f"Cannot read the configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"The configuration {path} must hold names and values, not {type(values).__name__}")
    return _known(values)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(AdaptConfig)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise TrainingError(f"Unknown setting {', '.join(unknown)}. Settings are: {', '.join(sorted(names))}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@functools.cache
def _types() -> dict[str, Any]:
    return get_type_hints(AdaptConfig)


def _check_type(name: str, value: object) -> None:
    """A string "false" from a settings file would count as true."""
    hint = _types()[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return
    kind = kinds[0]
    if get_origin(kind) is Literal:
        _check(value in get_args(kind), name, value, f"one of {', '.join(get_args(kind))}")
    elif get_origin(kind) is tuple:
        _check(isinstance(value, tuple), name, value, "a list")
        part_kind = get_args(kind)[0]
        for part in value if isinstance(value, tuple) else ():
            _check(_is(part, part_kind), name, value, f"a list of {_TYPE_NAMES[part_kind]}")
    else:
        wanted = " or ".join(_TYPE_NAMES[kind] for kind in kinds)
        _check(any(_is(value, kind) for kind in kinds), name, value, wanted)


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "left out"}


def _is(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _check(valid: bool, name: str, value: object, remedy: str) -> None:
    if not valid:
        raise TrainingError(f"{name}={value!r} cannot be used: it must be {remedy}")
