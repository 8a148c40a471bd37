"""The values are those of the loss as it was when dev/log was measured; what it means is tested in
tests/training/test_contrast.py."""

from __future__ import annotations

import doctest

import pytest
import torch

from revela_training.losses import ContrastiveLoss, contrastive


def unit(count: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


@pytest.mark.parametrize(
    ("share", "loss", "of_asked", "of_answers"),
    [
        (0.0, 8.586380004882812, 50.368587493896484, 52.36687469482422),
        (0.5, 7.8333587646484375, 42.90818786621094, 39.64979553222656),
    ],
)
def test_loss_and_gradients_are_what_they_were(share: float, loss: float, of_asked: float, of_answers: float) -> None:
    asked, answers = unit(6, 0).requires_grad_(), unit(9, 1).requires_grad_()
    batch = {
        "asked_index": torch.tensor([0, 2, 4, 6, 8, 10]),
        "answer_index": torch.tensor([1, 3, 5, 7, 9, 11, 13, 15, 17]),
        "pair_index": torch.tensor([[0, 1], [2, 3], [4, 1], [-1, 13]]),
        "pseudo_index": torch.tensor([[0, 6, 7], [0, 8, 9], [0, -1, 15], [1, 10, 11], [1, 6, 5]]),
    }
    if share:
        batch |= {"base_asked": unit(6, 2), "base_answers": unit(9, 3)}
    found = ContrastiveLoss(0.05, share).over_kinds(asked, answers, batch)
    assert found is not None
    found.backward()
    gradients = (float(asked.grad.abs().sum()), float(answers.grad.abs().sum()))
    assert (float(found.detach()), *gradients) == pytest.approx((loss, of_asked, of_answers), rel=1e-6)


def test_it_computes_in_float32_under_autocast() -> None:
    queries, answers, identity = unit(4, 0), unit(7, 1), torch.arange(7)
    plain = ContrastiveLoss()(queries, answers, identity)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ContrastiveLoss()(queries, answers, identity), plain)


def test_the_example_runs() -> None:
    assert doctest.testmod(contrastive).attempted > 0
    assert doctest.testmod(contrastive).failed == 0
