"""Several processes, one device each: who leads, what they exchange, and how the LM is split between them.

Start them with ``torchrun`` or ``accelerate launch``. Gradients are summed here once per step, after the last
micro-batch, and not by DistributedDataParallel during the backward: a process may then try a step again in smaller
pieces when memory runs out, without leaving the others in the middle of an exchange.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from revela_rag.errors import TrainingError

__all__ = ["World", "clip_gradients", "copy_whole", "full_tensor", "shard_lm", "start_world", "wants_shards"]

_BUCKET_ELEMENTS = 2**23
_PATIENCE = timedelta(days=7)  # embedding a large corpus on the first process takes hours


class World:
    """The processes that train together; a world of one needs no ``torch.distributed``.

    Args:
        rank: number of this process, from 0.
        size: how many there are.

    Attributes:
        rank: as given.
        size: as given.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        # waiting goes over gloo, which has a time limit of its own
        self._patient = dist.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self._patient is not None:
            dist.barrier(group=self._patient)

    def sum(self, values: Iterable[float]) -> list[float]:
        """Sums of ``values`` over all processes."""
        tensor = torch.tensor(list(values), dtype=torch.float64)
        if self._patient is not None:
            dist.all_reduce(tensor, group=self._patient)
        return tensor.tolist()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set anywhere."""
        return (self.size > 1 and self.sum([float(flag)])[0] > 0) or flag

    def from_leader(self, value: float) -> float:
        """``value`` of the first process."""
        return self.sum([value if self.leads else 0.0])[0]

    def text_from_leader(self, text: str) -> str:
        """``text`` of the first process."""
        if self._patient is None:
            return text
        data = text.encode()
        size = int(self.from_leader(float(len(data))))
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.leads else torch.empty(size).byte()
        dist.broadcast(buffer, src=0, group=self._patient)
        return bytes(buffer.tolist()).decode()

    def gather(self, tensor: Tensor) -> Tensor:
        """``tensor`` (n, ...) of every process, one after the other; n may differ, nothing else may."""
        if self.size == 1:
            return tensor
        counts = self.sum([float(len(tensor)) if rank == self.rank else 0.0 for rank in range(self.size)])
        largest = int(max(counts))
        padded = tensor.new_zeros(largest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of replicated parameters by their sums; those FSDP split it has summed itself."""
        if self.size == 1:
            return
        own = [p for p in parameters if p.requires_grad and not _is_split(p)]
        present = self.sum([float(p.grad is not None) for p in own])
        moved = [p for p, count in zip(own, present, strict=True) if count]
        for parameter in moved:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in moved if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def same_start(self, module: nn.Module) -> None:
        """Give every process the trainable parameters of the first."""
        if self.size > 1:
            for parameter in module.parameters():
                if parameter.requires_grad and not _is_split(parameter):
                    dist.broadcast(parameter.data, src=0)


def start_world() -> World:
    """Join the processes that ``torchrun`` or ``accelerate launch`` started; a world of one where there are none.

    Raises:
        TrainingError: the environment names several processes and the launcher's other variables are missing.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if not dist.is_available() or (size == 1 and not dist.is_initialized()):
        return World()
    cuda = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes")
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if cuda else "gloo")
        except ValueError as error:
            raise TrainingError(
                f"WORLD_SIZE is {size} but the processes cannot find each other ({error}). "
                "Start with torchrun or accelerate launch, or unset WORLD_SIZE."
            ) from error
    return World(dist.get_rank(), dist.get_world_size())


def wants_shards(setting: bool) -> bool:
    """Whether the LM is to be split: by the setting, or because accelerate's own configuration asks for FSDP.

    Accelerate itself is kept from wrapping the model again.
    """
    return os.environ.pop("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes") or setting


def shard_lm(model: nn.Module, lm: Any, entry: str) -> None:
    """Split the LM's weights, gradients and optimizer state between the processes (FSDP2), in place.

    Args:
        model: the module that is trained, whose method ``entry`` runs the LM.
        lm: the LM inside; all other parameters stay whole in every process.
        entry: name of the method.

    Raises:
        TrainingError: the LM's layers cannot be told apart.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    split = {id(parameter) for parameter in lm.parameters()}
    depth = lm.config.get_text_config().num_hidden_layers
    layers = next((m for m in lm.modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)
    if layers is None:
        raise TrainingError(
            f"The {depth} layers of {type(lm).__name__} cannot be found to split them; set shard=false."
        )
    for layer in layers:
        fully_shard(layer)
    fully_shard(model, ignored_params={p for p in model.parameters() if id(p) not in split})
    register_fsdp_forward_method(model, entry)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale all gradients so that their norm, over whole and split ones together, is at most ``largest``.

    Returns:
        () the norm before.
    """
    moved = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in moved if _is_split(p) == split] for split in (False, True)]
    norms = [
        full_tensor(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds if kind
    ]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms or [torch.zeros(())]))
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return norm


def full_tensor(tensor: Tensor) -> Tensor:
    """``tensor`` whole; all processes must ask for it together where it is split."""
    return tensor.full_tensor() if _is_split(tensor) else tensor  # type: ignore[attr-defined]


def copy_whole(target: Tensor, value: Tensor) -> None:
    """Copy a whole ``value`` into ``target``, of which this process may hold only a part."""
    with torch.no_grad():
        if _is_split(target):
            from torch.distributed.tensor import distribute_tensor

            split: Any = target
            value = distribute_tensor(value.to(split.device, split.dtype), split.device_mesh, split.placements)
        target.copy_(value)


def _is_split(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type together, some tens of megabytes at a time."""
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        bucket: list[Tensor] = []
        for gradient in (g for g in gradients if g.dtype == dtype):
            bucket.append(gradient)
            if sum(g.numel() for g in bucket) >= _BUCKET_ELEMENTS:
                yield bucket
                bucket = []
        if bucket:
            yield bucket
