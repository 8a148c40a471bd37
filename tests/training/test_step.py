"""However a step is cut into pieces, its gradients are those of the whole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from revela_rag.errors import TrainingError
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset
from revela_training.data.collate import GroupCollator
from revela_training.data.tokens import tokenize_for_lm, tokenize_for_retriever
from revela_training.data.units import make_units
from revela_training.loop.distributed import World
from revela_training.loop.model import RevelaModel, first_half
from revela_training.loop.step import Step
from revela_training.objective.lm import load_lm
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever

CONFIG = make_plan(
    AdaptConfig(
        revela_weight=1.0,
        group_size=4,
        groups_per_step=4,
        max_tokens=24,
        retriever_max_tokens=40,
        temperature=0.05,
        contrastive_weight=1.0,
    ),
    "linear",
)


@pytest.fixture
def parts(code_corpus, base_dir: Path, lm_dir: Path):
    """Build (model, batch) with a retriever that has moved: fresh LoRA has no gradient on half of its matrices."""

    def build(config: RunPlan, adapter: str, *, queries: bool = False) -> tuple[RevelaModel, dict[str, Any]]:
        torch.manual_seed(0)
        units = make_units(code_corpus.chunks)
        dataset = GroupDataset(
            units,
            group_size=config.group_size,
            length=config.groups_per_step,
            extra_pairs=8,
        )
        retriever = TrainableRetriever(
            str(base_dir), adapter=adapter, lora_rank=4, lora_dropout=config.lora_dropout, max_length=40
        )
        lm, tokenizer = load_lm(str(lm_dir))
        passages, asked, cached = None, None, None
        if adapter == "linear":
            vectors = retriever.embed_base(dataset.texts, "document", max_length=40)
            cached = (vectors, vectors, vectors)
        else:
            passages = tokenize_for_retriever(dataset.texts, retriever, "document")
            halves = [first_half(text) for text in dataset.texts]
            asked = tokenize_for_retriever(halves, retriever, "query") if queries else None
        model = RevelaModel(retriever, lm, config, cached=cached)
        model.retriever_learns = True
        model.train()
        with torch.no_grad():
            for parameter in retriever.trainable_parameters():
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
        reader = tokenize_for_lm(dataset.texts, tokenizer, max_tokens=config.max_tokens)
        collator = GroupCollator(reader, passages=passages, queries=asked)
        return model, collator([dataset[i] for i in range(config.groups_per_step)])

    return build


def gradients(model: RevelaModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def step_gradients(model: RevelaModel, batch: dict[str, Any], config: RunPlan) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    model.zero_grad()
    Step(model, config, world=World())(batch)
    return gradients(model)


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert any("retriever" in name for name in wanted) and any("lm." in name for name in wanted)
    for name, value in wanted.items():
        scale = float(value.abs().max())
        assert float((found[name] - value).abs().max()) <= 1e-4 * scale + 1e-9, name


@pytest.mark.parametrize(("adapter", "queries"), [("linear", False), ("lora", False), ("lora", True)])
@pytest.mark.parametrize(("dual", "distilled"), [(True, 0.0), (False, 0.0), (True, 0.5)])
def test_pieces_give_the_gradients_of_one_graph(
    parts, one_graph, adapter: str, queries: bool, dual: bool, distilled: float
) -> None:
    config = CONFIG.replace(lora_dropout=0.0, dual=dual, self_distillation=distilled)
    model, batch = parts(config, adapter, queries=queries)
    output = one_graph(model, batch)
    output["loss"].backward()
    whole = gradients(model)
    for changes in ({}, {"groups_at_once": 3}, {"groups_at_once": 1, "retriever_chunk": 5}, {"retriever_chunk": 3}):
        found = step_gradients(model, batch, config.replace(**changes))
        assert_same(found, whole)
    torch.manual_seed(7)
    model.zero_grad()
    result = Step(model, config.replace(groups_at_once=1), world=World())(batch)
    assert result.loss == pytest.approx(float(output["loss"].detach()), rel=1e-5)
    for name, value in output["metrics"].items():
        assert result.metrics[name] == pytest.approx(float(value), rel=1e-4), name


def test_the_gradient_cache_repeats_dropout(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revela_training.retriever.embedding._PIECE_TOKENS", (10**6, 10**6))
    model, batch = parts(CONFIG.replace(lora_dropout=0.3), "lora")
    # one chunk of all texts draws what the plain path draws
    plain = step_gradients(model, batch, CONFIG)
    cached = step_gradients(model, batch, CONFIG.replace(retriever_chunk=64))
    assert_same(cached, plain)
    again = step_gradients(model, batch, CONFIG.replace(retriever_chunk=5))
    assert any(not torch.allclose(again[n], plain[n], rtol=1e-3) for n in plain), "dropout drew nothing"


def test_chunks_with_dropout_are_the_gradient_of_what_was_read(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings made without a graph and again with one are equal bit for bit, dropout included."""
    model, batch = parts(CONFIG.replace(lora_dropout=0.3), "lora", queries=True)
    made: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    encode = model.encode

    def watched(features: Any) -> torch.Tensor:
        out = encode(features)
        made[torch.is_grad_enabled()].append(out.detach().clone())
        return out

    monkeypatch.setattr(model, "encode", watched)
    step_gradients(model, batch, CONFIG.replace(retriever_chunk=5))
    assert len(made[True]) == len(made[False]) >= 8
    assert all(torch.equal(a, b) for a, b in zip(made[False], made[True], strict=True))


def test_a_group_of_256_texts_is_read_in_chunks(parts) -> None:
    config = CONFIG.replace(group_size=64, groups_per_step=1, max_tokens=8, lora_dropout=0.0, min_weight=0.004)
    model, batch = parts(config, "lora")
    rows = torch.arange(256) % 64
    batch = {
        "input_ids": batch["input_ids"][rows],
        "attention_mask": batch["attention_mask"][rows],
        "text_index": rows[None],
        "pair_index": batch["pair_index"],
        "pseudo_index": batch["pseudo_index"],
        **{name: batch[name] for name in ("asked_index", "answer_index", "asked", "answers")},
        "passages": {k: v[rows] if torch.is_tensor(v) else v for k, v in batch["passages"].items()},
    }
    whole = step_gradients(model, batch, config)
    assert_same(step_gradients(model, batch, config.replace(retriever_chunk=16)), whole)


def test_little_memory_makes_lora_encode_in_chunks(parts, monkeypatch, caplog) -> None:
    model, batch = parts(CONFIG.replace(lora_dropout=0.0), "lora")
    whole = step_gradients(model, batch, CONFIG)
    monkeypatch.setattr("revela_training.loop.step.available_memory", lambda: 2_000_000)
    step = Step(model, CONFIG, world=World())
    assert step.chunk is None
    model.retriever_learns = False  # the LM warms up: nothing is kept
    step(batch)
    assert step.chunk is None
    model.retriever_learns = True
    model.zero_grad()
    with caplog.at_level(logging.WARNING):
        step(batch)
    assert step.chunk == 16
    assert "of the 0.0 GB of memory that are free: encoding 16 texts at a time" in caplog.text
    assert_same(gradients(model), whole)
    for free in (None, 10**12):
        monkeypatch.setattr("revela_training.loop.step.available_memory", lambda free=free: free)
        step = Step(model, CONFIG, world=World())
        step(batch)
        assert step.chunk is None


class Fails:
    """Stands for a method that runs out of memory when it is given more than ``limit`` rows."""

    def __init__(self, method: Any, limit: int, error: BaseException) -> None:
        self.method, self.limit, self.error, self.times = method, limit, error, 0

    def __call__(self, first: Any, *args: Any, **kwargs: Any) -> Any:
        rows = len(first["input_ids"]) if isinstance(first, dict) else len(first)
        if rows > self.limit:
            self.times += 1
            raise self.error
        return self.method(first, *args, **kwargs)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_out_of_memory_in_the_lm_halves_and_goes_on(
    parts, adapter: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = CONFIG.replace(lora_dropout=0.0)
    model, batch = parts(config, adapter)
    wanted = step_gradients(model, batch, config)
    fails = Fails(model.read, 4, error)
    monkeypatch.setattr(model, "read", fails)
    step = Step(model, config, world=World())
    model.zero_grad()
    with caplog.at_level(logging.WARNING, logger="revela_training.loop.step"):
        step(batch)
    assert_same(gradients(model), wanted)
    assert (fails.times, step.groups_at_once) == (2, 1)
    assert "1 of 4 groups at once" in caplog.text
    model.zero_grad()
    step(batch)
    assert fails.times == 2, "it remembers what fits"


def test_out_of_memory_in_the_retriever_turns_to_chunks(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace(lora_dropout=0.0)
    model, batch = parts(config, "lora", queries=True)
    wanted = step_gradients(model, batch, config)
    monkeypatch.setattr(model, "encode", Fails(model.encode, 5, ERRORS[0]))
    step = Step(model, config, world=World())
    model.zero_grad()
    step(batch)
    assert_same(gradients(model), wanted)
    assert step.chunk is not None and step.chunk <= 5


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_a_single_group_that_does_not_fit_is_named(parts, adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = parts(CONFIG, adapter)
    monkeypatch.setattr(model, "read", Fails(model.read, 0, ERRORS[0]))
    with pytest.raises(TrainingError, match=r"group_size=4.*max_tokens=24.*Halve max_tokens"):
        Step(model, CONFIG, world=World())(batch)


def test_other_errors_are_not_taken_for_a_lack_of_memory(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = parts(CONFIG, "linear")
    monkeypatch.setattr(model, "read", Fails(model.read, 0, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        Step(model, CONFIG, world=World())(batch)


def test_the_warm_up_leaves_the_retriever_without_gradient(parts) -> None:
    for changes in ({}, {"retriever_chunk": 3}):
        model, batch = parts(CONFIG, "lora")
        model.retriever_learns = False
        found = step_gradients(model, batch, CONFIG.replace(**changes))
        assert found and not any("retriever" in name for name in found)


def test_bfloat16_changes_little_and_keeps_float32_weights(parts) -> None:
    config = CONFIG.replace(lora_dropout=0.0)
    model, batch = parts(config, "lora")
    exact = step_gradients(model, batch, config)
    model.zero_grad()
    Step(model, config, world=World(), bf16=True)(batch)
    rounded = gradients(model)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    different = [n for n in exact if not torch.equal(exact[n], rounded[n])]
    assert different, "nothing ran in bfloat16"
    for name in exact:
        if exact[name].norm() > 1e-4:
            cosine = torch.cosine_similarity(exact[name].flatten(), rounded[name].flatten(), dim=0)
            assert cosine > 0.97, (name, float(cosine))
