"""From what a user said to plans without a gap: presets, files, and what suits the corpus and the machine."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from revela_rag.corpus import Chunk
from revela_rag.errors import TrainingError
from revela_rag.model.find import fetch_model, resolve_model
from revela_rag.model.raw import is_raw_decoder
from revela_training.config import PRESETS, RAW_DECODER, AdaptConfig, flat_settings, load_config
from revela_training.objective.lm import BUNDLED
from revela_training.plan import RunPlan

__all__ = ["make_plan", "resolve_plans"]

logger = logging.getLogger(__name__)

_CPU_TEXTS = 8_000
_EIGHTHS = tuple(eighth / 8 for eighth in range(1, 9))
_JOINT_STEPS = {"linear": (20, 150), "lora": (20, 24)}
_STEPS_WITHOUT_CONTRAST = {"linear": 300, "lora": 150}
_LARGEST_FOR_LORA = 1_500  # chunks: as many as `pseudo_queries` takes, so that each gives queries
#: What only an LM that reads the texts makes use of.
_OF_THE_OBJECTIVE = (
    *("read", "temperature", "standardize", "min_weight", "v_norm", "dual", "query_part", "neighbours"),
    *("max_tokens", "lm_training", "lm_warmup_steps", "lm_lr", "groups_at_once", "shard"),
)


def resolve_plans(
    chunks: Sequence[Chunk],
    *,
    preset: str,
    config: AdaptConfig | str | Path | None,
    changes: dict[str, Any],
    served: bool = False,
) -> list[RunPlan]:
    """Plans of what to try: defaults, then the preset, then the file or object, then what the call says.

    With ``adapter="auto"`` small corpora of prose, tool catalogues above all, try LoRA first: its few steps show most
    of their pairs, and it gained more there than the linear map, for which those are too few. On larger ones and on
    code the map gained as much or more in less time (dev/log, quality). It also is what trains where an LM reads. A
    base that is a plain language model is trained inside, with the Revela objective, and reads for itself unless
    another does.

    Args:
        chunks: the corpus, for what is decided by what most of it is.
        preset: a name in `PRESETS`, or "auto".
        config: settings, which go without a preset, or a file of some.
        changes: settings by name.
        served: whether the base is embeddings behind an API, and its name none of a model.

    Returns:
        One for each adapter to try, each after the first for when the gate refuses the one before.

    Raises:
        TrainingError: an unknown preset or setting, or a preset beside settings that leave it nothing to say.
    """
    if isinstance(config, AdaptConfig) and preset != "auto":
        raise TrainingError(
            f"preset={preset!r} and config=AdaptConfig(...) exclude each other, because an AdaptConfig holds every "
            f"setting: leave the preset out, or give the settings by name, adapt(..., preset={preset!r}, seed=1)"
        )
    code = sum(chunk.kind == "code" for chunk in chunks) * 2 > len(chunks)
    if preset == "auto":
        preset = "code" if code else "prose"
    if preset not in PRESETS:
        raise TrainingError(f"Unknown preset {preset!r}. Presets are: auto, {', '.join(PRESETS)}")
    changes = flat_settings(changes)
    if isinstance(config, AdaptConfig):
        cfg = config.replace(**changes)
        defaults = AdaptConfig().as_dict()
        values = {**{name: v for name, v in config.as_dict().items() if v != defaults[name]}, **changes}
    else:
        values = {**(load_config(config) if config else {}), **changes}
        base, trusted = values.get("base"), bool(values.get("trust_remote_code"))
        found = fetch_model(resolve_model(base, trust_remote_code=trusted)) if base and not served else None
        raw = {**RAW_DECODER, "lm": base} if found and is_raw_decoder(found) else {}
        cfg = AdaptConfig(**{**PRESETS[preset], **raw, **values})
    weight = _revela_weight(cfg)
    if cfg.objective.revela_weight is None and weight == 0:
        _warn_of_idle([name for name, value in values.items() if value is not None])
    if cfg.adapter != "auto":
        return [make_plan(cfg, cfg.adapter)]
    prose = not code and preset != "code"
    inside = prose and len(chunks) <= _LARGEST_FOR_LORA and weight == 0
    return [make_plan(cfg, "lora"), make_plan(cfg, "linear")] if inside else [make_plan(cfg, "linear")]


def _warn_of_idle(given: Collection[str]) -> None:
    """Name the settings somebody gave that change nothing because no LM reads."""
    if idle := [name for name in _OF_THE_OBJECTIVE if name in given]:
        logger.warning(
            'Without a language model there is no effect of %s: give lm="bundled" (--lm bundled) or another model.',
            ", ".join(idle),
        )


def _revela_weight(cfg: AdaptConfig) -> float:
    given = cfg.objective.revela_weight
    if given is None:
        return 0.0 if cfg.lm is None and cfg.contrastive.contrastive_weight else 1.0
    return given


def make_plan(cfg: AdaptConfig, adapter: Literal["linear", "lora"]) -> RunPlan:
    """Fill in what was left open, by adapter, LM and machine.

    Args:
        cfg: settings, whose own adapter is not looked at.
        adapter: what trains.
    """
    gpu = torch.cuda.is_available()
    linear = adapter == "linear"
    slow = not linear and not gpu
    weight = _revela_weight(cfg)
    warmup, fewest, most = _steps(cfg, adapter, weight)
    by_default: dict[str, Any] = {
        "retriever_lr": 1e-3 if linear else 5e-4,
        "retriever_max_tokens": 96 if slow else 160,
        "strengths": _EIGHTHS if linear else (0.5, 1.0) if slow else _EIGHTHS[1::2],
        "max_eval_queries": 400 if slow else 1000,
        "max_eval_documents": 2000 if slow else 5000,
        "contrastive_pairs": 64 if linear else 24,
        "contrastive_negatives": 256 if linear else 16,
        "self_distillation": 0.0 if linear else 0.5,
        "lm_lr": 5e-4 if cfg.lm in (None, BUNDLED) else 1e-4,
        "max_tokens": 160 if gpu else 64,
        "max_training_texts": None if gpu else _CPU_TEXTS,
        "checkpoint_steps": 25 if linear else 5,
        "groups_at_once": cfg.training.groups_per_step,
        "retriever_chunk": None,
        "time_limit": None,
    }
    decided = {
        "adapter": adapter,
        "revela_weight": weight,
        "lm": (cfg.lm or BUNDLED) if weight else None,
        "lm_warmup_steps": warmup,
        "fewest_steps": fewest,
        "max_steps": most,
    }
    given = {name: value for name, value in cfg.as_dict().items() if value is not None}
    return RunPlan(**{**by_default, **given, **decided})


def _steps(cfg: AdaptConfig, adapter: Literal["linear", "lora"], weight: float) -> tuple[int, int, int]:
    """Steps of warm-up, and the fewest and the most in all."""
    warmup = cfg.objective.lm_warmup_steps
    if weight == 0 or cfg.objective.lm_training == "frozen":
        warmup = 0
    if cfg.max_steps is not None:
        return min(warmup, cfg.max_steps // 3) if cfg.max_steps <= warmup else warmup, cfg.max_steps, cfg.max_steps
    joint = _STEPS_WITHOUT_CONTRAST[adapter]
    fewest, most = _JOINT_STEPS[adapter] if cfg.contrastive.contrastive_weight else (joint, joint)
    return warmup, warmup + fewest, warmup + most
