"""The Triton kernels against the dense form in fp64. Run by test_fused.py: interpreted on the CPU, or on a GPU.

By hand:  TRITON_INTERPRET=1 pytest tests/objective/fused_cases.py
"""

from __future__ import annotations

import copy
import os

import pytest
import torch

from revela_training.objective import RevelaObjective
from revela_training.objective.attention import cross_attention, reference_attention, select_pairs
from revela_training.objective.attention.fused import fused_cross_attention

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
NAMES = ("output", "dq", "dk", "dv", "dw")


def _inputs(dtype, n, heads, kv_heads, length, size, value_size, seed, groups=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, length, heads, size), (n, length, kv_heads, size), (n, kv_heads, length, value_size)
    query, key, value = (torch.randn(s, generator=generator).to(DEVICE, dtype) for s in shapes)
    grad = torch.randn(n, heads, length, value_size, generator=generator).to(DEVICE, dtype)
    scores = torch.randn(groups, n // groups, n // groups, generator=generator) * 2
    diagonal = torch.eye(n // groups, dtype=torch.bool)
    weights = scores.masked_fill(diagonal, float("-inf")).softmax(-1).to(DEVICE)
    return query.transpose(1, 2), key.transpose(1, 2), value, weights, grad


def _mask(kind, n, length):
    if kind == "none":
        return None
    lengths = torch.randint(1, length + 1, (n, 1), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(length) < lengths
    mask = mask.flip(-1) if kind == "left" else mask
    if kind == "holes":
        mask[:, 1::3] = False
        mask[-1] = torch.arange(length) == length - 1
    return mask.to(DEVICE)


def _run(attend, query, key, value, weights, grad, dtype=None):
    leaves = [x.to(dtype or x.dtype).detach().requires_grad_() for x in (query, key, value, weights)]
    output = attend(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad.to(output.dtype))]


def _compare(inputs, settings, tolerance, min_weight=0.0):
    def pruned(weights):
        return weights * (weights > min_weight) if min_weight else weights

    ours = _run(lambda q, k, v, w: fused_cross_attention(q, k, v, select_pairs(w, min_weight), **settings), *inputs)
    exact = _run(lambda q, k, v, w: reference_attention(q, k, v, pruned(w), **settings), *inputs, dtype=torch.float64)
    for name, found, wanted in zip(NAMES, ours, exact, strict=True):
        assert found.dtype == (inputs[3] if name == "dw" else inputs[0]).dtype
        error, norm = float((found.double() - wanted).norm()), float(wanted.norm())
        assert error <= tolerance * norm + 1e-5, f"{name} is off by {error:.1e}, its norm is {norm:.1e}"


# n, heads, kv_heads, length, size, value_size: grouped and not, lengths within and across blocks, padded head sizes
SHAPES = [
    (2, 2, 1, 37, 32, 32),
    (2, 2, 2, 70, 64, 64),
    (2, 4, 2, 17, 40, 24),
    (3, 1, 1, 16, 64, 128),
    (2, 2, 1, 33, 128, 128),
    (2, 2, 1, 20, 256, 256),
    (3, 2, 1, 1, 32, 32),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_shapes(shape, dtype):
    seed = SHAPES.index(shape)
    kind = ("right", "left", "none", "holes")[seed % 4]
    settings = {"key_mask": _mask(kind, shape[0], shape[3]), "scaling": shape[4] ** -0.5, "v_norm": seed % 3 != 1}
    # the interpreter cuts bf16 off where a GPU rounds
    _compare(_inputs(dtype, *shape, seed=seed), settings, 3e-6 if dtype == torch.float32 else 1.5e-2)


@pytest.mark.parametrize("v_norm", [True, False])
@pytest.mark.parametrize("kind", ["none", "right", "left", "holes"])
def test_every_mask_with_and_without_v_norm(kind, v_norm):
    settings = {"key_mask": _mask(kind, 4, 21), "scaling": 0.3, "v_norm": v_norm}
    _compare(_inputs(torch.float32, 4, 2, 1, 21, 32, 32, seed=11, groups=2), settings, 3e-6)


def test_pruned_pairs_readers_without_pairs_and_sources_nobody_reads():
    query, key, value, weights, grad = _inputs(torch.float32, 4, 2, 1, 19, 32, 32, seed=5)
    weights = torch.tensor([[[0, 0.7, 0.3, 0], [0.01, 0, 0.99, 0], [0.2, 0.2, 0, 0.05], [0, 0, 0.04, 0]]])
    settings = {"key_mask": None, "scaling": 0.3, "v_norm": True}
    pairs = select_pairs(weights.to(DEVICE), 0.06)
    assert pairs.reader_starts.tolist() == [0, 2, 3, 5, 5]
    assert pairs.source_starts.tolist() == [0, 1, 3, 5, 5]
    _compare((query, key, value, weights.to(DEVICE), grad), settings, 3e-6, min_weight=0.06)


def test_the_same_bits_twice():
    inputs = _inputs(torch.bfloat16, 3, 2, 1, 21, 32, 32, seed=2)
    settings = {"key_mask": None, "scaling": 0.3, "v_norm": True}
    once, again = (
        _run(lambda q, k, v, w: fused_cross_attention(q, k, v, select_pairs(w), **settings), *inputs) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_a_text_of_nothing_but_padding_and_values_of_zero_stay_finite():
    query, key, value, weights, grad = _inputs(torch.float32, 3, 2, 1, 18, 32, 32, seed=4)
    mask = torch.ones(3, 18, dtype=torch.bool, device=DEVICE)
    mask[1] = False
    value[2] = 0
    settings = {"key_mask": mask, "scaling": 0.3, "v_norm": True}
    found = _run(
        lambda q, k, v, w: fused_cross_attention(q, k, v, select_pairs(w), **settings), query, key, value, weights, grad
    )
    assert all(x.isfinite().all() for x in found)


def test_a_gradient_that_is_an_expanded_number():
    query, key, value, weights, _ = _inputs(torch.float32, 2, 2, 1, 18, 32, 32, seed=4)
    grad = torch.ones((), device=DEVICE).expand(2, 2, 18, 32)
    _compare((query, key, value, weights, grad), {"key_mask": None, "scaling": 0.3, "v_norm": True}, 3e-6)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_whole_objective(checkpointed, make_lm, make_batch):
    ids, mask, weights = (x.to(DEVICE) for x in make_batch(groups=1, size=3))
    lm = make_lm().to(DEVICE).train()

    def step(lm, attention):
        leaf = weights.detach().clone().requires_grad_()
        output = RevelaObjective(lm, read="published", attention=attention)(ids, mask, weights=leaf)
        output.loss.backward()
        return output.loss, leaf.grad, {name: p.grad for name, p in lm.named_parameters()}

    dense = step(copy.deepcopy(lm), "reference")
    if checkpointed:
        lm.gradient_checkpointing_enable({"use_reentrant": True})
    fused = step(lm, "triton")
    torch.testing.assert_close(fused, dense, atol=1e-5, rtol=1e-3)


def test_mixed_dtypes_as_autocast_leaves_them():
    query, key, value, weights, _ = _inputs(torch.float32, 2, 2, 1, 18, 32, 32, seed=4)
    settings = {"key_mask": None, "scaling": 0.3, "v_norm": True, "implementation": "triton"}
    mixed = cross_attention(query, key, value.bfloat16(), select_pairs(weights), **settings)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(
        mixed.float(), cross_attention(query, key, value, select_pairs(weights), **settings), atol=0.05, rtol=0.05
    )
