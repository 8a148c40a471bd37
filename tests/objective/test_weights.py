from __future__ import annotations

import math

import pytest
import torch

from revela_training.objective.weights import ObjectiveError, similarity_weights


def _embeddings(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_matches_a_loop():
    queries, passages = _embeddings(4, 8), _embeddings(4, 8, seed=1)
    found = similarity_weights(queries, passages, temperature=0.3)
    for i in range(4):
        scores = [torch.cosine_similarity(queries[i], passages[j], dim=0) / 0.3 for j in range(4)]
        total = sum(math.exp(s) for j, s in enumerate(scores) if j != i)
        for j in range(4):
            expected = 0.0 if i == j else math.exp(scores[j]) / total
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-6)


def test_groups_are_independent():
    queries, passages = _embeddings(3, 5, 8), _embeddings(3, 5, 8, seed=1)
    found = similarity_weights(queries, passages, temperature=0.1)
    apart = [similarity_weights(q, p, temperature=0.1) for q, p in zip(queries, passages, strict=True)]
    torch.testing.assert_close(found, torch.stack(apart))


@pytest.mark.parametrize("standardize", [False, True])
def test_fp32_whatever_the_inputs_and_autocast(standardize):
    queries, passages = _embeddings(4, 8).bfloat16(), _embeddings(4, 8, seed=1).bfloat16()
    expected = similarity_weights(queries.float(), passages.float(), temperature=0.1, standardize=standardize)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity_weights(queries, passages, temperature=0.1, standardize=standardize)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_standardized_weights_follow_the_order_not_the_spread():
    angles = torch.tensor([0.0, 0.3, 0.7, 1.2])
    unit = torch.stack([angles.cos(), angles.sin()], -1)
    # the same scores, squeezed by 1000 towards 1, through a large common component
    scores = unit @ unit.T
    far = similarity_weights(unit, unit, temperature=0.7, standardize=True)
    common = torch.full((4, 1), math.sqrt(999.0))
    near = similarity_weights(
        torch.cat([unit, common], -1), torch.cat([unit, common], -1), temperature=0.7, standardize=True
    )
    assert scores.std() > 0.1
    torch.testing.assert_close(near, far, atol=2e-3, rtol=0)


def test_standardizing_equal_scores_keeps_a_finite_gradient():
    queries = torch.ones(3, 4, requires_grad=True)
    weights = similarity_weights(queries, torch.ones(3, 4), temperature=1.0, standardize=True)
    torch.testing.assert_close(weights, (1 - torch.eye(3)) / 2)
    weights[0, 1].backward()
    assert queries.grad.isfinite().all()


def test_pair_of_texts_reads_each_other_fully():
    assert similarity_weights(_embeddings(2, 4), _embeddings(2, 4, seed=1), temperature=0.1).tolist() == [
        [0, 1],
        [1, 0],
    ]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_temperature(temperature):
    with pytest.raises(ObjectiveError, match="temperature must be a finite number above 0"):
        similarity_weights(_embeddings(3, 4), _embeddings(3, 4), temperature=temperature)


@pytest.mark.parametrize(("left", "right"), [((3, 4), (4, 4)), ((4,), (4,)), ((2, 3, 4), (3, 4))])
def test_bad_shapes(left, right):
    with pytest.raises(ObjectiveError, match="share one shape"):
        similarity_weights(_embeddings(*left), _embeddings(*right), temperature=0.1)


def test_a_single_text_has_no_neighbours():
    with pytest.raises(ObjectiveError, match="B = 1"):
        similarity_weights(_embeddings(1, 4), _embeddings(1, 4), temperature=0.1)


def test_values_that_are_not_finite():
    broken = _embeddings(3, 4)
    broken[1, 2] = float("nan")
    with pytest.raises(ObjectiveError, match="passages hold values that are not finite"):
        similarity_weights(_embeddings(3, 4), broken, temperature=0.1)
