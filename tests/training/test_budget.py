"""What a time limit leaves to do, without models: speeds are given."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revela_training import budget
from revela_training.budget import Budget, Plan, Work, work_of
from revela_training.loop.distributed import World
from revela_training.plan import RunPlan
from revela_training.resolve import resolve_plans

LINEAR, LORA = (
    resolve_plans([], preset="prose", config=None, changes={"adapter": adapter, "base": "all-MiniLM-L6-v2"})[0]
    for adapter in ("linear", "lora")
)
#: A repository of 6,000 chunks: 9,000 texts to train on, 1,500 passages for queries, 5,000 documents to search.
WORK = Work((9000, 900_000.0), (1500, 200_000.0), (5000, 800_000.0), 900)
RATE = 4000.0  # tokens a second: 475 s of embedding


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(budget, "_measure", lambda *_: RATE)

    def plan(limit: float | None, *, cfg: RunPlan = LINEAR, ago: float = 0.0, share: float = 1.0) -> Plan:
        started = time.monotonic() - ago
        some = Budget(limit, started=started, world=World(), show=False)
        folder = tmp_path / f"{limit} {cfg.adapter} {ago} {share}"
        folder.mkdir(exist_ok=True)
        work = WORK if cfg is LINEAR else replace(WORK, texts=(9000, 0.0), pseudo=(1500, 0.0))
        return some.plan(folder, None, cfg, [], work, share=share)  # type: ignore[arg-type]

    return plan


def seconds(plan: Plan) -> float:
    """What the embedding of a plan takes."""
    texts, pseudo = (
        work[1] * plan.sizes[name][0] / work[0] for name, work in (("texts", WORK.texts), ("pseudo", WORK.pseudo))
    )
    return (texts + pseudo) / RATE + plan.judging


@pytest.mark.parametrize("limit", [None, 3600.0, 700.0])
def test_nothing_is_left_out_where_all_fits(planned: Any, limit: float | None) -> None:
    plan = planned(limit)
    assert plan.sampled == {} and plan.applied(LINEAR) is LINEAR


@pytest.mark.parametrize(("limit", "ago"), [(400.0, 0.0), (300.0, 0.0), (300.0, 60.0), (120.0, 10.0)])
def test_embedding_and_judging_are_sampled_to_fit(planned: Any, limit: float, ago: float) -> None:
    plan = planned(limit, ago=ago)
    assert 0.5 * (limit - ago) < seconds(plan) < 0.9 * limit - ago
    assert set(plan.sampled) == {"texts", "pseudo", "documents", "queries"}
    cfg = plan.applied(LINEAR)
    assert (cfg.max_training_texts, cfg.pseudo_queries) == (plan.sizes["texts"][0], plan.sizes["pseudo"][0])
    assert (cfg.max_eval_documents, cfg.max_eval_queries) == (plan.sizes["documents"][0], plan.sizes["queries"][0])
    share = plan.judging / seconds(plan)
    assert 0.35 < share < 0.5, "neither starves the other"


def test_a_limit_that_is_too_short_gives_the_smallest_job_and_says_so(
    planned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(5.0)
    assert {name: used for name, (used, _) in plan.sizes.items()} == budget._FEWEST
    assert "takes about 22 s here, more than is left of time_limit=5" in caplog.text


def test_lora_trains_on_all_and_is_judged_by_fewer(planned: Any) -> None:
    plan = planned(300.0, cfg=LORA)
    assert set(plan.sampled) == {"documents", "queries"}
    assert 100 < plan.judging < 145, "half is for its steps"
    assert planned(300.0, cfg=LORA, share=0.6).judging < 0.65 * plan.judging


def test_the_steps_take_what_is_left_and_judging_what_remains_then(planned: Any, tmp_path: Path) -> None:
    plan = planned(300.0)
    late = Budget(300.0, started=time.monotonic() - 120.0, world=World(), show=False)
    trained = late.for_training(plan, tmp_path, share=1.0)
    assert trained.training == pytest.approx(180.0 - 30.0 - plan.judging, abs=1.0)
    assert late.for_training(trained, tmp_path, share=1.0) is trained, "a run that goes on has the same time for steps"
    assert late.for_judging(plan, share=1.0) == plan.documents
    later = Budget(300.0, started=time.monotonic() - 240.0, world=World(), show=False)
    assert later.for_judging(plan, share=1.0) == pytest.approx(plan.documents * 45.0 / plan.judging, rel=0.05)
    over = Budget(300.0, started=time.monotonic() - 900.0, world=World(), show=False)
    assert over.for_training(plan, tmp_path, share=1.0).training == 30.0 and over.for_judging(plan, share=1.0) == 200


def test_a_plan_stands_when_a_run_goes_on(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = planned(300.0)
    monkeypatch.setattr(budget, "_measure", lambda *_: 1.0)
    assert planned(300.0).sizes == first.sizes, "or the vectors that are there would be of other texts"


def test_phases_are_told_with_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    some = Budget(None, started=0.0, world=World(), show=True)
    some.say("Embedding 9,000 texts to train on", 225.0, after=260.0)
    some.say("Training for 150 steps", None, after=200.0)
    some.say("Judging by 1,800 queries among 5,000 texts", 40.2)
    assert capsys.readouterr().err.splitlines() == [
        "Embedding 9,000 texts to train on: about 4 min, 8 min until the end",
        "Training for 150 steps",
        "Judging by 1,800 queries among 5,000 texts: about 40 s",
    ]


def test_work_counts_what_the_model_reads() -> None:
    work = work_of(["x" * 400, "x" * 4000], [], 100, LINEAR, length=256, times=2)
    assert work.texts == (2, 2 * (100 + 160)) and work.queries == 15
    assert work_of(["x" * 400], [], 100, LORA, length=256, times=1).texts == (1, 0.0)
