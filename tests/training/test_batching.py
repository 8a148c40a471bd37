from __future__ import annotations

import numpy as np
import pytest

from revela_rag.errors import CorpusError
from revela_training.data.batching import GroupDataset, bm25_neighbours, interleave_order, prefers_interleave
from revela_training.data.pseudo_queries import KINDS, PseudoQuery
from revela_training.data.units import Unit


def units(count: int, *, per_document: int = 1, pairs: bool = True) -> list[Unit]:
    texts = [(f"question {i}", f"answer {i}") if pairs else (f"text {i}",) for i in range(count)]
    return [Unit(t, f"d{i // per_document}", i % per_document, pairs) for i, t in enumerate(texts)]


def test_groups_have_exactly_b_distinct_texts_and_keep_pairs_together() -> None:
    dataset = GroupDataset(units(30), group_size=16, length=20)
    for group in (dataset[i] for i in range(20)):
        assert len(set(group.texts.tolist())) == 16
        assert {t // 2 for t in group.texts.tolist()} == {t // 2 for t in group.texts[::2].tolist()}
        assert len(group.pairs) == 8
        assert all(dataset.texts[q].startswith("question") for q, _ in group.pairs)


def test_groups_depend_on_seed_and_index_alone() -> None:
    first, again = GroupDataset(units(30), group_size=8, length=9), GroupDataset(units(30), group_size=8, length=9)
    other = GroupDataset(units(30), group_size=8, length=9, seed=1)
    assert first[7].texts.tolist() == again[7].texts.tolist()
    assert any(first[i].texts.tolist() != other[i].texts.tolist() for i in range(9))


def test_every_unit_is_a_seed_once_per_epoch() -> None:
    dataset = GroupDataset(units(12, pairs=False), group_size=4, length=24)
    for epoch in range(2):
        assert {int(dataset[epoch * 12 + i].texts[0]) for i in range(12)} == set(range(12))


def test_neighbours_come_first_and_never_the_seed_itself() -> None:
    dataset = GroupDataset(
        units(20, pairs=False), group_size=6, length=20, neighbours=lambda i: [i, (i + 1) % 20, (i + 2) % 20]
    )
    for group in (dataset[i] for i in range(20)):
        seed = int(group.texts[0])
        assert group.texts[1:3].tolist() == [(seed + 1) % 20, (seed + 2) % 20]


def test_extra_pairs_are_drawn_from_the_whole_corpus() -> None:
    dataset = GroupDataset(units(50), group_size=4, length=1, extra_pairs=20)
    assert dataset[0].pairs.shape == (20, 2)
    assert np.all(dataset[0].pairs[:, 1] - dataset[0].pairs[:, 0] == 1)


def test_negatives_are_answers_that_nobody_asks_for() -> None:
    pseudo = [PseudoQuery("span", f"span {i}", i) for i in range(8)]
    passages = [f"passage {i}" for i in range(8)]
    dataset = GroupDataset(
        units(50), group_size=4, length=2, extra_pairs=20, extra_negatives=30, pseudo=(pseudo, passages)
    )
    for group in (dataset[0], dataset[1]):
        queries, answers = group.pairs.T
        assert (queries >= 0).sum() == 20 and (queries == -1).sum() == 30
        assert all(dataset.texts[answer].startswith("answer") for answer in answers)
        assert len(set(answers[queries == -1].tolist())) == 30
        every = [*dataset.texts, *dataset.pseudo_texts]
        assert sorted(every[row[2]] for row in group.pseudo if row[1] == -1) == passages
    assert dataset[0].pairs.tolist() != dataset[1].pairs.tolist()


def test_a_corpus_smaller_than_one_group_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"gives 6 texts.*needs 16"):
        GroupDataset(units(3), group_size=16, length=1)


def test_interleaving_mixes_a_few_documents_and_loses_nothing() -> None:
    chapters = units(80, per_document=10, pairs=False)
    order = interleave_order(chapters)
    assert sorted(order) == list(range(80))
    for start in range(0, 80, 16):
        documents = [chapters[i].document_id for i in order[start : start + 16]]
        assert 2 <= len(set(documents)) <= 8
        assert max(documents.count(d) for d in documents) >= 2
    dataset = GroupDataset(chapters, group_size=16, length=5, interleave=True)
    assert sorted(t for i in range(5) for t in dataset[i].texts.tolist()) == list(range(80))


def test_long_documents_without_pairs_prefer_interleaving() -> None:
    assert prefers_interleave(units(80, per_document=10, pairs=False))
    assert not prefers_interleave(units(80, per_document=10))
    assert not prefers_interleave(units(80, pairs=False))


def test_bm25_neighbours_rank_related_units_and_skip_equal_ones() -> None:
    texts = ["red apple pie", "red apple pie", "red apple cake", "grey iron bridge", "long iron bridge"]
    found = bm25_neighbours([Unit((t,), str(i), 0, False) for i, t in enumerate(texts)])
    assert found(0)[0] == 2
    assert 1 not in found(0)
    assert found(3)[0] == 4


def test_pseudo_queries_are_drawn_by_kind_and_follow_the_texts() -> None:
    passages = [f"passage {i}" for i in range(6)]
    pseudo = [PseudoQuery(kind, f"{kind} {i}", i) for i in range(6) for kind in ("keywords", "span")]
    dataset = GroupDataset(units(50), group_size=4, length=2, extra_pairs=4, pseudo=(pseudo, passages))
    every = [*dataset.texts, *dataset.pseudo_texts]
    drawn = dataset[0].pseudo
    assert drawn[:, 0].tolist() == [0] * 4 + [1] * 4
    for kind, query, passage in drawn.tolist():
        name, number = every[query].split()
        assert name == KINDS[kind]
        assert every[passage] == f"passage {number}"
    assert len(dataset.pseudo_texts) == 6 * 3
    assert dataset[0].pseudo.tolist() == drawn.tolist() != dataset[1].pseudo.tolist()


def test_a_corpus_without_pairs_still_contrasts_pseudo_queries() -> None:
    singles = [Unit((f"text {i}",), f"d{i}", 0, False) for i in range(8)]
    pseudo = [PseudoQuery("span", f"span {i}", i) for i in range(8)]
    dataset = GroupDataset(
        singles, group_size=4, length=1, extra_pairs=3, pseudo=(pseudo, [f"passage {i}" for i in range(8)])
    )
    assert dataset[0].pairs.shape == (0, 2)
    assert dataset[0].pseudo.shape == (3, 3)
    assert dataset.contrasts == 8
