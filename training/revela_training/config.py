"""Everything that decides an adaptation, in one frozen object that is saved with the model it made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from revela_rag.errors import TrainingError
from revela_training.describe import unknown_name
from revela_training.settings import (
    ContrastiveSettings,
    GateSettings,
    LoraSettings,
    MachineSettings,
    ObjectiveSettings,
    Settings,
    Steps,
    TrainingSettings,
)

__all__ = ["GROUPS", "PRESETS", "RAW_DECODER", "AdaptConfig", "flat_settings", "load_config"]

#: The groups of settings by the name of the field that holds them.
GROUPS: Mapping[str, type[Settings]] = {
    "objective": ObjectiveSettings,
    "contrastive": ContrastiveSettings,
    "lora": LoraSettings,
    "gate": GateSettings,
    "training": TrainingSettings,
    "machine": MachineSettings,
}


class AdaptConfig(Settings):
    """Settings of one adaptation (defaults: what measured best for a supervised base on a CPU).

    No two settings of any group have the same name, so that each can also be given by it alone:
    ``AdaptConfig(lora_rank=8)`` is ``AdaptConfig(lora=LoraSettings(lora_rank=8))``. ``adapt``, settings files and saved
    configurations do so.

    Attributes:
        base: sentence-transformers or Hugging Face model to adapt, a directory or a name.
        adapter: ``"linear"`` trains one d x d map on cached embeddings (seconds), ``"lora"`` low-rank updates inside
            the backbone (minutes on a CPU). ``"auto"`` takes LoRA for up to 1,500 chunks of prose, such as tool
            catalogues, and the linear map for all else and where the gate refuses LoRA.
        lm: causal LM that reads the texts, "bundled" for the one in the package. None leaves the objective out, see
            ``revela_weight``; where that asks for it all the same, the bundled LM reads.
        max_steps: optimiser steps in all, warm-up included; None takes as many as show each contrastive pair five
            times, after the warm-up between 20 and 150, or 24 for LoRA: more made people's queries fare worse.
        time_limit: seconds for all of an adaptation; None for no limit. The speed of a few texts decides how many train
            and judge, and the steps are planned to fit into what is left.
        seed: seed of every random choice.
        objective: the Revela objective, which needs an LM.
        contrastive: the contrastive loss, which is what trains by default.
        lora: the low-rank updates.
        gate: what decides whether the model is better than its base.
        training: texts and optimiser.
        machine: precision, memory, checkpoints, trackers.

    Raises:
        TrainingError: a value that cannot be used, with what it may be.
    """

    base: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    adapter: Literal["auto", "linear", "lora"] = "auto"
    lm: str | None = None
    max_steps: Steps | None = None
    time_limit: Annotated[float, Field(gt=0, le=100_000_000)] | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    objective: ObjectiveSettings = ObjectiveSettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    lora: LoraSettings = LoraSettings()
    gate: GateSettings = GateSettings()
    training: TrainingSettings = TrainingSettings()
    machine: MachineSettings = MachineSettings()

    @model_validator(mode="wrap")
    @classmethod
    def _grouped(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Put names that stand alone into their groups."""
        if not isinstance(values, Mapping):
            return check(values)
        flat = flat_settings(values)
        inside = {name: group for name, group in _GROUP_OF.items() if name in flat}
        groups = {
            group: GROUPS[group](**{name: flat[name] for name, of in inside.items() if of == group})
            for group in dict.fromkeys(inside.values())
        }
        made = check({**{name: value for name, value in flat.items() if name not in inside}, **groups})
        if made.objective.revela_weight == 0 == made.contrastive.contrastive_weight:
            raise TrainingError(
                "contrastive_weight=0 cannot be used where revela_weight=0, or there is nothing to train: it must be "
                "above 0, or leave one of them out"
            )
        return made

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, by their names alone or in groups; unknown names raise TrainingError."""
        return type(self)(**{**self.as_dict(), **flat_settings(changes)})

    def as_dict(self) -> dict[str, Any]:
        """Every setting by its name alone, as plain values for JSON."""
        return {
            **{name: getattr(self, name) for name in type(self).model_fields if name not in GROUPS},
            **{name: getattr(getattr(self, group), name) for name, group in _GROUP_OF.items()},
        }


_GROUP_OF = {name: group for group, settings in GROUPS.items() for name in settings.model_fields}


def flat_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names alone, out of names and groups; lists become tuples.

    Args:
        values: settings; a group is a mapping or an object of its class.

    Raises:
        TrainingError: a name that no setting has.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Settings) and name in GROUPS:
            flat |= {field: getattr(value, field) for field in value.model_fields_set}
        elif isinstance(value, Mapping) and name in GROUPS:
            if unknown := value.keys() - GROUPS[name].model_fields:
                raise TrainingError(unknown_name(unknown, GROUPS[name].model_fields))
            flat |= value
        elif name in GROUPS:
            raise TrainingError(f"{name}={value!r} cannot be used: it must be a table, or a {GROUPS[name].__name__}")
        else:
            flat[name] = value
    known = (AdaptConfig.model_fields.keys() - GROUPS.keys()) | _GROUP_OF.keys()
    if unknown := flat.keys() - known:
        raise TrainingError(unknown_name(unknown, known))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}


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
    return flat_settings(values)
