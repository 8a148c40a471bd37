"""Speed and memory of the whole objective, forward and backward, against the published dense form.

    python benchmarks/speed/attention.py --output DIR [--size small|medium|1b] [--device cuda] [--dtype bfloat16]

Every variant runs in a process of its own, in rounds, and its best step counts. Memory is the peak of the first step
over what weights, gradients and libraries held before it: resident pages on the CPU, allocated bytes on a GPU.

The neighbours are planted: clusters of four texts among random unit vectors, so about three weights of a row are
above 0.01, as in training. The floor is what no implementation can go below on this machine: the operations of the
LM over both streams (a frozen one has no gradient of a weight), of its head over one and of the kept pairs, at the
rate of a large matrix product measured in the same run; or the bytes of weights, gradients and layer states at the
measured copy rate, whichever takes longer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from attention_step import Case, Shape, run_case
from report import copy_rate, machine, matmul_rate, table, write

SIZES = {
    "small": Shape(hidden=256, layers=4, heads=4, kv_heads=2, intermediate=688, vocabulary=8192),
    "medium": Shape(hidden=512, layers=8, heads=8, kv_heads=4, intermediate=1376, vocabulary=8192),
    "1b": Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocabulary=128256),
}
MIN_WEIGHT = 0.01
VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {"attention": "reference", "min_weight": 0.0},
    "sparse, every pair": {"min_weight": 0.0},
    "sparse": {},
    "sparse, checkpointed": {"checkpointed": True},
    "triton, every pair": {"attention": "triton", "min_weight": 0.0},
    "triton": {"attention": "triton"},
    "triton, checkpointed": {"attention": "triton", "checkpointed": True},
    "joint, every pair": {"read": "joint", "min_weight": 0.0},
    "joint": {"read": "joint"},
    "joint, frozen LM": {"read": "joint", "frozen": True},
}


def main() -> None:
    """Measure, compare, write."""
    arguments = _arguments()
    if arguments.case:
        print(json.dumps(run_case(Case.from_json(arguments.case))))
        return
    shape = _shape(arguments)
    base = Case(
        shape=shape,
        device=arguments.device,
        dtype=arguments.dtype,
        size=arguments.batch,
        length=arguments.length,
        attention="sdpa",
        min_weight=MIN_WEIGHT,
        checkpointed=False,
        steps=arguments.steps,
        processor_time=arguments.processor_time,
    )
    dtype = getattr(torch, arguments.dtype)
    clock = {"device": arguments.device, "processor_time": arguments.processor_time}
    result: dict[str, Any] = {"machine": machine(arguments.device), "case": asdict(base)}
    result["matmul_flops"] = matmul_rate(dtype, **clock)
    result["copy_bytes"] = copy_rate(**clock)
    fast = "triton" if arguments.device == "cuda" else "sparse"
    names = [n for n in VARIANTS if arguments.device == "cuda" or not n.startswith("triton")]
    cases = {n: replace(base, **VARIANTS[n]) for n in names}
    sizes = {int(s): replace(cases[fast], size=int(s)) for s in arguments.sizes.split(",") if s}
    result["variants"] = _measure(cases, arguments.rounds)
    result["sizes"] = _measure(sizes, arguments.rounds)
    for name, row in result["variants"].items():
        _add_floor(cases[name], row, result, pairs=result["variants"][fast]["pairs"])
    for size, row in result["sizes"].items():
        _add_floor(sizes[size], row, result, pairs=row["pairs"])
    for read, first in (("published", "reference"), ("joint", "joint, every pair")):
        same = {n: row for n, row in result["variants"].items() if cases[n].read == read}
        _check_losses(same, arguments.dtype, reference=first)
    write(arguments.output, "attention", result, _text(result, fast), lambda figure: _plot(figure, result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks-out"), help="folder of the report")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=SIZES, default="small", help="shape of the LM, weights are random")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    for name in ("hidden", "layers", "heads", "kv-heads", "intermediate", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, help=f"{name} of the LM, instead of the size's")
    parser.add_argument("--batch", type=int, default=16, help="texts in a group, B")
    parser.add_argument("--length", type=int, default=160, help="tokens of a text, L")
    parser.add_argument("--sizes", default="16,64,256", help="group sizes for the cost per text; empty for none")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a variant in a round")
    parser.add_argument("--rounds", type=int, default=2, help="rounds over all variants")
    parser.add_argument(
        "--processor-time", action="store_true", help="count this process's seconds: for a machine that others use"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


def _shape(arguments: argparse.Namespace) -> Shape:
    shape = SIZES[arguments.size]
    given = {k: getattr(arguments, k) for k in asdict(shape) if getattr(arguments, k) is not None}
    if "hidden" in given:  # keep the size of a head and the proportions, unless they are given too
        factor = given["hidden"] / shape.hidden
        scaled = {k: max(1, round(getattr(shape, k) * factor)) for k in ("heads", "kv_heads", "intermediate")}
        given = scaled | given
    return replace(shape, **given)


def _measure(cases: dict[Any, Case], rounds: int) -> dict[Any, dict[str, Any]]:
    """Best step and peak memory of every case, each time in a fresh process."""
    best: dict[Any, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, case in cases.items():
            command = [sys.executable, __file__, "--case", case.to_json()]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(run.stdout.splitlines()[-1])
            print(f"{name}: {row['seconds']:.3g} s, {row['activation_bytes'] / 1e6:.0f} MB", file=sys.stderr)
            if name not in best or row["seconds"] < best[name]["seconds"]:
                best[name] = row
    return best


def _add_floor(case: Case, row: dict[str, Any], result: dict[str, Any], *, pairs: int) -> None:
    row["flops"] = case.flops(pairs)
    row["bytes"] = case.bytes(row["parameters"])
    by_flops, by_bytes = row["flops"] / result["matmul_flops"], row["bytes"] / result["copy_bytes"]
    row["floor_seconds"] = max(by_flops, by_bytes)
    row["floor_by"] = "operations" if by_flops >= by_bytes else "bytes"
    row["of_peak"] = by_flops / row["seconds"]


def _check_losses(rows: dict[str, dict[str, Any]], dtype: str, *, reference: str) -> None:
    """Refuse to compare speeds of variants that compute something else."""
    expected = rows[reference]
    rounding = 1e-4 if dtype == "float32" else 3e-2
    for name, row in rows.items():
        for figure in ("loss", "retriever_gradient"):
            allowed = rounding + 10 * row["dropped_mass"]
            difference = abs(row[figure] - expected[figure]) / expected[figure]
            if difference > allowed:
                raise SystemExit(f"{figure} of {name} is off by {difference:.1e}, {allowed:.1e} is allowed")


def _text(result: dict[str, Any], fast: str) -> str:
    reference, case = result["variants"]["reference"], result["case"]
    rows = [
        [
            name,
            1 / row["seconds"],
            f"{reference['seconds'] / row['seconds']:.2f}x",
            row["activation_bytes"] / 1e6,
            f"{reference['activation_bytes'] / row['activation_bytes']:.2f}x less",
            f"{row['loss']:.5f}",
            f"{row['retriever_gradient']:.3e}",
            f"{row['pairs']} ({row['pairs'] / case['size']:.1f} a row)",
            row["dropped_mass"],
            row["floor_seconds"],
            f"{row['seconds'] / row['floor_seconds']:.2f}x",
            f"{row['of_peak']:.0%}",
        ]
        for name, row in result["variants"].items()
    ]
    columns = "variant, steps/s, against reference, activations MB, against reference, loss, retriever gradient"
    columns += ", pairs, dropped mass, floor s, over floor, of matmul peak"
    parts = [
        f"LM {case['shape']}, {case['dtype']} on {case['device']}, B = {case['size']}, L = {case['length']}",
        f"machine: {result['machine']}",
        f"measured peaks: {result['matmul_flops'] / 1e9:.0f} GFLOP/s, {result['copy_bytes'] / 1e9:.1f} GB/s copied",
        table(columns.split(", "), rows),
    ]
    if result["sizes"]:
        first = next(iter(result["sizes"]))
        per_text = {size: row["seconds"] / size for size, row in result["sizes"].items()}
        rows = [
            [size, 1e3 * cost, f"{cost / per_text[first]:.2f}x", result["sizes"][size]["activation_bytes"] / size / 1e6]
            for size, cost in per_text.items()
        ]
        parts += [f"cost per text, {fast}:", table(["B", "ms a text", f"against B = {first}", "MB a text"], rows)]
    return "\n\n".join(parts)


def _plot(figure: Any, result: dict[str, Any]) -> None:
    count = 3 if result["sizes"] else 2
    figure.set_size_inches(13 * count / 3, 4)
    panels = figure.subplots(1, count)
    names = list(result["variants"])
    rows = [result["variants"][name] for name in names]
    panels[0].barh(names, [1 / row["seconds"] for row in rows])
    panels[0].plot([1 / row["floor_seconds"] for row in rows], names, "k|", markersize=18, label="floor")
    panels[0].set(title="steps per second")
    panels[0].legend()
    panels[1].barh(names, [row["activation_bytes"] / 1e6 for row in rows])
    panels[1].set(title="activation memory, MB")
    for panel in panels[:2]:
        panel.invert_yaxis()
    if not result["sizes"]:
        return
    costs = {str(size): 1e3 * row["seconds"] / size for size, row in result["sizes"].items()}
    panels[2].bar(list(costs), list(costs.values()))
    panels[2].set(title="milliseconds per text", xlabel="texts in a group, B")


if __name__ == "__main__":
    main()
