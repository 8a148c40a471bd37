"""The two adapters a retriever trains through: a linear map on its embeddings, or LoRA in its layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revela_rag.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = [
    "LinearAdapter",
    "check_strength",
    "inject_lora",
    "lora_layers",
    "lora_state_dict",
    "merged",
    "merged_state_dict",
    "set_lora_strength",
]

ADAPTER_NAME = "default"

# The fused scan of these models reads the weight of ``out_proj`` directly and would skip a LoRA layer there.
_STATE_SPACE = {
    "mamba",
    "mamba2",
    "falcon_mamba",
    "falcon_h1",
    "nemotron_h",
    "bamba",
    "granitemoehybrid",
    "zamba2",
}


class LinearAdapter(nn.Module):
    """Residual linear map on sentence embeddings, ``z = x + s (A x + b)``, returned as unit vectors.

    ``A`` and ``b`` start at zero, so training starts from the base model. One map serves queries and
    documents. It computes in float32 whatever the autocast state, because the weights of in-batch attention
    are differences of cosines far smaller than what bfloat16 resolves.

    Args:
        dimension: length d of the embeddings.
        bias: whether the map has the shift ``b``.
    """

    def __init__(self, dimension: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dimension, dimension))
        self.bias = nn.Parameter(torch.zeros(dimension)) if bias else None
        self.strength = 1.0

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map unit rows (n, d) to adapted unit rows, float32; at strength 0 they come back untouched."""
        if self.strength == 0:
            return embeddings.float()
        with torch.autocast(embeddings.device.type, enabled=False):
            x = embeddings.float()
            return F.normalize(x + self.strength * F.linear(x, self.weight, self.bias), dim=-1)

    def dense(self, strength: float) -> tuple[Tensor, Tensor | None]:
        """Weight ``I + s A`` (d, d) and bias ``s b`` (d,) of the plain linear layer that does the same."""
        with torch.no_grad():
            identity = torch.eye(self.weight.shape[0], dtype=torch.float64)
            weight = (identity + strength * self.weight.double().cpu()).float()
            return weight, None if self.bias is None else (strength * self.bias.float()).cpu()


def inject_lora(model: nn.Module, *, rank: int, alpha: float, dropout: float) -> LoraConfig:
    """Put LoRA layers on the linear layers of a transformers model, in place; returns their configuration.

    Only they stay trainable. The pooler of BERT-type models is left out: sentence embeddings do not pass
    through it, so it would never get a gradient.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: the model has no linear layer LoRA can reach.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("peft", "training", "LoRA adapters") from error
    kind = getattr(model.config, "model_type", "")
    skipped = {"pooler", "out_proj"} if kind in _STATE_SPACE else {"pooler"}
    skipped &= {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides it; any number works
        lora_dropout=dropout,
        target_modules="all-linear",
        exclude_modules=rf"(.*\.)?({'|'.join(sorted(skipped))})(\..*)?" if skipped else None,
        task_type="FEATURE_EXTRACTION",
    )
    model.requires_grad_(False)
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME)
    except ValueError as error:
        raise ModelError(f"LoRA cannot be put on a {kind or type(model).__name__} model: {error}") from error
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return config


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of every LoRA layer in ``model``."""
    from peft.tuners.lora.layer import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def set_lora_strength(model: nn.Module, strength: float) -> None:
    """Scale every LoRA update by ``strength``: 0 is the base model, 1 the update as trained."""
    for _, layer in lora_layers(model):
        layer.set_scale(ADAPTER_NAME, strength)


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """State dict of the model with its LoRA updates, at their current strength, folded into the weights.

    The model itself is not changed, and an update of strength 0 leaves its weight bit for bit alone.
    """
    state = {
        name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if "lora_" not in name
    }
    with torch.no_grad():
        for name, layer in lora_layers(model):
            if layer.scaling[ADAPTER_NAME] != 0:
                weight = state[f"{name}.weight"]
                delta = layer.get_delta_weight(ADAPTER_NAME)
                state[f"{name}.weight"] = (weight.float() + delta.to(weight.device).float()).to(weight.dtype)
    return state


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Fold the LoRA updates, at their current strength, into the weights: no second path through every layer.

    Afterwards every weight is the one it was before, bit for bit.
    """
    layers = [layer for _, layer in lora_layers(model)]
    weights = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer in layers:
            layer.merge(safe_merge=True)  # into a copy of the weight
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            if layer.merged:
                layer.unmerge()
            layer.get_base_layer().weight.data = weight


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The LoRA matrices alone, under the names PEFT gives them in ``adapter_model.safetensors``."""
    return {
        f"base_model.model.{name.replace(f'.{ADAPTER_NAME}.', '.')}": value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if "lora_" in name
    }


def check_strength(strength: float) -> float:
    """``strength`` as a float, or ModelError when it is negative or not finite."""
    if not math.isfinite(strength) or strength < 0:
        raise ModelError(f"strength is {strength}; it must be a number from 0 (the base model) up, 1 as trained.")
    return float(strength)
