from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from revela_rag.errors import TrainingError
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset
from revela_training.data.collate import GroupCollator
from revela_training.data.tokens import tokenize_for_lm, tokenize_for_retriever
from revela_training.data.units import make_units
from revela_training.loop.distributed import wants_shards
from revela_training.loop.model import RevelaModel, first_half
from revela_training.loop.trainer import latest_checkpoint, train
from revela_training.objective.lm import load_lm
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever

CONFIG = make_plan(
    AdaptConfig(
        group_size=4,
        groups_per_step=2,
        max_tokens=24,
        max_steps=8,
        lm_warmup_steps=3,
        neighbours=0,
        temperature=0.05,
        checkpoint_steps=4,
        contrastive_weight=0.0,
        lm_lr=1e-2,
        retriever_lr=1e-2,
        revela_weight=1.0,
    ),
    "linear",
)


@pytest.fixture
def parts(code_corpus, base_dir, lm_dir):
    """Build a fresh model of a configuration: (model, dataset, collator)."""

    def build(config: RunPlan, adapter: str = "linear"):
        torch.manual_seed(0)
        dataset = GroupDataset(
            make_units(code_corpus.chunks),
            group_size=config.group_size,
            length=config.max_steps * config.groups_per_step,
            extra_pairs=8 if config.contrastive_weight else 0,
        )
        retriever = TrainableRetriever(str(base_dir), adapter=adapter, lora_rank=4, max_length=config.max_tokens)
        lm, tokenizer = load_lm(str(lm_dir)) if config.revela_weight != 0 else (None, None)
        cached = None
        if adapter == "linear":
            vectors = retriever.embed_base(dataset.texts, "document", max_length=config.max_tokens)
            cached = (vectors, vectors, vectors)
        model = RevelaModel(retriever, lm, config, cached=cached)
        passages = tokenize_for_retriever(dataset.texts, retriever, "document") if adapter == "lora" else None
        reader = tokenizer and tokenize_for_lm(dataset.texts, tokenizer, max_tokens=config.max_tokens)
        return model, dataset, GroupCollator(reader, passages=passages)

    return build


def run(parts, config: RunPlan, folder: Path, *, adapter: str = "linear", resume: bool = False):
    model, dataset, collator = parts(config, adapter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    log = train(model, dataset, collator, config, folder=folder, resume=resume, show_progress=False)
    return model, log, before


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_lm_moves_first_then_the_retriever(parts, tmp_path: Path, adapter: str) -> None:
    warm = CONFIG.replace(max_steps=3, lm_warmup_steps=3)
    model, _, before = run(parts, warm, tmp_path / "warm", adapter=adapter)
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith("retriever.") for name in moved)

    model, log, before = run(parts, CONFIG, tmp_path / "joint", adapter=adapter)
    after = model.state_dict()
    assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith("retriever."))
    logged = next(entry for entry in log if "lm_loss" in entry)
    assert {"baseline_loss", "max_weight", "step"} <= set(logged)
    assert any(entry.get("retriever_grad_norm", 0) > 0 for entry in log)


def test_a_frozen_lm_stays_while_the_retriever_trains(parts, tmp_path: Path) -> None:
    model, dataset, collator = parts(CONFIG)
    model.objective.lm.requires_grad_(False)
    train(model, dataset, collator, CONFIG, folder=tmp_path, show_progress=False)
    assert set(model.state_dict()) == {"retriever.adapter.weight", "retriever.adapter.bias"}
    assert model.state_dict()["retriever.adapter.weight"].any()


def test_the_log_says_how_long_the_device_waited_for_input(parts, tmp_path: Path) -> None:
    _, log, _ = run(parts, CONFIG, tmp_path)
    shares = [entry["input_wait"] for entry in log if "input_wait" in entry]
    assert shares and all(0 <= share < 1 for share in shares)


def test_the_lm_learns(parts, tmp_path: Path) -> None:
    _, log, _ = run(parts, CONFIG.replace(max_steps=40, lm_warmup_steps=30), tmp_path)
    losses = [entry["lm_loss"] for entry in log if "lm_loss" in entry]
    assert losses[-1] < losses[0] - 0.3


def test_a_resumed_run_ends_with_the_same_weights(parts, tmp_path: Path) -> None:
    straight, _, _ = run(parts, CONFIG, tmp_path / "straight")
    run(parts, CONFIG, tmp_path / "cut")
    # take away everything after step 4, as if the process had been killed at step 5
    (last,) = (p for p in (tmp_path / "cut").glob("checkpoint-*") if p.name != "checkpoint-4")
    for file in sorted(last.rglob("*"), reverse=True):
        file.unlink()
    last.rmdir()
    resumed, log, _ = run(parts, CONFIG, tmp_path / "cut", resume=True)
    assert max(entry["step"] for entry in log) == CONFIG.max_steps
    for (name, a), b in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_an_incomplete_checkpoint_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text(json.dumps({}))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_nan_loss_stops_with_the_step_and_a_remedy(parts, tmp_path: Path) -> None:
    model, dataset, collator = parts(CONFIG)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lm_head" in n or "embed_tokens" in n).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss is nan at step 1.*Lower"):
        train(model, dataset, collator, CONFIG, folder=tmp_path, show_progress=False)


def test_saturated_weights_stop_with_a_remedy(parts, tmp_path: Path) -> None:
    frozen = CONFIG.replace(temperature=1e-7, lm_warmup_steps=0, max_steps=40)
    with pytest.raises(TrainingError, match="saturated"):
        run(parts, frozen, tmp_path)


def test_the_contrastive_term_is_used_only_when_asked_for(parts, tmp_path: Path) -> None:
    _, log, _ = run(parts, CONFIG.replace(contrastive_weight=1.0), tmp_path / "with")
    assert any("contrastive_loss" in entry for entry in log)
    _, log, _ = run(parts, CONFIG, tmp_path / "without")
    assert not any("contrastive_loss" in entry for entry in log)


def test_time_limit_shortens_the_run(parts, tmp_path: Path) -> None:
    _, log, _ = run(parts, CONFIG.replace(max_steps=5000, time_limit=3.0), tmp_path)
    assert max(entry["step"] for entry in log) < 4000


def test_a_short_time_limit_shortens_the_warm_up_too(parts, tmp_path: Path) -> None:
    _, log, _ = run(parts, CONFIG.replace(max_steps=5000, lm_warmup_steps=4999, time_limit=2.0), tmp_path)
    assert any("retriever_grad_norm" in entry for entry in log), "the retriever never moved"


def test_a_resumed_run_has_the_time_that_was_left(parts, tmp_path: Path) -> None:
    limited = CONFIG.replace(max_steps=5000, lm_warmup_steps=4, time_limit=2.0)
    _, log, _ = run(parts, limited, tmp_path)
    ended = max(entry["step"] for entry in log)
    assert ended == 5000 or (tmp_path / f"checkpoint-{ended}").is_dir(), "what the limit stopped was not kept"
    _, log, _ = run(parts, limited, tmp_path, resume=True)
    assert max(entry["step"] for entry in log) <= ended + 1


def test_a_resumed_run_may_have_another_limit_or_none(parts, tmp_path: Path) -> None:
    limited = CONFIG.replace(max_steps=5000, lm_warmup_steps=4, time_limit=1.0)
    _, log, _ = run(parts, limited, tmp_path)
    ended = max(entry["step"] for entry in log)
    assert ended < 5000
    more = limited.replace(time_limit=3600.0, max_steps=ended + 9)
    _, log, _ = run(parts, more, tmp_path, resume=True)
    assert max(entry["step"] for entry in log) == ended + 9
    _, log, _ = run(parts, more.replace(time_limit=None, max_steps=ended + 12), tmp_path, resume=True)
    assert max(entry["step"] for entry in log) == ended + 12


def test_a_limit_within_the_warm_up_says_so(parts, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"time_limit=0\.001 ended within .*: 1 of its 3 steps.*Raise time_limit"):
        run(parts, CONFIG.replace(time_limit=0.001), tmp_path)


def test_first_half_of_a_text() -> None:
    assert first_half("a b c d") == "a b"
    assert first_half("one") == "one"
    assert first_half("") == ""


def test_the_retriever_gradient_can_be_scaled(parts, one_graph) -> None:
    def gradient(scale: float) -> torch.Tensor:
        model, dataset, collator = parts(CONFIG.replace(revela_weight=scale))
        model.retriever_learns = True
        with torch.no_grad():
            for parameter in model.retriever.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        batch = collator([dataset[0], dataset[1]])
        batch["pair_index"] = batch["pair_index"][:0]
        one_graph(model, batch)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in model.retriever.parameters() if p.grad is not None])

    whole, half = gradient(1.0), gradient(0.5)
    assert whole.abs().sum() > 0
    assert torch.allclose(half, whole / 2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_without_the_objective_the_contrastive_term_trains_alone(parts, tmp_path: Path, adapter: str) -> None:
    config = CONFIG.replace(revela_weight=0.0, contrastive_weight=1.0, lm_warmup_steps=0, max_steps=30)
    model, log, before = run(parts, config, tmp_path, adapter=adapter)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(name.startswith("retriever.") for name in after)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    losses = [entry["contrastive_loss"] for entry in log if "contrastive_loss" in entry]
    assert losses[-1] < losses[0] and not any("lm_loss" in entry for entry in log)
    with pytest.raises(ValueError, match="no LM"):
        model.read(torch.zeros(4, 2), torch.ones(4, 2), torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))


def test_nothing_to_contrast_and_no_objective_is_an_error(parts, tmp_path: Path) -> None:
    config = CONFIG.replace(revela_weight=0.0, contrastive_weight=1.0, lm_warmup_steps=0, max_steps=30)
    model, dataset, collator = parts(config)
    alone = {"pair_index": torch.zeros(0, 2, dtype=torch.long), "pseudo_index": torch.zeros(0, 3, dtype=torch.long)}
    with pytest.raises(TrainingError, match="no pairs to contrast"):
        train(model, dataset, lambda groups: collator(groups) | alone, config, folder=tmp_path, show_progress=False)


def test_accelerates_own_sharding_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (wants_shards(False), wants_shards(True)) == (False, True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert wants_shards(False)
    assert "ACCELERATE_USE_FSDP" not in os.environ, "accelerate would wrap the model again"
