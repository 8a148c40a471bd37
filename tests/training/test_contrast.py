"""The contrastive term over kinds of queries, and how many steps it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from revela_training.assemble import plan_steps
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset
from revela_training.data.collate import GroupCollator
from revela_training.data.pseudo_queries import PseudoQuery
from revela_training.data.tokens import tokenize_for_retriever
from revela_training.data.units import Unit
from revela_training.loop.distributed import World
from revela_training.loop.model import RevelaModel
from revela_training.losses import ContrastiveLoss
from revela_training.objective.lm import load_lm
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever


@pytest.fixture
def model(base_dir: Path, lm_dir: Path) -> RevelaModel:
    retriever = TrainableRetriever(str(base_dir), adapter="linear")
    lm, _ = load_lm(str(lm_dir))
    vectors = torch.nn.functional.normalize(torch.randn(12, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    asked = vectors.flip(0)
    return RevelaModel(
        retriever, lm, make_plan(AdaptConfig(contrastive_temperature=0.1), "linear"), cached=(vectors, vectors, asked)
    )


def info_nce(asked: torch.Tensor, answers: torch.Tensor, same: list[tuple[int, int]] = ()) -> torch.Tensor:
    """Query by query: its own answer against all answers and the other queries."""
    losses = []
    for i, query in enumerate(asked):
        others = [answers[j] for j in range(len(answers)) if j != i and (i, j) not in same]
        others += [asked[j] for j in range(len(asked)) if j != i and (i, j) not in same]
        scores = torch.stack([query @ answers[i], *(query @ other for other in others)]) / 0.1
        losses.append(torch.logsumexp(scores, 0) - scores[0])
    return torch.stack(losses).mean()


def contrast(model: RevelaModel, pairs: torch.Tensor, pseudo: torch.Tensor) -> torch.Tensor | None:
    """The term over a batch in which every text stands once, in no particular order."""
    index = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    batch = {"pair_index": pairs, "pseudo_index": pseudo, "asked_index": index, "answer_index": index.flip(0)}
    term = ContrastiveLoss(model.settings.contrastive_temperature)
    return term.over_kinds(*(model.embed_role(batch, role) for role in ("asked", "answers")), batch)


def test_kinds_are_contrasted_apart_and_averaged(model: RevelaModel) -> None:
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5]])
    pseudo = torch.tensor([[0, 6, 7], [0, 8, 9], [1, 10, 7], [1, 11, 9], [1, 6, 5]])
    asked, passages = model.asked_cache, model.passage_cache
    assert asked is not None and passages is not None
    expected = [
        info_nce(asked[[0, 2, 4]], passages[[1, 3, 5]]),
        info_nce(asked[[6, 8]], passages[[7, 9]]),
        info_nce(asked[[10, 11, 6]], passages[[7, 9, 5]]),
    ]
    found = contrast(model, pairs, pseudo)
    assert found is not None
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-6)


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_self_distillation_takes_a_share_of_the_target_from_the_base(base_dir: Path, adapter: str, one_graph) -> None:
    retriever = TrainableRetriever(str(base_dir), adapter=adapter, lora_rank=4, lora_dropout=0.0)
    texts = [f"{word} of day {i}" for i, word in enumerate(["apple", "river", "engine", "window", "garden", "bridge"])]
    cached = (retriever.embed_base(texts, "document"),) * 3 if adapter == "linear" else None
    plan = make_plan(AdaptConfig(self_distillation=0.25), adapter)
    model = RevelaModel(retriever, None, plan, cached=cached).train()
    model.retriever_learns = True
    with torch.no_grad():
        for parameter in retriever.trainable_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    asked, answers = torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])
    batch = {
        "text_index": torch.arange(6)[None],
        "pair_index": torch.tensor([[0, 1], [2, 3], [4, 5]]),
        "pseudo_index": torch.zeros(0, 3, dtype=torch.long),
        "asked_index": asked,
        "answer_index": answers,
    }
    if adapter == "lora":
        store = tokenize_for_retriever(texts, retriever, "document")
        batch |= {"asked": store.batch(asked.numpy()), "answers": store.batch(answers.numpy())}
    found = one_graph(model, batch)["loss"]
    before, after = retriever.embed_base(texts, "document"), retriever.embed(texts, "document")
    assert float((before - after).abs().max()) > 1e-3

    def scores(vectors: torch.Tensor) -> torch.Tensor:
        own = vectors[asked]
        logits = torch.cat([own @ vectors[answers].T, own @ own.T], 1) / 0.05
        return logits.masked_fill(torch.cat([torch.zeros(3, 3), torch.eye(3)], 1).bool(), -1e9)

    target = 0.75 * torch.eye(3, 6) + 0.25 * scores(before).softmax(-1)
    expected = -(target * scores(after).log_softmax(-1)).sum(-1).mean()
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-4)
    found.backward()
    assert all(parameter.grad is not None for parameter in retriever.trainable_parameters())
    assert retriever.strength == 1.0


def test_two_queries_of_one_passage_are_no_negatives_of_each_other(model: RevelaModel) -> None:
    asked, passages = model.asked_cache, model.passage_cache
    assert asked is not None and passages is not None
    found = contrast(model, torch.tensor([[0, 1], [2, 1], [4, 5]]), torch.zeros(0, 3, dtype=torch.long))
    expected = info_nce(asked[[0, 2, 4]], passages[[1, 1, 5]], same=[(0, 1), (1, 0)])
    assert found is not None
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_an_answer_nobody_asks_for_is_a_negative(model: RevelaModel) -> None:
    asked, passages = model.asked_cache, model.passage_cache
    assert asked is not None and passages is not None
    pairs = torch.tensor([[-1, 3], [-1, 7], [0, 1], [2, 3]])
    pseudo = torch.tensor([[0, -1, 8], [0, 6, 7], [1, -1, 8]])
    expected = [
        info_nce(asked[[0, 2]], passages[[1, 3, 3, 7]], same=[(1, 2)]),
        info_nce(asked[[6]], passages[[7, 8]]),
    ]
    found = contrast(model, pairs, pseudo)
    assert found is not None
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-6)


def test_nothing_to_contrast_is_no_loss(model: RevelaModel) -> None:
    nothing = torch.zeros(0, 3, dtype=torch.long)
    assert contrast(model, torch.zeros(0, 2, dtype=torch.long), nothing) is None
    assert contrast(model, torch.tensor([[0, 1]]), nothing) is None


def test_lora_encodes_each_text_once_and_queries_with_their_prompt(base_dir: Path, one_graph) -> None:
    units = [Unit((f"question number {i}", f"answer number {i}"), "d", i, True) for i in range(8)]
    pseudo = ([PseudoQuery("span", f"span {i}", i % 2) for i in range(4)], ["passage zero", "passage one"])
    dataset = GroupDataset(units, group_size=4, length=2, extra_pairs=3, extra_negatives=2, pseudo=pseudo)
    texts = [*dataset.texts, *dataset.pseudo_texts]
    config = make_plan(AdaptConfig(self_distillation=0.0), "lora")
    retriever = TrainableRetriever(str(base_dir), adapter="lora", lora_rank=4, max_length=32)
    retriever.prompts["query"] = "find: "
    model = RevelaModel(retriever, None, config)
    model.retriever_learns = True
    collator = GroupCollator(
        None,
        passages=tokenize_for_retriever(texts, retriever, "document"),
        asked=tokenize_for_retriever(texts, retriever, "query"),
    )
    batch = collator([dataset[0], dataset[1]])
    assert set(model.roles(batch)) == {"asked", "answers"}, "nothing is encoded for an LM that is not there"
    for role, prompt, index in (("asked", "query", "asked_index"), ("answers", "document", "answer_index")):
        assert len(batch[index].unique()) == len(batch[index]) == len(batch[role]["input_ids"])
        wanted = retriever.encode([texts[i] for i in batch[index].tolist()], prompt)
        torch.testing.assert_close(model.embed_role(batch, role), wanted, atol=1e-5, rtol=0)
    rows = torch.cat([batch["pair_index"], batch["pseudo_index"][:, 1:]])
    assert set(batch["answer_index"].tolist()) == set(rows[:, 1].tolist())
    assert -1 not in batch["asked_index"].tolist()
    loss = one_graph(model, batch)["loss"]
    loss.backward()
    assert loss > 0 and any(p.grad is not None and p.grad.any() for p in retriever.trainable_parameters())


def test_lora_takes_fewer_steps(base_dir: Path) -> None:
    units = [Unit((f"q{i}", f"a{i}"), "d", i, True) for i in range(2000)]
    dataset = GroupDataset(units, group_size=4, length=1, extra_pairs=24)
    assert plan_steps(dataset, make_plan(AdaptConfig(contrastive_pairs=24), "lora"), World()).max_steps == 24


@pytest.mark.parametrize(("pairs", "joint"), [(10, 20), (1000, 40), (100_000, 150)])
def test_steps_follow_the_number_of_pairs(pairs: int, joint: int) -> None:
    units = [Unit((f"q{i}", f"a{i}"), "d", i, True) for i in range(min(pairs, 2000))]
    pseudo = [PseudoQuery("span", f"s{i}", i) for i in range(pairs)]
    dataset = GroupDataset(
        units, group_size=4, length=1, extra_pairs=64, pseudo=(pseudo, [f"p{i}" for i in range(pairs)])
    )

    def planned(adapter: Any = "linear", **changes: Any) -> RunPlan:
        return plan_steps(dataset, make_plan(AdaptConfig(**changes), adapter), World())

    assert planned(revela_weight=1.0, lm_warmup_steps=50, contrastive_pairs=64).max_steps == 50 + joint
    assert len(dataset) == 2 * (50 + joint)
    assert planned("lora", contrastive_weight=0.0).max_steps == 150
    assert planned(max_steps=7).max_steps == 7
    assert planned(contrastive_weight=0.0).max_steps == 300
