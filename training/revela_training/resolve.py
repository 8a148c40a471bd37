"""From what a user said to settings without a gap: presets, files, and what suits the corpus and the machine."""

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
from revela_training.config import PRESETS, RAW_DECODER, AdaptConfig, load_config
from revela_training.objective.lm import BUNDLED

__all__ = ["resolve_configs"]

logger = logging.getLogger(__name__)

_CPU_TEXTS = 8_000
_EIGHTHS = tuple(eighth / 8 for eighth in range(1, 9))
_LARGEST_FOR_LORA = 1_500  # chunks: as many as `pseudo_queries` takes, so that each gives queries
#: What only an LM that reads the texts makes use of.
_OF_THE_OBJECTIVE = (
    *("read", "temperature", "standardize", "min_weight", "v_norm", "dual", "query_part", "neighbours"),
    *("max_tokens", "lm_training", "lm_warmup_steps", "lm_lr", "groups_at_once", "shard"),
)


def resolve_configs(
    chunks: Sequence[Chunk],
    *,
    preset: str,
    config: AdaptConfig | str | Path | None,
    changes: dict[str, Any],
    served: bool = False,
) -> list[AdaptConfig]:
    """Settings in force: defaults, then the preset, then the file or object, then what the call says.

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
        One for each adapter to try, none of them "auto", each after the first for when the gate refuses the one before.

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
    if isinstance(config, AdaptConfig):
        cfg = config.replace(**changes)
        defaults = AdaptConfig().as_dict()
        values = {**{name: v for name, v in config.as_dict().items() if v != defaults[name]}, **changes}
    else:
        values = {**(load_config(config) if config else {}), **changes}
        base, trusted = values.get("base"), bool(values.get("trust_remote_code"))
        found = fetch_model(resolve_model(base, trust_remote_code=trusted)) if base and not served else None
        raw = {**RAW_DECODER, "lm": base} if found and is_raw_decoder(found) else {}
        cfg = AdaptConfig().replace(**{**PRESETS[preset], **raw, **values})
    if cfg.revela_weight is None:
        cfg = cfg.replace(revela_weight=0.0 if cfg.lm is None and cfg.contrastive_weight else 1.0)
        if cfg.revela_weight == 0:
            _warn_of_idle([name for name, value in values.items() if value is not None])
    adapters: Sequence[Literal["auto", "linear", "lora"]] = [cfg.adapter]
    if cfg.adapter == "auto":
        prose = not code and preset != "code"
        inside = prose and len(chunks) <= _LARGEST_FOR_LORA and cfg.revela_weight == 0
        adapters = ["lora", "linear"] if inside else ["linear"]
    return [_filled(cfg.replace(adapter=adapter)) for adapter in adapters]


def _warn_of_idle(given: Collection[str]) -> None:
    """Name the settings somebody gave that change nothing because no LM reads."""
    if idle := [name for name in _OF_THE_OBJECTIVE if name in given]:
        logger.warning(
            'Without a language model there is no effect of %s: give lm="bundled" (--lm bundled) or another model.',
            ", ".join(idle),
        )


def _filled(cfg: AdaptConfig) -> AdaptConfig:
    """What was left open, by adapter, LM and machine."""
    gpu = torch.cuda.is_available()
    linear = cfg.adapter == "linear"
    slow = not linear and not gpu
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
    }
    cfg = cfg.replace(**{name: value for name, value in by_default.items() if getattr(cfg, name) is None})
    if cfg.revela_weight == 0 or cfg.lm_training == "frozen":
        cfg = cfg.replace(lm_warmup_steps=0)
    if cfg.max_steps is not None and cfg.max_steps <= cfg.lm_warmup_steps:
        cfg = cfg.replace(lm_warmup_steps=cfg.max_steps // 3)
    return cfg
