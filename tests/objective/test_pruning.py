"""What `select_pairs` promises about dropped pairs, against the dense form, forward and gradient."""

from __future__ import annotations

import pytest
import torch

from revela_training.objective.attention import cross_attention, reference_attention, select_pairs
from revela_training.objective.weights import weights_from_similarity

SIZE, HEADS, LENGTH, WIDTH = 12, 2, 7, 8
SCALING = 0.5


def _measure(temperature: float, min_weight: float, v_norm: bool, seed: int):
    """Worst error over its bound, for output, cosines and queries; and the largest dropped mass of a row."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cosines = (normal(SIZE, SIZE) * 0.1 + 0.3)[None].requires_grad_()
    query, grad = (normal(SIZE, HEADS, LENGTH, WIDTH) for _ in range(2))
    key, value = (normal(SIZE, HEADS, LENGTH, WIDTH) for _ in range(2))
    query = (query * 2).requires_grad_()
    mask = torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (SIZE,), generator=generator)[:, None]
    settings = {"key_mask": mask, "scaling": SCALING, "v_norm": v_norm}

    def both(attend):
        weights = weights_from_similarity(cosines, temperature=temperature)
        output = attend(weights)
        return output, *torch.autograd.grad(output, (cosines, query), grad), weights.detach()[0]

    exact = both(lambda w: reference_attention(query, key, value, w, **settings))
    pruned = both(lambda w: cross_attention(query, key, value, select_pairs(w, min_weight), **settings))
    weights = exact[-1]
    dropped = (weights * (weights <= min_weight)).sum(-1)
    largest = 1.0 if v_norm else float(value.norm(dim=-1).max())
    norms = grad.norm(dim=-1)
    bounds = (
        (dropped * largest)[:, None, None],
        2 * dropped * norms.sum((1, 2)) * largest / temperature,
        dropped[:, None, None] * (4 if v_norm else 2 * largest) * SCALING * key.norm(dim=-1).max() * norms,
    )
    errors = (
        (exact[0] - pruned[0]).norm(dim=-1),
        (exact[1] - pruned[1])[0].abs().sum(-1),
        (exact[2] - pruned[2]).norm(dim=-1),
    )
    return [float((e.detach() / b.clamp_min(1e-12)).max()) for e, b in zip(errors, bounds, strict=True)], float(
        dropped.max()
    )


@pytest.mark.parametrize("temperature", [0.2, 0.05, 0.02])
@pytest.mark.parametrize("min_weight", [0.002, 0.01, 0.04])
@pytest.mark.parametrize("v_norm", [True, False])
def test_dropped_mass_bounds_output_and_gradients(temperature, min_weight, v_norm):
    for seed in range(3):
        ratios, dropped = _measure(temperature, min_weight, v_norm, seed)
        assert max(ratios) <= 1, ratios
        assert dropped <= (SIZE - 1) * min_weight
        if dropped > 1e-6:
            assert min(ratios) > 1e-4, "a bound that is never approached says nothing"


def test_dropped_mass_is_there_to_be_bounded():
    assert _measure(0.05, 0.04, True, 0)[1] > 0.1


@pytest.mark.parametrize("v_norm", [True, False])
def test_the_bound_of_the_output_is_reached(v_norm):
    """One key, one dropped source: the text then misses exactly the dropped weight times what it would have read."""
    value = torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, 1, 1, 4).contiguous()
    ones = torch.ones_like(value)
    weights = torch.tensor([[[0, 0.9, 0.1], [0.5, 0, 0.5], [0.5, 0.5, 0]]], dtype=torch.float64)
    settings = {"key_mask": None, "scaling": 1.0, "v_norm": v_norm}
    exact = reference_attention(ones, ones, value, weights, **settings)
    pruned = cross_attention(ones, ones, value, select_pairs(weights, 0.2), **settings)
    largest = 1.0 if v_norm else 8.0
    assert float((exact - pruned)[0].norm()) == pytest.approx(0.1 * largest, rel=1e-5)
