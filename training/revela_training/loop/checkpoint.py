"""Checkpoints that are complete or not there at all, and hold whole tensors however the LM is split."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from revela_rag.errors import DiskError, TrainingError
from revela_training.loop.distributed import World, copy_whole, full_tensor

__all__ = [
    "latest_checkpoint",
    "load_optimizer_state",
    "load_state",
    "optimizer_state",
    "random_state",
    "restore_random_state",
    "save_state",
    "whole_checkpoint",
]

logger = logging.getLogger(__name__)

_KEPT = 2
_STATE, _TENSOR = "state", "tensor"


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

    values = {int(i): _map(entry, split(parameters[int(i)])) for i, entry in state["state"].items()}
    optimizer.load_state_dict({**state, "state": values})


def save_state(state: Any, path: Path) -> None:
    """Write nested mappings and sequences of tensors, numbers and text as one safetensors file, its structure as JSON.

    Keys come back as text and tuples as lists.
    """
    tensors: dict[str, Tensor] = {}

    def take(tensor: Tensor) -> dict[str, str]:
        name = str(len(tensors))
        tensors[name] = tensor.detach().contiguous()
        return {_TENSOR: name}

    structure = json.dumps(state, default=take)
    save_file(tensors, path, metadata={_STATE: structure})


def load_state(path: Path) -> Any:
    """What `save_state` wrote, tensors on the CPU.

    Raises:
        TrainingError: there is no such file, or it holds no state.
    """
    try:
        with safe_open(path, framework="pt") as file:

            def give(found: dict[str, Any]) -> Any:
                return file.get_tensor(found[_TENSOR]) if found.keys() == {_TENSOR} else found

            return json.loads(file.metadata()[_STATE], object_hook=give)
    except (FileNotFoundError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{path} is missing or damaged, or another version wrote it ({type(error).__name__}: {error}). "
            "Run without --resume to start afresh."
        ) from error


def random_state() -> dict[str, Any]:
    """States of all random number generators of this process: Python's, NumPy's, torch's, and that of its GPU."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state: dict[str, Any] = {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}
    state["cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave, after `save_state` and `load_state` too."""
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers), spare))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _map(values: dict[str, Any], convert: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {name: convert(value) if torch.is_tensor(value) else value for name, value in values.items()}


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
