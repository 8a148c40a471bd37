"""Checkpoints that are complete or not there at all, and hold whole tensors however the LM is split."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from revela_rag.errors import DiskError
from revela_training.distributed import World, copy_whole, full_tensor

__all__ = ["latest_checkpoint", "load_optimizer_state", "optimizer_state", "whole_checkpoint"]

logger = logging.getLogger(__name__)

_KEPT = 2


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint below ``folder``, or None."""
    found = [p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(found, key=_step, default=None)


@contextmanager
def whole_checkpoint(folder: Path, step: int, world: World) -> Iterator[Path]:
    """Give a folder to write ``checkpoint-{step}`` into; when the block ends it appears in ``folder`` at once.

    Older checkpoints but one go away. When writing fails, what was there before stays.

    Raises:
        DiskError: it cannot be written.
    """
    staging = folder / "unfinished"
    name = f"checkpoint-{step}"
    try:
        if world.leads:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        world.wait()
        yield staging
        world.wait()
        if world.leads:
            shutil.rmtree(folder / name, ignore_errors=True)
            (staging / name).replace(folder / name)
            for old in sorted(folder.glob("checkpoint-*"), key=_step)[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        world.wait()
    except (OSError, SafetensorError, RuntimeError) as error:
        if not isinstance(error, (OSError, SafetensorError)) and "writ" not in str(error):
            raise  # torch reports a full disk as a RuntimeError about writing
        shutil.rmtree(staging, ignore_errors=True)
        kept = latest_checkpoint(folder)
        raise DiskError(
            f"Writing the checkpoint of step {step} to {folder} failed: {error}. "
            + (f"Step {_step(kept)} is kept. " if kept else "")
            + "Free space and run again with --resume."
        ) from error


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The optimizer's state with whole tensors; all processes must ask together where it is split."""
    state = optimizer.state_dict()
    return {**state, "state": {i: _map(values, full_tensor) for i, values in state["state"].items()}}


def load_optimizer_state(optimizer: Any, state: dict[str, Any]) -> None:
    """Put back what `optimizer_state` gave, split as the parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def split(parameter: Tensor) -> Callable[[Tensor], Tensor]:
        def convert(value: Tensor) -> Tensor:
            if value.shape != parameter.shape:
                return value
            target = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            copy_whole(target, value)
            return target

        return convert

    values = {i: _map(entry, split(parameters[int(i)])) for i, entry in state["state"].items()}
    optimizer.load_state_dict({**state, "state": values})


def _map(values: dict[str, Any], convert: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: convert(value) if torch.is_tensor(value) else value for name, value in values.items()}


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
