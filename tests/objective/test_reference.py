"""The dense form the method was published with, and what it says about the sparse one."""

from __future__ import annotations

import copy

import pytest
import torch

from revela_training.objective import RevelaObjective
from revela_training.objective.weights import ObjectiveError

from .oracle import oracle


def _step(lm, batch, **settings):
    ids, mask, weights = batch
    lm, weights = copy.deepcopy(lm), weights.detach().clone().requires_grad_()
    output = RevelaObjective(lm, read="published", **settings)(ids, mask, weights=weights)
    output.loss.backward()
    return output, weights.grad, {name: p.grad for name, p in lm.named_parameters()}


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi"])
@pytest.mark.parametrize("dual", [False, True])
def test_sparse_without_pruning_is_the_reference(architecture, dual, make_lm, make_batch):
    lm, batch = make_lm(architecture), make_batch(groups=2, side="left")
    settings = {"v_norm": architecture != "phi", "dual": dual}
    dense, dense_weights, dense_grads = _step(lm, batch, attention="reference", **settings)
    sparse, sparse_weights, sparse_grads = _step(lm, batch, **settings)
    torch.testing.assert_close(sparse.loss, dense.loss)
    torch.testing.assert_close(sparse.baseline_loss, dense.baseline_loss)
    real = batch[1].bool()
    torch.testing.assert_close(sparse.logits[real], dense.logits[real], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sparse_weights, dense_weights, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(sparse_grads, dense_grads, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("v_norm", [True, False])
def test_the_reference_is_the_slow_loop(v_norm, make_lm, make_batch):
    lm, (ids, mask, weights) = make_lm("gemma2"), make_batch(groups=2, size=3)
    found, grad, _ = _step(lm, (ids, mask, weights), attention="reference", v_norm=v_norm)
    loss, _, _ = oracle(lm, ids, mask, weights, v_norm=v_norm)
    loss.backward()
    torch.testing.assert_close(found.loss, loss, atol=1e-5, rtol=0)
    off_diagonal = ~torch.eye(3, dtype=torch.bool).expand_as(weights)
    torch.testing.assert_close(grad[off_diagonal], weights.grad[off_diagonal], atol=1e-6, rtol=1e-4)


def test_what_the_reference_cannot_do_is_refused(make_lm, make_batch):
    lm, (ids, mask, weights) = make_lm().train(), make_batch()
    with pytest.raises(ObjectiveError, match=r"reference attends to every pair, got min_weight = 0\.1"):
        RevelaObjective(lm, read="published", attention="reference", min_weight=0.1)
    with pytest.raises(ObjectiveError, match="attention must be one of auto, triton, sdpa, reference"):
        RevelaObjective(lm, read="published", attention="dense")
    lm.gradient_checkpointing_enable()
    with pytest.raises(ObjectiveError, match="checkpointing"):
        RevelaObjective(lm, read="published", attention="reference")(ids, mask, weights=weights)
