"""The pure tensor functions: pairs, attention between texts, chunked cross-entropy, and bad input."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from revela_training.objective import RevelaObjective
from revela_training.objective.attention import cross_attention, sdpa, select_pairs
from revela_training.objective.attention.sdpa import sdpa_cross_attention
from revela_training.objective.cross_entropy import chunked_cross_entropy
from revela_training.objective.weights import ObjectiveError


def _tensors(*, n=4, heads=4, kv_heads=2, length=5, size=6, value_size=6, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = (n, heads, length, size), (n, kv_heads, length, size), (n, kv_heads, length, value_size)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def _weights(groups=1, size=4, dtype=torch.float64):
    torch.manual_seed(1)
    scores = torch.randn(groups, size, size, dtype=dtype)
    return scores.masked_fill(torch.eye(size, dtype=torch.bool), float("-inf")).softmax(-1).requires_grad_()


_MASK = torch.arange(5) < torch.tensor([5, 1, 3, 4])[:, None]


@pytest.mark.parametrize(("v_norm", "softcap", "value_size"), [(True, None, 6), (False, None, 8), (True, 1.5, 6)])
def test_gradients_are_those_of_finite_differences(v_norm, softcap, value_size):
    def function(query, key, value, weights):
        settings = {"key_mask": _MASK[:3], "scaling": 0.4, "v_norm": v_norm, "softcap": softcap}
        return cross_attention(query, key, value, select_pairs(weights), **settings)

    inputs = *_tensors(n=3, heads=2, kv_heads=1, value_size=value_size), _weights(size=3)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_chunks_change_nothing(softcap):
    query, key, value = _tensors(dtype=torch.float32)
    pairs = select_pairs(_weights(dtype=torch.float32))
    settings = {"key_mask": _MASK, "scaling": 0.4, "v_norm": True, "softcap": softcap}
    whole = sdpa_cross_attention(query, key, value, pairs, **settings)
    chunked = sdpa_cross_attention(query, key, value, pairs, **settings, max_elements=1)
    torch.testing.assert_close(chunked, whole)
    for ours, expected in zip(
        *(torch.autograd.grad(x.square().sum(), (query, key, value)) for x in (chunked, whole)), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_the_fused_cpu_kernel_is_used_forward_and_backward():
    query, key, value = _tensors(dtype=torch.float32)
    pairs = select_pairs(_weights(dtype=torch.float32))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        cross_attention(query, key, value, pairs, key_mask=_MASK, scaling=0.4, v_norm=True).sum().backward()
    operations = {event.key: event.count for event in profile.key_averages()}
    assert operations["aten::_scaled_dot_product_flash_attention_for_cpu"] == 1
    assert operations["aten::_scaled_dot_product_flash_attention_for_cpu_backward"] == 1
    assert not any(name.startswith("aten::_softmax") for name in operations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("v_norm", [True, False])
def test_copies_of_texts_are_not_kept_until_the_backward(v_norm, dtype, monkeypatch):
    kept = []

    def spied(pack, unpack):
        def spy(tensor):
            kept.append(pack(tensor))
            return kept[-1]

        return torch.autograd.graph.saved_tensors_hooks(spy, unpack)

    monkeypatch.setattr(sdpa, "saved_tensors_hooks", spied)
    pairs = select_pairs(_weights(dtype=torch.float32))
    settings = {"key_mask": None, "scaling": 0.4, "v_norm": v_norm}
    sdpa_cross_attention(*_tensors(dtype=dtype), pairs, **settings).float().sum().backward()
    originals = [tensor for tensor, index in kept if index is not None]
    assert [len(tensor) for tensor in originals] == [4, 4, 4]
    copies = [tensor for tensor, index in kept if index is None and tensor.ndim == 4]
    assert len(copies) <= 1  # what the attention gave


def test_pairs_stay_within_their_group():
    pairs = select_pairs(_weights(groups=3, size=2).detach())
    assert pairs.readers.tolist() == [0, 1, 2, 3, 4, 5]
    assert pairs.sources.tolist() == [1, 0, 3, 2, 5, 4]


def test_pruning_everything_is_an_error():
    with pytest.raises(ObjectiveError, match=r"no weight is above min_weight = 0\.9"):
        select_pairs(_weights(), 0.9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunked_cross_entropy_is_cross_entropy(dtype):
    torch.manual_seed(0)
    hidden = torch.randn(600, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(17_000, 8, dtype=dtype, requires_grad=True)
    unused = torch.randn(3, requires_grad=True)
    targets = torch.randint(0, 17_000, (600,))

    def head(h):
        return 4 * torch.tanh(h @ weight.T / 4)

    ours = chunked_cross_entropy(hidden, targets, head, [weight, unused], vocabulary=17_000)
    expected = F.cross_entropy(head(hidden).float(), targets)
    torch.testing.assert_close(ours, expected)
    tolerance = {"atol": 1e-6, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 1e-4, "rtol": 2e-2}
    grads = (torch.autograd.grad(2 * loss, (hidden, weight)) for loss in (ours, expected))
    for found, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(found, wanted, **tolerance)


def test_bad_input_is_named(make_lm, make_batch):
    ids, mask, weights = make_batch(groups=2, size=4)
    objective = RevelaObjective(make_lm())
    with pytest.raises(ObjectiveError, match=r"do not fit weights for 1 group\(s\) of 4 texts"):
        objective(ids, mask, weights=weights[0])
    with pytest.raises(ObjectiveError, match=r"weights must be \(B, B\) or \(G, B, B\), got \(2, 4, 3\)"):
        objective(ids, mask, weights=weights[:, :, :3])
    with pytest.raises(ObjectiveError, match="diagonal of weights is not zero"):
        objective(ids, mask, weights=weights + 0.1)
    with pytest.raises(ObjectiveError, match=r"attention_mask is \(8, 8\)"):
        objective(ids, mask[:, 1:], weights=weights)
    with pytest.raises(ObjectiveError, match=r"labels is \(8, 8\)"):
        objective(ids, mask, ids[:, 1:], weights=weights)
    with pytest.raises(ObjectiveError, match="no token to predict"):
        objective(ids, mask, torch.full_like(ids, -100), weights=weights)
    with pytest.raises(ObjectiveError, match=r"min_weight must be in \[0, 1\), got -1"):
        RevelaObjective(make_lm(), min_weight=-1)
