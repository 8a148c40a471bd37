"""Where the fusion begins to read what it is given, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from revela_rag.fusion import candidates, dense_share, fused_scores

from .test_fusion import twins


def test_a_table_of_scores_is_refused():
    with pytest.raises(ValueError, match="one length"):
        fused_scores(np.zeros((2, 2)), np.zeros((2, 2)))


def test_the_core_that_is_given_makes_up_the_distributions():
    cosines, lexical, core = np.array([0.6, 0.5, 0.4, 0.9]), np.array([1.0, 4.0, 2.0, 9.0]), np.array([0, 1, 2])
    scores = fused_scores(cosines, lexical, core=core)
    assert scores[core].sum() == pytest.approx(1) and scores.argmax() == 3 and scores[3] > 1
    assert fused_scores(cosines, lexical).sum() == pytest.approx(1)


def test_a_hundred_texts_can_tell_how_sharply_a_model_sees():
    vectors = twins(50, 0.3)
    assert dense_share(np.arange(99), vectors.__getitem__) == 0.5
    assert dense_share(np.arange(100), vectors.__getitem__) != 0.5


def test_texts_that_ask_are_spread_over_the_corpus():
    vectors = np.concatenate([twins(1000, 0.95)[:1000], twins(1000, 1.05)[1000:]])  # the first half is sharper
    own, shares = np.arange(2000), []
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, np.nan)
    for asking in (np.linspace(0, 1999, 400).astype(int), np.arange(400)):
        apart, nearest = cosines[asking], np.nanmax(cosines[asking], axis=1)
        shares.append(0.6 + 0.2 * ((nearest.mean() - np.nanmean(apart)) / np.nanstd(apart) - 4.4))
    assert dense_share(own, vectors.__getitem__) == pytest.approx(shares[0], abs=1e-3)
    assert 0.45 < shares[0] < 0.65 and abs(shares[0] - shares[1]) > 0.01


def test_words_propose_only_what_shares_one():
    assert candidates(np.array([0.1, 0.9, 0.5]), np.array([0.0, 0.0, 2.0]), 2).tolist() == [1, 2]
