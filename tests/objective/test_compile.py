"""torch.compile: a compiled decoder changes no gradient, an LM compiled as a whole is refused."""

from __future__ import annotations

import copy
import functools
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from revela_training import objective as library
from revela_training.objective.weights import ObjectiveError


@pytest.fixture(autouse=True, params=["joint", "published"])
def read(request, monkeypatch):
    """Every test for both ways to read neighbours."""
    own = functools.partial(library.RevelaObjective, read=request.param)
    monkeypatch.setattr(sys.modules[__name__], "RevelaObjective", own)
    return request.param


RevelaObjective = library.RevelaObjective


def _step(lm, batch):
    ids, mask, weights = batch
    weights = weights.detach().clone().requires_grad_()
    output = RevelaObjective(lm, min_weight=0.1)(ids, mask, weights=weights)
    output.loss.backward()
    return output.loss.detach(), weights.grad, {name: p.grad for name, p in lm.named_parameters()}


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("parts", ["decoder", "layers"])
def test_a_compiled_decoder_changes_no_gradient(parts, checkpointed, make_lm, make_batch, fresh_compiler):
    batch, lm = make_batch(), make_lm().train()
    expected = _step(copy.deepcopy(lm), batch)
    if checkpointed:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    counter = CompileCounter()
    for module in [lm.get_decoder()] if parts == "decoder" else lm.get_decoder().layers:
        module.compile(backend=counter)
    found = _step(lm, batch)
    assert counter.frame_count > 0
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_a_decoder_compiled_with_its_backward_changes_no_gradient(make_lm, make_batch, fresh_compiler):
    batch, lm = make_batch(), make_lm().train()
    expected = _step(copy.deepcopy(lm), batch)
    lm.get_decoder().compile(backend="aot_eager")
    torch.testing.assert_close(_step(lm, batch), expected, atol=1e-6, rtol=1e-4)


def test_an_lm_compiled_as_a_whole_is_refused(make_lm):
    with pytest.raises(ObjectiveError, match=r"compile its decoder, lm\.get_decoder\(\)\.compile\(\)"):
        RevelaObjective(torch.compile(make_lm(), backend="eager"))
    lm = make_lm()
    lm.compile(backend="eager")
    with pytest.raises(ObjectiveError, match="compiled as a whole"):
        RevelaObjective(lm)
