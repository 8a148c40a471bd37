"""One case of the attention benchmark: an LM of some shape, one step of the objective, timed and weighed."""

from __future__ import annotations

import ctypes
import gc
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from report import best_seconds
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from revela_training.objective import RevelaObjective
from revela_training.objective.weights import similarity_weights

__all__ = ["Case", "Shape", "run_case"]

CLUSTER = 4
TEMPERATURE = 0.02


@dataclass(frozen=True)
class Shape:
    """Shape of a Llama."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True)
class Case:
    """What is measured."""

    shape: Shape
    device: str
    dtype: str
    size: int
    length: int
    attention: str
    min_weight: float
    checkpointed: bool
    steps: int
    processor_time: bool
    read: str = "published"
    frozen: bool = False

    def to_json(self) -> str:
        """For the command line of a fresh process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        """What `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "shape": Shape(**fields["shape"])})

    def flops(self, pairs: int) -> float:
        """Operations of one step at the least: products of matrices alone.

        A backward costs twice the forward; where the LM is frozen once, and the base stream has none.
        """
        shape, tokens = self.shape, self.size * self.length
        head = shape.hidden // shape.heads
        attention = 2 * shape.hidden * head * (shape.heads + shape.kv_heads)
        layer = tokens * (2 * attention + 6 * shape.hidden * shape.intermediate)
        causal = self.size * 4 * shape.hidden * self.length * (self.length + 1) / 2
        read = pairs * 4 * shape.hidden * self.length**2
        head = 2 * tokens * shape.hidden * shape.vocabulary
        base, cross = (1.0, 2.0) if self.frozen else (3.0, 3.0)
        # attention has no weights: its backward always costs twice its forward
        streams = (base + cross) * layer + (base + 3.0) * causal + 3.0 * read
        return shape.layers * streams + cross * head

    def bytes(self, parameters: int) -> float:
        """Bytes moved at the least: weights read twice, gradients written, each layer's input written and read."""
        itemsize = getattr(torch, self.dtype).itemsize
        states = 2 * self.size * self.length * self.shape.hidden * self.shape.layers
        return itemsize * (3.0 * parameters + 2 * states)


def run_case(case: Case) -> dict[str, Any]:
    """Best seconds, peak bytes and what was computed."""
    torch.manual_seed(0)
    shape = case.shape
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=2 * case.length,
        tie_word_embeddings=True,
        initializer_range=0.05,  # large enough that what is read matters to the loss
    )
    lm = LlamaForCausalLM(config).to(case.device, getattr(torch, case.dtype)).train()
    lm.requires_grad_(not case.frozen)
    if case.checkpointed:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    read: Any = case.read
    objective = RevelaObjective(lm, read=read, attention=case.attention, min_weight=case.min_weight)
    ids = torch.randint(shape.vocabulary, (case.size, case.length)).to(case.device)
    queries, passages = (x.to(case.device).requires_grad_() for x in planted(case.size))

    def step(ids: Tensor, queries: Tensor, passages: Tensor) -> Any:
        weights = similarity_weights(queries, passages, temperature=TEMPERATURE)
        output = objective(ids, None, weights=weights, baseline=False)
        output.loss.backward()
        return output

    step(ids[:4, :8], queries[:4], passages[:4])  # loads what is loaded late, and makes the gradients
    peak = _Peak(case.device)
    queries.grad = None
    output = step(ids, queries, passages)
    measured = {
        "activation_bytes": peak.bytes(),
        "loss": float(output.cross_loss),
        "retriever_gradient": queries.grad.norm().item(),
        "pairs": output.pairs,
        "dropped_mass": float(output.dropped_mass),
        "parameters": sum(p.numel() for p in lm.parameters()),
    }
    del output
    seconds = best_seconds(
        lambda: step(ids, queries, passages),
        device=case.device,
        repeats=case.steps,
        processor_time=case.processor_time,
    )
    return {**measured, "seconds": seconds}


def planted(size: int) -> tuple[Tensor, Tensor]:
    """Query and passage embeddings, (size, 64): clusters of four among strangers that are not quite orthogonal."""
    generator = torch.Generator().manual_seed(1)
    centres = F.normalize(torch.randn(-(-size // CLUSTER), 64, generator=generator), dim=-1)

    def near() -> Tensor:
        noise = F.normalize(torch.randn(size, 64, generator=generator), dim=-1)
        return F.normalize(centres.repeat_interleave(CLUSTER, 0)[:size] + 1.6 * noise, dim=-1)

    return near(), near()


class _Peak:
    """Bytes held at most since now, beyond those held now."""

    def __init__(self, device: str) -> None:
        self.device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            _return_freed_blocks(above=2**20)
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of resident memory so far
            self.before = _status("VmRSS")

    def bytes(self) -> int:
        """The peak."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        peak = _status("VmHWM") - self.before
        _return_freed_blocks(above=2**25)  # as far as glibc goes by itself: mapping anew costs time
        return peak


def _return_freed_blocks(*, above: int) -> None:
    """Have glibc map large blocks one by one, so that resident memory is what tensors hold and not its leftovers."""
    mmap_threshold = -3
    ctypes.CDLL(None).mallopt(mmap_threshold, above)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status does not tell {name}")
