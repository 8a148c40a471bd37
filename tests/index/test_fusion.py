import math

import numpy as np
import pytest

from revela_rag.fusion import (
    COSINE_STEP,
    candidates,
    cosine_step,
    dense_share,
    fused_scores,
    largest,
)


def by_hand(cosines, lexical, w=0.5):
    """(w p + (1 - w) q) * p^w * q^(1 - w), with both distributions and their steps written out."""
    step = max(1.25, max(lexical) / 12)
    p = [math.exp(c / 0.05) for c in cosines]
    q = [math.exp(s / step) for s in lexical]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    both = [(w * x + (1 - w) * y) * x**w * y ** (1 - w) for x, y in zip(p, q, strict=True)]
    return [x / sum(both) for x in both]


@pytest.mark.parametrize(
    ("cosines", "lexical"),
    [
        ([0.6, 0.5, 0.65, -0.2], [0.0, 8.0, 0.0, 2.0]),
        ([0.6, 0.5, 0.65, -0.2], [0.0, 100.0, 30.0, 60.0]),
        ([0.1], [3.0]),
        ([0.3, 0.3], [0.0, 0.0]),
    ],
)
def test_scores_by_hand(cosines, lexical):
    scores = fused_scores(np.array(cosines), np.array(lexical))
    assert scores == pytest.approx(by_hand(cosines, lexical)) and scores.sum() == pytest.approx(1)


def test_the_side_that_stands_out_decides():
    # words know one document far better than the rest, cosines hardly tell them apart, and the other way round
    assert fused_scores(np.array([0.50, 0.49, 0.48]), np.array([3.0, 2.8, 12.0])).argmax() == 2
    assert fused_scores(np.array([0.80, 0.49, 0.48]), np.array([3.0, 2.8, 3.5])).argmax() == 0
    # what both place second beats what each places first alone
    assert fused_scores(np.array([0.6, 0.57, 0.2]), np.array([1.0, 9.0, 10.0])).argmax() == 1


def test_scores_stay_finite_far_apart():
    scores = fused_scores(np.linspace(-1, 1, 50), np.linspace(1e6, 0, 50))
    assert np.isfinite(scores).all() and (scores > 0).all() and scores.sum() == pytest.approx(1)
    assert fused_scores(np.zeros(0), np.zeros(0)).shape == (0,)


def test_candidates_beyond_the_best_hundred_change_no_score():
    rng = np.random.default_rng(1)
    cosines, lexical = rng.uniform(-0.2, 0.9, 500), rng.exponential(5, 500) * (rng.random(500) > 0.2)
    core = candidates(cosines, lexical)
    alone = fused_scores(cosines[core], lexical[core])
    assert 100 < len(core) < 200 and alone.sum() == pytest.approx(1)
    assert fused_scores(cosines, lexical)[core] == pytest.approx(alone)


def test_a_better_score_never_ranks_lower():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cosines, lexical = rng.uniform(-0.2, 0.9, 30), rng.exponential(5, 30) * (rng.random(30) > 0.4)
        before = fused_scores(cosines, lexical)
        better = cosines.copy()
        better[7] += 0.05
        assert (fused_scores(better, lexical) > fused_scores(better, lexical)[7]).sum() <= (before > before[7]).sum()


def test_candidates_come_from_both_sides_and_ties_go_to_the_first():
    cosines, words = np.array([0.5, 0.9, 0.5, 0.1, 0.0]), np.array([0.0, 0.0, 0.0, 2.0, 0.0])
    assert candidates(cosines, words, 2).tolist() == [0, 1, 3]
    assert largest(cosines, 2).tolist() == [0, 1] and largest(cosines, 9).tolist() == [0, 1, 2, 3, 4]


def test_without_words_in_common_it_is_dense_order():
    scores = fused_scores(np.array([0.5, 0.5, 0.1]), np.zeros(3))
    assert scores[0] == scores[1] > scores[2] and fused_scores(np.zeros(0), np.zeros(0)).shape == (0,)


def test_it_checks_what_it_gets():
    for cosine, bm25 in ((float("nan"), 1.0), (0.5, float("inf")), (0.5, -1.0)):
        with pytest.raises(ValueError, match="finite"):
            fused_scores(np.array([cosine]), np.array([bm25]))
    with pytest.raises(ValueError, match="one length"):
        fused_scores(np.zeros(2), np.zeros(3))
    for step in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            fused_scores(np.zeros(2), np.zeros(2), cosine_step=step)


def cloud(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 24)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_step_follows_how_far_apart_a_model_puts_texts():
    spread = cloud(400)
    bunched = np.concatenate([spread, np.full((400, 1), 2.0, dtype=np.float32)], axis=1) / math.sqrt(5)
    near, far = (cosine_step(400, vectors.__getitem__) for vectors in (bunched, spread))
    assert near == pytest.approx(far / 5, rel=0.05)  # its cosines are (cosine + 4) / 5
    cosines = spread @ spread[:10].mean(axis=0)
    words = np.random.default_rng(1).uniform(0, 8, size=400)
    expected = fused_scores(cosines, words, cosine_step=far)
    assert fused_scores((cosines + 4) / 5, words, cosine_step=near) == pytest.approx(expected, rel=0.2)


def test_the_step_of_few_texts_is_the_usual_one():
    same = np.tile(cloud(1), (2000, 1))
    assert cosine_step(0, same.__getitem__) == cosine_step(1, same.__getitem__) == pytest.approx(COSINE_STEP)
    assert cosine_step(4, same.__getitem__) == pytest.approx(COSINE_STEP, rel=0.05)
    assert 0 < cosine_step(2000, same.__getitem__) < 0.01


def test_the_step_reads_a_sample():
    vectors, asked = cloud(5000), []

    def read(places: np.ndarray) -> np.ndarray:
        asked.append(places)
        return vectors[places]

    assert cosine_step(5000, read) == pytest.approx(0.45 * (vectors @ vectors.T)[np.triu_indices(5000, 1)].std(), 0.02)
    (places,) = asked
    assert len(np.unique(places)) == 1024 and places[0] == 0 and places[-1] == 4999


def test_the_share_of_the_cosines_by_hand():
    cosines, lexical = [0.6, 0.5, 0.65, -0.2], [0.0, 8.0, 0.0, 2.0]
    for share in (0.3, 0.7):
        scores = fused_scores(np.array(cosines), np.array(lexical), share=share)
        assert scores == pytest.approx(by_hand(cosines, lexical, share)) and scores.sum() == pytest.approx(1)
    assert fused_scores(np.array([0.6, 0.5]), np.array([1.0, 4.0]), share=0.3).argmax() == 1
    assert fused_scores(np.array([0.6, 0.5]), np.array([1.0, 4.0]), share=0.7).argmax() == 0


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        fused_scores(np.zeros(2), np.zeros(2), share=share)


def twins(count: int, apart: float) -> np.ndarray:
    """Pairs of texts in directions of their own, each other's nearest; the farther apart, the less."""
    rng = np.random.default_rng(0)
    centres, noise = rng.normal(size=(count, 64)), rng.normal(size=(2, count, 64))
    vectors = np.stack([centres + apart * noise[0], centres + apart * noise[1]], axis=1).reshape(2 * count, 64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_model_that_sees_sharply_counts_more():
    own = np.arange(400)
    sharp, blurred = (twins(200, apart) for apart in (0.3, 3.0))
    assert dense_share(own, sharp.__getitem__) == 0.65
    assert dense_share(own, blurred.__getitem__) == 0.45
    # what is near within one document says nothing of how well the model tells documents apart
    assert dense_share(own // 2, sharp.__getitem__) == 0.45
    # a model whose cosines all lie close together is as sharp as its nearest texts stand out
    bunched = np.concatenate([sharp, np.full((400, 1), 2.0, dtype=np.float32)], axis=1) / math.sqrt(5)
    assert dense_share(own, bunched.__getitem__) == 0.65


def test_the_share_follows_the_sharpness():
    own, shares = np.arange(400), [dense_share(np.arange(400), twins(200, a).__getitem__) for a in (0.92, 1.0, 1.02)]
    assert 0.65 > shares[0] > shares[1] > shares[2] > 0.45
    vectors = twins(200, 1.0)
    cosines = vectors @ vectors.T
    apart = cosines[~np.eye(400, dtype=bool)]
    nearest = np.where(np.eye(400, dtype=bool), -1, cosines).max(axis=1)
    assert dense_share(own, vectors.__getitem__) == pytest.approx(
        0.6 + 0.2 * ((nearest.mean() - apart.mean()) / apart.std() - 4.4), abs=1e-4
    )


def test_too_few_texts_or_all_alike_say_nothing():
    assert dense_share(np.arange(99), twins(200, 0.3).__getitem__) == 0.5
    assert dense_share(np.arange(400), np.tile(twins(1, 0.3)[:1], (400, 1)).__getitem__) == 0.5
    assert dense_share(np.zeros(400, dtype=np.int64), twins(200, 0.3).__getitem__) == 0.5


def test_the_share_reads_a_sample():
    vectors, asked = twins(4500, 0.3), []

    def read(places: np.ndarray) -> np.ndarray:
        asked.append(places)
        return vectors[places]

    assert 0.45 <= dense_share(np.arange(9000), read) <= 0.65
    (places,) = asked
    assert len(np.unique(places)) == 4096 and places[0] == 0 and places[-1] == 8999
