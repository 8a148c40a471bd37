"""The Triton kernels: right by the interpreter, compiled for real GPUs without one, chosen and refused as promised."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install triton (Linux)")

from revela_training.objective import RevelaObjective
from revela_training.objective.attention import cross_attention, fused, kernels, select_pairs
from revela_training.objective.attention.launch import block_sizes, padded
from revela_training.objective.weights import ObjectiveError

HERE = Path(__file__).parent
SMALLEST_SHARED_MEMORY = 99 * 1024  # sm_86 and sm_89; sm_80 has 163 KB, sm_90 227 KB


def _run_cases(**environment) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "fused_cases.py")]
    run = subprocess.run(
        command, cwd=HERE.parents[1], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed and int(passed[1]) >= 24, run.stdout
    assert "skipped" not in run.stdout


@pytest.mark.slow
def test_every_case_in_the_interpreter():
    _run_cases(TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_every_case_on_the_gpu():
    _run_cases(TRITON_INTERPRET="0")


def _signature(kernel, dtype: str, constants: dict) -> dict[str, str]:
    integers = {"spans", "reader_starts", "source_starts", "by_source"}
    special = {
        **dict.fromkeys(constants, "constexpr"),
        **dict.fromkeys(integers, "*i32"),
        **dict.fromkeys(("sources", "readers"), "*i64"),
        **dict.fromkeys(("norms", "weights", "lse", "mean_norms", "along"), "*fp32"),
        **dict.fromkeys(("scale", "log2_scale", "epsilon"), "fp32"),
        **dict.fromkeys(("heads", "kv_heads", "length"), "i32"),
        "mask": "*u8",
    }
    stride = re.compile(r".+_[nhl]")
    return {n: special.get(n, "i32" if stride.fullmatch(n) else f"*{dtype}") for n in kernel.arg_names}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "dtype", "itemsize", "size"),
    [(80, "bf16", 2, 128), (80, "fp32", 4, 64), (90, "bf16", 2, 64), (90, "bf16", 2, 256)],
)
def test_compiles_for_gpus_that_are_not_here(architecture, dtype, itemsize, size, tmp_path, monkeypatch):
    if kernels.INTERPRETED:
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes, width = block_sizes(padded(size), itemsize), padded(size)
    for name in ("output_kernel", "query_grad_kernel", "key_value_grad_kernel"):
        kernel = getattr(kernels, name)
        queries_held = name != "key_value_grad_kernel"
        constants = {
            "D": size,
            "E": size,
            "BLOCK_D": width,
            "BLOCK_E": width,
            "BLOCK_M": sizes.held if queries_held else sizes.walked,
            "BLOCK_N": sizes.walked if queries_held else sizes.held,
            "V_NORM": True,
            "MASKED": True,
            "PRECISION": "tf32" if itemsize == 2 else "ieee",
            "WIDE": False,
        }
        source = ASTSource(kernel, _signature(kernel, dtype, constants), constants)
        options = {"num_warps": sizes.warps, "num_stages": 2}
        compiled = compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
        assert len(compiled.asm["cubin"]) > 1000
        assert compiled.metadata.shared <= SMALLEST_SHARED_MEMORY, name


def _inputs(dtype=torch.float32, size=32):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 9, size, dtype=dtype) for _ in range(3))
    pairs = select_pairs(torch.tensor([[[0, 1.0], [1.0, 0]]]))
    return query, key, value, pairs


@pytest.mark.parametrize(
    ("dtype", "size", "softcap", "why"),
    [
        (torch.float32, 32, 2.0, "caps its attention scores"),
        (torch.float64, 32, None, "torch.float64"),
        (torch.float32, 264, None, "heads have 264 numbers, more than 256"),
        (torch.float32, 32, None, "on cpu"),
    ],
)
def test_insisting_on_the_kernels_says_why_they_cannot_be_used(dtype, size, softcap, why):
    settings = {"key_mask": None, "scaling": 0.3, "v_norm": True, "softcap": softcap}
    with pytest.raises(ObjectiveError, match=why):
        cross_attention(*_inputs(dtype, size), **settings, implementation="triton")
    assert cross_attention(*_inputs(dtype, size), **settings).isfinite().all()


def test_without_triton_the_other_way_is_taken(monkeypatch):
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    query, key, value, _ = _inputs()
    assert fused.why_not_fused(query, key, value, v_norm=True, softcap=None) == "triton is not installed"


class _Broken:
    """A kernel whose compiler fails."""

    def __getitem__(self, grid):
        raise RuntimeError("no C compiler\nlong traceback")


class _Wrong:
    """A kernel that computes nothing."""

    def __getitem__(self, grid):
        return lambda *arguments, **constants: [
            t.zero_() for t in arguments if torch.is_tensor(t) and t.is_floating_point()
        ]


@pytest.mark.parametrize(("kernel", "why"), [(_Broken(), "RuntimeError: no C compiler"), (_Wrong(), "is off by")])
def test_kernels_that_fail_are_left_with_one_line(kernel, why, monkeypatch, caplog):
    for name in ("output_kernel", "query_grad_kernel", "key_value_grad_kernel"):
        monkeypatch.setattr(kernels, name, kernel)
    monkeypatch.setattr(kernels, "INTERPRETED", True)  # else the CPU alone is reason enough
    fused._compiled.cache_clear()
    query, key, value, _ = _inputs()
    with caplog.at_level(logging.WARNING):
        reasons = {fused.why_not_fused(query, key, value, v_norm=True, softcap=None) for _ in range(3)}
    fused._compiled.cache_clear()
    (reason,) = reasons
    assert why in reason
    assert "\n" not in reason
    assert [why in record.message for record in caplog.records] == [True]


def test_an_objective_that_insists_says_why(make_lm, make_batch):
    ids, mask, weights = make_batch()
    with pytest.raises(ObjectiveError, match="on cpu"):
        RevelaObjective(make_lm(), read="published", attention="triton")(ids, mask, weights=weights)
