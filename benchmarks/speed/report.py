"""What the speed benchmarks share: the machine, its measured peaks, and a report of JSON, table and plot."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["best_seconds", "copy_rate", "machine", "matmul_rate", "table", "write"]


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, memory, device and versions, as far as they explain a timing."""
    described: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        described |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 1e9, 1)}
    return described


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def best_seconds(
    call: Callable[[], object], *, device: str = "cpu", repeats: int = 5, processor_time: bool = False
) -> float:
    """The shortest of some calls after one that does not count; what else the machine does can only add.

    With ``processor_time`` the seconds are those that this process got, of all its threads together: with one thread
    a fair clock on a machine that others use.
    """
    clock = time.process_time if processor_time else time.perf_counter
    best = float("inf")
    for repeat in range(repeats + 1):
        _wait(device)
        start = clock()
        call()
        _wait(device)
        if repeat:
            best = min(best, clock() - start)
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matmul_rate(dtype: torch.dtype, *, device: str = "cpu", processor_time: bool = False) -> float:
    """Floating-point operations per second of a large square matrix product, a multiplication and an addition each."""
    size = 8192 if device == "cuda" else 1536
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: left @ right, device=device, processor_time=processor_time)


def copy_rate(*, device: str = "cpu", processor_time: bool = False) -> float:
    """Bytes read and written per second by a copy too large for the caches."""
    source = torch.ones(2**28 if device == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device=device, processor_time=processor_time)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three significant digits."""

    def cell(value: object) -> str:
        return (
            f"{value:.3g}"
            if isinstance(value, float) and abs(value) < 1000
            else f"{value:,.0f}"
            if isinstance(value, float)
            else str(value)
        )

    lines = [columns, ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(output: Path, name: str, result: dict[str, Any], text: str, plot: Callable[[Any], None]) -> None:
    """``name``.json, ``name``.md and ``name``.png in ``output``, and the text to the terminal.

    Args:
        output: folder, made if need be.
        name: of the benchmark.
        result: everything that was measured.
        text: the tables.
        plot: draws on the matplotlib figure that it is given.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (output / f"{name}.md").write_text(text + "\n")
    figure = pyplot.figure(layout="constrained")
    plot(figure)
    figure.savefig(output / f"{name}.png", dpi=120)
    pyplot.close(figure)
    print(text)
