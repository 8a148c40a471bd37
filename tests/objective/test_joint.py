"""Joint reading as pure tensor functions: who finds which tokens, and one softmax over all of them."""

from __future__ import annotations

import pytest
import torch

from revela_training.objective.attention import causal_mask, joint_attention, plan_buckets, select_pairs

_REAL = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.bool)


def _tensors(*, heads=4, kv_heads=2, size=6, value_size=6, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = [(3, heads, 4, size)] + [(3, kv_heads, 4, s) for s in (size, value_size)] * 2
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def _weights(dtype=torch.float64):
    rows = [[0, 0.7, 0.3], [0.5, 0, 0.5], [0.98, 0.02, 0]]
    return torch.tensor([rows], dtype=dtype, requires_grad=True)


def _read(inputs, weights, *, buckets=4, min_weight=0.0, softcap=None):
    pairs = select_pairs(weights, min_weight)
    log_weights = pairs.weights.clamp_min(1e-30).log()
    plan = plan_buckets(pairs, _REAL, buckets=buckets)
    return joint_attention(*inputs, plan, log_weights, own=causal_mask(_REAL), scaling=0.4, softcap=softcap)


_SEEN = causal_mask(_REAL).any(-1)[:, :, :, None]  # padding may read anything: nobody looks


def test_a_reader_finds_the_real_tokens_of_those_it_reads():
    (bucket,) = plan_buckets(select_pairs(_weights().detach(), 0.1), _REAL, buckets=1)
    found = {
        reader: tokens[there].tolist()
        for reader, tokens, there in zip(bucket.readers.tolist(), bucket.tokens, bucket.there, strict=True)
    }
    assert found == {0: [4, 5, 9, 10, 11], 1: [0, 1, 2, 3, 9, 10, 11], 2: [0, 1, 2, 3]}


def test_what_has_no_neighbour_left_reads_itself():
    weights = _weights().detach().masked_fill(torch.tensor([True, False, False])[:, None], 0.0)
    inputs = [x.detach() for x in _tensors()]
    read = _read(inputs, weights)
    query, key, value, *_ = inputs
    key, value = (x.repeat_interleave(2, 1) for x in (key, value))
    alone = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.4)
    torch.testing.assert_close(read[0], alone[0])


@pytest.mark.parametrize(("softcap", "value_size"), [(None, 6), (None, 8), (1.5, 6)])
def test_gradients_are_those_of_finite_differences(softcap, value_size):
    def function(*arguments):
        *inputs, weights = arguments
        return _read(inputs, weights, softcap=softcap) * _SEEN

    inputs = _tensors(heads=2, kv_heads=1, value_size=value_size)
    off = ~torch.eye(3, dtype=torch.bool)
    free = _weights()[0][off].detach().requires_grad_()

    def by_free(*arguments):
        *inputs, free = arguments
        return function(*inputs, torch.zeros(1, 3, 3, dtype=free.dtype).masked_scatter(off[None], free))

    assert torch.autograd.gradcheck(by_free, (*inputs, free), fast_mode=True)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_how_readers_are_put_together_changes_nothing(softcap):
    inputs, weights = _tensors(), _weights()
    one, each = (_read(inputs, weights, buckets=count, softcap=softcap) * _SEEN for count in (1, 3))
    torch.testing.assert_close(each, one)
    for ours, expected in zip(
        *(torch.autograd.grad(x.square().sum(), [*inputs, weights]) for x in (each, one)), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_written_out_it_is_the_same():
    inputs, weights = _tensors(), _weights()
    fused = _read(inputs, weights)
    written = _read(inputs, weights, softcap=1e9)  # a cap that caps nothing
    torch.testing.assert_close(fused * _SEEN, written * _SEEN)


def test_in_bf16_the_prior_keeps_its_precision():
    """A bias rounded to bf16 is off by up to 0.4 %: 0.02 for log W = -4."""
    weights = torch.tensor([[[0, 0.983, 0.017], [0.5, 0, 0.5], [0.5, 0.5, 0]]])
    exact = _read([x.detach().float() for x in _tensors()], weights)
    rounded = _read([x.detach().bfloat16() for x in _tensors()], weights)
    assert float((rounded.float() - exact)[0].norm() / exact[0].norm()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_cpu_kernel_is_used_forward_and_backward(dtype):
    inputs, weights = _tensors(dtype=dtype), _weights(dtype=torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        _read(inputs, weights, buckets=1).float().sum().backward()
    operations = {event.key: event.count for event in profile.key_averages()}
    assert operations["aten::_scaled_dot_product_flash_attention_for_cpu"] == 1
    assert operations["aten::_scaled_dot_product_flash_attention_for_cpu_backward"] == 1
    assert bool(weights.grad[0, 0, 1:].abs().min() > 0)


def test_a_window_ends_where_it_ends():
    real = torch.ones(1, 5, dtype=torch.bool)
    assert causal_mask(real, 2)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]
