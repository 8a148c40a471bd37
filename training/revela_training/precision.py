"""In which precision LM and backbone run."""

from __future__ import annotations

from typing import Any

import torch

from revela_training.config import AdaptConfig

__all__ = ["use_bf16"]


def use_bf16(config: AdaptConfig) -> bool:
    """Whether LM and backbone run under bfloat16 autocast."""
    if config.precision == "auto":
        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported()
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return config.adapter == "lora" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return config.precision == "bf16"
