"""How the Triton kernels are called: grid, block sizes, strides and constants."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from math import e, log2
from typing import Any

import torch
from torch import Tensor

__all__ = ["BlockSizes", "Launch", "block_sizes", "padded"]

_NORM_EPSILON = 1e-6


class Launch:
    """How the kernels are to be called for one layer's tensors.

    Args:
        query: (N, H, L, D).
        key: (N, K, L, D).
        value: (N, K, L, E).
        scaling: factor of the scores.
        v_norm: divide by the mean norm of the values read.
        masked: some keys are padding.
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, v_norm: bool, masked: bool) -> None:
        self.n, self.heads, self.length, size = query.shape
        self.kv_heads, value_size = key.shape[1], value.shape[-1]
        self.scaling = scaling
        self.itemsize = value.dtype.itemsize
        highest = torch.get_float32_matmul_precision() == "highest"
        self.constants: dict[str, Any] = {
            "D": size,
            "E": value_size,
            "BLOCK_D": padded(size),
            "BLOCK_E": padded(value_size),
            "V_NORM": v_norm,
            "MASKED": masked,
            "PRECISION": "ieee" if value.dtype == torch.float32 and highest else "tf32",
        }

    def __call__(
        self,
        name: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        strided: tuple[Tensor, ...],
        *,
        by_query: bool,
        backward: bool,
    ) -> None:
        """Run one kernel of `revela_training.objective.attention.kernels` on ``inputs``, into ``outputs``.

        Args:
            name: of the kernel.
            inputs: its first arguments.
            outputs: those that it fills.
            strided: the tensors whose strides it takes, (N, heads, L, size) each.
            by_query: a program holds queries of a query head, else keys of a key/value head.
            backward: the kernel takes both scales.
        """
        from revela_training.objective.attention import kernels

        sizes = block_sizes(max(self.constants["BLOCK_D"], self.constants["BLOCK_E"]), self.itemsize)
        held, heads = sizes.held, self.heads if by_query else self.kv_heads
        blocks = (sizes.held, sizes.walked) if by_query else (sizes.walked, sizes.held)
        strides = [stride for tensor in strided for stride in tensor.stride()[:3]]
        log2_scale = self.scaling * log2(e)
        scales = (self.scaling, log2_scale) if backward else (log2_scale,)
        device = inputs[0].device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            getattr(kernels, name)[(-(-self.length // held), self.n * heads)](
                *inputs,
                *outputs,
                *strides,
                self.heads,
                self.kv_heads,
                self.length,
                *scales,
                _NORM_EPSILON,
                WIDE=kernels.INTERPRETED,
                **self.constants,
                BLOCK_M=blocks[0],
                BLOCK_N=blocks[1],
                num_warps=sizes.warps,
                num_stages=2,
            )


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """How many rows a program holds, how many it walks over at a time, and its warps."""

    held: int
    walked: int
    warps: int


def block_sizes(width: int, itemsize: int) -> BlockSizes:
    """Sizes for heads padded to ``width``: what the compiler fits into registers, and 99 KB of shared memory.

    99 KB is what the smallest GPUs since sm_80 have. Found by compiling for sm_90 and reading registers and spills.
    """
    if itemsize < 4:
        return BlockSizes(32, 32, 8) if width > 128 else BlockSizes(64, 32, 8 if width > 64 else 4)
    return BlockSizes(32, 16, 4) if width <= 64 else BlockSizes(16, 16, 4 if width <= 128 else 8)


def padded(size: int) -> int:
    """The power of two, 16 at least, that holds a head of this size."""
    return max(16, 1 << (size - 1).bit_length())
