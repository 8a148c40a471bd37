"""The objective against a slow loop over pairs, on random cases."""

from __future__ import annotations

import copy

import pytest
import torch

from revela_training.objective import RevelaObjective

from .oracle import oracle

ARCHITECTURES = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "smollm3", "gpt_neox", "phi", "granite"]


def _grads(lm):
    return {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}


def _close(ours: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert float((ours - expected).norm()) <= tolerance * float(expected.norm()) + 1e-6


READS = pytest.mark.parametrize("read", ["joint", "published"])


def _compare(lm, batch, *, read, v_norm=True, tolerance=1e-4):
    ids, mask, weights = batch
    slow_lm, slow_weights = copy.deepcopy(lm), weights.detach().clone().requires_grad_()
    slow_loss, slow_baseline, slow_logits = oracle(
        slow_lm, ids, mask, slow_weights, v_norm=v_norm, joint=read == "joint"
    )
    slow_loss.backward()
    output = RevelaObjective(lm, read=read, v_norm=v_norm)(ids, mask, weights=weights)
    output.loss.backward()
    torch.testing.assert_close(output.loss, slow_loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.baseline_loss, slow_baseline, atol=1e-5, rtol=0)
    assert abs(float(slow_loss.detach() - slow_baseline.detach())) > 1e-4
    _close(output.logits.detach()[mask.bool()], slow_logits.detach(), tolerance)
    off_diagonal = ~torch.eye(weights.shape[-1], dtype=torch.bool).expand_as(weights)
    _close(weights.grad[off_diagonal], slow_weights.grad[off_diagonal], tolerance)
    ours, slow = _grads(lm), _grads(slow_lm)
    assert bool(slow) == any(p.requires_grad for p in lm.parameters())
    assert ours.keys() == slow.keys()
    for name, expected in slow.items():
        _close(ours[name], expected, tolerance)


@READS
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture, read, make_lm, make_batch):
    _compare(make_lm(architecture), make_batch(groups=2, size=3), read=read)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_lm(architecture, side, make_lm, make_batch):
    lm = make_lm(architecture).requires_grad_(False)
    _compare(lm, make_batch(groups=2, size=3, side=side, seed=1), read="joint")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("read", "v_norm"), [("published", True), ("published", False), ("joint", False)])
def test_random_cases(seed, side, read, v_norm, make_lm, make_batch):
    groups, size, length = [(1, 2, 5), (2, 3, 9), (3, 4, 7)][seed]
    kv_heads = [1, 4, 2][seed]
    batch = make_batch(groups, size, length, side=side, seed=seed)
    _compare(make_lm(num_key_value_heads=kv_heads), batch, read=read, v_norm=v_norm)


@READS
@pytest.mark.parametrize("architecture", ["gemma2", "mistral", "gpt_neox"])
def test_left_padding_where_masks_are_special(architecture, read, make_lm, make_batch):
    _compare(make_lm(architecture), make_batch(groups=2, size=3, side="left"), read=read)


@READS
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_whatever_attention_the_lm_was_loaded_with(implementation, read, make_lm, make_batch):
    lm = make_lm()
    lm.set_attn_implementation(implementation)
    _compare(lm, make_batch(), read=read)


@READS
def test_bf16_model_is_close_to_fp32(read, make_lm, make_batch):
    ids, mask, weights = make_batch(groups=2)
    lm = make_lm()
    exact = RevelaObjective(copy.deepcopy(lm), read=read)(ids, mask, weights=weights)
    (exact_grad,) = torch.autograd.grad(exact.loss, weights)
    rounded = RevelaObjective(lm.bfloat16(), read=read)(ids, mask, weights=weights)
    (grad,) = torch.autograd.grad(rounded.loss, weights)
    torch.testing.assert_close(rounded.loss, exact.loss, atol=0.05, rtol=0)
    assert rounded.loss.dtype == grad.dtype == torch.float32
    _close(grad, exact_grad, 0.15)


@READS
def test_autocast_is_close_to_fp32(read, make_lm, make_batch):
    ids, mask, weights = make_batch(groups=2)
    objective = RevelaObjective(make_lm(), read=read)
    exact = objective(ids, mask, weights=weights)
    (exact_grad,) = torch.autograd.grad(exact.loss, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = objective(ids, mask, weights=weights)
    (grad,) = torch.autograd.grad(rounded.loss, weights)
    torch.testing.assert_close(rounded.loss, exact.loss, atol=0.05, rtol=0)
    _close(grad, exact_grad, 0.15)
