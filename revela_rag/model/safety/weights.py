"""Weights: safetensors that the library would really choose, of a size that can be."""

from __future__ import annotations

import json
from pathlib import Path

from revela_rag.errors import ModelError
from revela_rag.model.safety.files import json_object

__all__ = ["WEIGHT_FILES", "check_weights", "weight_bytes"]

WEIGHT_FILES = _WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_NEVER_LOADED = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")
_MOST_HEADER, _MOST_TENSORS = 16 * 2**20, 100_000


def check_weights(folder: Path, names: list[str], *, needed: bool, sharded: bool, any_name: bool = False) -> None:
    """Refuse a module whose weights would be unpickled, or are not what their headers can describe.

    sentence-transformers takes ``model.safetensors`` or else ``pytorch_model.bin``: safetensors of another name
    beside a pickle do not help.

    Args:
        folder: of the module.
        names: the files in it.
        needed: whether the module cannot be without weights.
        sharded: whether an index may name several files in place of one.
        any_name: take safetensors of any name, for a module class that the user trusts.

    Raises:
        ModelError: naming the file.
    """
    index = sharded and _INDEX in names
    if index:
        _check_index(folder, names)
    for name in names:
        if name.endswith(".safetensors"):
            _check_header(folder / name)
    found = _WEIGHTS in names or index or (any_name and any(name.endswith(".safetensors") for name in names))
    if found:
        return
    pickled = sorted(name for name in names if name.endswith(_PICKLED) and name not in _NEVER_LOADED)
    if pickled:
        raise ModelError(
            f"The weights in {str(folder)!r} are {pickled[0]!r}, which only pickle can read and "
            f"which could run code. Convert them to {_WEIGHTS} with a tool you trust, and load that."
        )
    if needed:
        raise ModelError(
            f"{str(folder)!r} has a config.json but no *.safetensors that it would be loaded from ({_WEIGHTS}, or the "
            f"files of {_INDEX}); copy the whole model."
        )


def weight_bytes(folder: Path, names: list[str]) -> int:
    """How many bytes the safetensors of a folder have together."""
    return sum((folder / name).stat().st_size for name in names if name.endswith(".safetensors"))


def _check_index(folder: Path, names: list[str]) -> None:
    file = folder / _INDEX
    shards = json_object(file).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{str(file)!r} has no weight_map; export the model again.")
    for shard in set(map(str, shards.values())):
        if not shard.endswith(".safetensors") or "/" in shard or "\\" in shard:
            raise ModelError(
                f"{str(file)!r} names the weights {shard!r}, which are not safetensors beside it and could run code. "
                "Convert them with a tool you trust."
            )
        if shard not in names:
            raise ModelError(f"{str(file)!r} names {shard!r}, which is not there; copy the whole model.")


def _check_header(file: Path) -> None:
    """The header of safetensors: its length in 8 bytes, then JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = file.stat().st_size
            if not 2 <= length <= size - 8:
                raise ModelError(f"{str(file)!r} cannot be loaded: it is damaged or cut off; copy the model again.")
            if length > _MOST_HEADER:
                raise ModelError(
                    f"{str(file)!r} has a header of {length:,} bytes, more than {_MOST_HEADER:,}; do not load it."
                )
            header = json.loads(stream.read(length))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{str(file)!r} cannot be loaded: its header is damaged ({error}); copy it again.") from error
    if not isinstance(header, dict):
        raise ModelError(f"{str(file)!r} cannot be loaded: its header is damaged; copy it again.")
    if len(header) > _MOST_TENSORS:
        raise ModelError(
            f"{str(file)!r} holds {len(header):,} tensors, more than {_MOST_TENSORS:,}; do not load this model."
        )
