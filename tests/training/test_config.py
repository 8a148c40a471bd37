from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest

from revela_rag.corpus import Chunk
from revela_rag.errors import TrainingError
from revela_training.config import GROUPS, PRESETS, AdaptConfig, load_config
from revela_training.describe import settings_table
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan, resolve_plans
from revela_training.settings import GateSettings


def resolve(chunks: list[Chunk], **options: Any) -> RunPlan:
    """What is tried first."""
    return resolve_plans(chunks, **options)[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("group_size", 1),
        ("max_steps", 0),
        ("holdout", 1.0),
        ("strengths", ()),
        ("adapter", "full"),
        ("self_distillation", 1.0),
        ("self_distillation", -0.1),
        ("query_part", "third"),
        ("time_limit", -1.0),
        ("min_weight", 1.0),
        ("v_norm", "false"),
        ("dual", 1),
        ("max_steps", 7.5),
        ("max_steps", True),
        ("retriever_lr", "1e-3"),
        ("strengths", 0.5),
        ("strengths", (0.5, "1")),
        ("base", None),
        ("time_limit", float("inf")),
        ("seed", -1),
        ("contrastive_temperature", 0.0),
        ("max_eval_queries", 0),
        ("checkpoint_steps", 0),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(TrainingError, match=name):
        AdaptConfig(**{name: value})


FIELDS = {
    name: (field, owner)
    for owner in (AdaptConfig, *GROUPS.values())
    for name, field in owner.model_fields.items()
    if name not in GROUPS
}


def bounds(annotation: Any, metadata: Any = ()) -> tuple[type, dict[str, float]]:
    """The type of a number, or of the numbers in a list, and what bounds it."""
    kinds = [part for part in get_args(annotation) if part not in (type(None), ...)]
    if get_origin(annotation) is Annotated:
        return bounds(kinds[0], [*metadata, *kinds[1].metadata])
    if kinds and get_origin(annotation) is not Literal:
        return bounds(kinds[0], metadata)
    marks = ("gt", "ge", "lt", "le")
    return annotation, {mark: getattr(part, mark) for part in metadata for mark in marks if hasattr(part, mark)}


NUMBERS = {name: bounds(field.annotation, field.metadata) for name, (field, _) in FIELDS.items()}
NUMBERS = {name: found for name, found in NUMBERS.items() if found[0] in (int, float)}


def test_there_are_numbers_of_both_types() -> None:
    assert len(NUMBERS) > 30 and {kind for kind, _ in NUMBERS.values()} == {int, float}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_bounded_on_both_sides_and_the_error_says_how(name: str) -> None:
    kind, found = NUMBERS[name]
    high = found["le"] + 1 if "le" in found else found["lt"]
    low = found["ge"] - 1 if "ge" in found else found["gt"]
    assert low < high < 2**40
    for value in (float("nan"), float("inf"), -1, high, low, "1", True):
        given = (value,) if name == "strengths" else value
        with pytest.raises(TrainingError, match=rf"^{name}(\[0\])?={re.escape(repr(value))} .* must be") as raised:
            AdaptConfig(**{name: given})
        assert f"{high - ('le' in found):,}" in str(raised.value) and "leave it out for" in str(raised.value)
    if kind is int:
        with pytest.raises(TrainingError, match=name):
            AdaptConfig(**{name: 7.5})


def test_names_alone_and_groups_say_the_same() -> None:
    alone = AdaptConfig(seed=3, group_size=8, lora_rank=4, holdout=0.5)
    for gate in (GateSettings(holdout=0.5), {"holdout": 0.5}):
        assert AdaptConfig(seed=3, objective={"group_size": 8}, lora={"lora_rank": 4}, gate=gate) == alone
    mixed = AdaptConfig(gate=GateSettings(holdout=0.5), strengths=(0.5,))
    assert (mixed.gate.holdout, mixed.gate.strengths) == (0.5, (0.5,))
    changed = alone.replace(gate={"strengths": [1.0]}, group_size=4)
    assert (changed.gate.holdout, changed.gate.strengths, changed.objective.group_size) == (0.5, (1.0,), 4)
    assert AdaptConfig(**alone.as_dict()) == alone
    assert len(FIELDS) == len(alone.as_dict()), "a name in two groups"
    with pytest.raises(TrainingError, match=r"Unknown setting strength\. Did you mean strengths\?"):
        AdaptConfig(gate={"strength": 1})
    with pytest.raises(TrainingError, match="gate=3 cannot be used: it must be a table, or a GateSettings"):
        AdaptConfig(gate=3)
    with pytest.raises(TrainingError, match=r"Unknown setting temprature\. Did you mean temperature\?"):
        AdaptConfig(temprature=1)


def test_a_settings_file_may_have_groups(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("seed = 3\n[gate]\nholdout = 0.5\nstrengths = [1.0]\n")
    assert load_config(file) == {"seed": 3, "holdout": 0.5, "strengths": (1.0,)}
    file.write_text("[gate]\nlora_rank = 3\n")
    with pytest.raises(TrainingError, match=r"Unknown setting lora_rank\. Settings are: holdout, "):
        load_config(file)


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_a_plan_has_every_setting_and_nothing_open(adapter: Any) -> None:
    cfg = AdaptConfig()
    plan = make_plan(cfg, adapter)
    assert plan.as_dict().keys() == cfg.as_dict().keys()
    decisions = {"lm", "time_limit", "max_training_texts", "retriever_chunk"}  # none, none, all, all at once
    types = get_type_hints(RunPlan)
    assert {name for name, kind in types.items() if type(None) in get_args(kind)} == decisions
    assert {name for name, value in plan.as_dict().items() if value is None} <= decisions
    assert make_plan(AdaptConfig(**plan.as_dict()), adapter).replace(fewest_steps=plan.fewest_steps) == plan


def test_the_table_of_settings_is_up_to_date() -> None:
    """``python -c "..." > docs/settings.md`` with what stands here writes it again."""
    written = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written.partition("\n\n|")[1:] == ("\n\n|", settings_table(AdaptConfig, GROUPS)[1:])
    meanings = re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", written, re.M)
    assert [name for name, _ in meanings] == list(FIELDS)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str) -> None:
    assert AdaptConfig().replace(**PRESETS[name])


def test_file_beats_preset_and_call_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("v_norm = true\nmax_steps = 7\nstrengths = [0.5, 1.0]\n")
    cfg = resolve([], preset="code", config=file, changes={"max_steps": 9, "lm": "some-lm"})
    assert (cfg.v_norm, cfg.max_steps, cfg.query_part, cfg.strengths) == (True, 9, "whole", (0.5, 1.0))


def test_every_lm_reads_jointly_but_for_the_published_preset() -> None:
    for preset in ("prose", "code"):
        for lm in ("bundled", "some-lm"):
            cfg = resolve([], preset=preset, config=None, changes={"lm": lm})
            assert (cfg.read, cfg.standardize, cfg.temperature, cfg.dual) == ("joint", True, 0.3, False)
    published = resolve([], preset="published", config=None, changes={"lm": "some-lm"})
    assert (published.read, published.standardize, published.temperature) == ("published", False, 1e-4)
    assert not resolve([], preset="code", config=None, changes={"lm": "some-lm", "read": "published"}).v_norm
    assert resolve([], preset="prose", config=None, changes={"lm": "some-lm", "read": "published"}).v_norm


def test_the_objective_is_on_where_an_lm_is_named_or_nothing_else_trains(tmp_path: Path) -> None:
    def resolved(**changes: object) -> RunPlan:
        return resolve([], preset="auto", config=None, changes=changes)

    assert (resolved().revela_weight, resolved().lm_warmup_steps) == (0.0, 0)
    assert resolved(lm="some-lm").revela_weight == 1.0
    assert resolved(contrastive_weight=0.0).revela_weight == 1.0
    bundled = resolved(lm="bundled")
    assert (bundled.revela_weight, bundled.lm_lr) == (1.0, 5e-4)
    assert resolved(revela_weight=0.3).revela_weight == 0.3
    assert resolved(revela_weight=0.0, lm="some-lm").revela_weight == 0.0
    assert resolve([], preset="published", config=None, changes={}).revela_weight == 1.0
    with pytest.raises(TrainingError, match="contrastive_weight"):
        AdaptConfig(revela_weight=0.0, contrastive_weight=0.0)


def test_a_plain_language_model_is_trained_inside_and_reads_for_itself(lm_dir: Path, base_dir: Path) -> None:
    raw = resolve([], preset="auto", config=None, changes={"base": str(lm_dir)})
    assert (raw.adapter, raw.lm, raw.revela_weight, raw.self_distillation) == ("lora", str(lm_dir), 1.0, 0.0)
    assert (raw.lora_rank, raw.retriever_lr, raw.strengths) == (32, 4e-4, (1.0,))
    other = resolve([], preset="auto", config=None, changes={"base": str(lm_dir), "lm": "bundled", "lora_rank": 8})
    assert (other.lm, other.lora_rank) == ("bundled", 8)
    trained = resolve([], preset="auto", config=None, changes={"base": str(base_dir)})
    assert (trained.lm, trained.revela_weight) == (None, 0.0)


def test_settings_that_change_nothing_without_an_lm_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def warned(preset: str = "auto", config: Any = None, **changes: object) -> str:
        caplog.clear()
        resolve([], preset=preset, config=config, changes=changes)
        return caplog.text

    said = warned(lm_lr=0.1, temperature=0.1, seed=1, max_tokens=None)
    assert 'no effect of temperature, lm_lr: give lm="bundled"' in said and said.count("WARNING") == 1
    file = tmp_path / "settings.toml"
    file.write_text("v_norm = true\nseed = 3\n")
    assert "no effect of v_norm:" in warned(config=file)
    assert "no effect of dual:" in warned(config=AdaptConfig(dual=True, seed=3))
    for preset in ("auto", "code", "published"):
        assert not warned(preset, seed=3)
    assert not warned(config=file, lm="some-lm")
    assert not warned(temperature=0.1, contrastive_weight=0.0)
    assert not warned(temperature=0.1, revela_weight=0.0)  # the control of a run with it


def test_a_frozen_lm_has_nothing_to_warm_up() -> None:
    frozen = resolve([], preset="prose", config=None, changes={"lm": "bundled", "lm_training": "frozen"})
    assert frozen.lm_warmup_steps == 0


def test_learning_rates_follow_what_is_trained() -> None:
    small = resolve([], preset="code", config=None, changes={"adapter": "linear"})
    large = resolve([], preset="code", config=None, changes={"adapter": "lora", "lm": "some-lm"})
    assert (small.retriever_lr, small.lm_lr) == (1e-3, 5e-4)
    assert (large.retriever_lr, large.lm_lr) == (5e-4, 1e-4)
    published = resolve([], preset="published", config=None, changes={})
    assert (published.retriever_lr, published.lora_rank, published.lora_dropout) == (1e-4, 256, 0.1)
    assert resolve([], preset="code", config=None, changes={"lm_lr": 0.5}).lm_lr == 0.5


def test_what_lora_encodes_in_every_step_is_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(**changes: object) -> RunPlan:
        return resolve([], preset="prose", config=None, changes={"adapter": "linear", **changes})

    def sizes(cfg: RunPlan) -> tuple[object, ...]:
        training = cfg.contrastive_pairs, cfg.contrastive_negatives, cfg.retriever_max_tokens
        return *training, cfg.max_eval_queries, cfg.max_eval_documents

    quarters, eighths = (0.25, 0.5, 0.75, 1.0), tuple(eighth / 8 for eighth in range(1, 9))
    linear, lora = resolved(), resolved(adapter="lora")
    assert (linear.self_distillation, lora.self_distillation) == (0.0, 0.5)
    assert (linear.checkpoint_steps, lora.checkpoint_steps) == (25, 5)  # LoRA takes 24 steps at most
    assert (*sizes(linear), linear.strengths) == (64, 256, 160, 1000, 5000, eighths)
    assert (*sizes(lora), lora.strengths) == (24, 16, 96, 400, 2000, (0.5, 1.0))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    lora = resolved(adapter="lora")
    assert (*sizes(lora), lora.strengths) == (24, 16, 160, 1000, 5000, quarters)
    given = resolved(adapter="lora", contrastive_negatives=0, strengths=(1.0,), retriever_max_tokens=8)
    assert (given.contrastive_negatives, given.strengths, given.retriever_max_tokens) == (0, (1.0,), 8)


def test_little_prose_tries_lora_first_and_all_else_the_linear_map() -> None:
    prose = [Chunk(id="p", text="A text.", document_id="p")]
    code = [Chunk(id="c", text="def f(): ...", document_id="c", kind="code")]

    def adapters(chunks: list[Chunk], preset: str = "auto", **changes: object) -> list[str]:
        found = resolve_plans(chunks, preset=preset, config=None, changes=changes)
        return [cfg.adapter for cfg in found]

    assert adapters(prose) == ["lora", "linear"]
    assert adapters(prose * 1500) == ["lora", "linear"]
    assert adapters(prose * 1501) == ["linear"]
    assert adapters(code) == adapters(prose, preset="code") == ["linear"]
    assert adapters(prose, lm="bundled") == adapters(prose, contrastive_weight=0.0) == ["linear"]
    assert adapters(prose, adapter="linear") == ["linear"]
    assert adapters(code, adapter="lora") == adapters(code, preset="published") == ["lora"]
    first, second = resolve_plans(prose, preset="auto", config=None, changes={"contrastive_pairs": 32})
    assert (first.self_distillation, second.self_distillation) == (0.5, 0.0)
    assert (first.contrastive_pairs, second.contrastive_pairs) == (32, 32)


@pytest.mark.parametrize(
    "wrong", [{"strengths": ()}, {"strengths": "0.5"}, {"strengths": ("a",)}, {"retriever_max_tokens": 0}]
)
def test_a_setting_that_may_be_left_out_is_checked_where_it_is_given(wrong: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        AdaptConfig(**wrong)  # type: ignore[arg-type]


def test_unknown_settings_and_presets_are_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"temprature": 1}')
    with pytest.raises(TrainingError, match="temprature"):
        load_config(file)
    with pytest.raises(TrainingError, match="poetry"):
        resolve([], preset="poetry", config=None, changes={})
    with pytest.raises(TrainingError, match=r"preset='published' and config=AdaptConfig\(...\) exclude each other"):
        resolve([], preset="published", config=AdaptConfig(seed=1), changes={})
    assert resolve([], preset="auto", config=AdaptConfig(seed=1), changes={"holdout": 0.5}).seed == 1
    with pytest.raises(TrainingError, match="Cannot read"):
        load_config(tmp_path / "missing.toml")


def test_few_steps_leave_room_to_train_the_retriever() -> None:
    cfg = resolve([], preset="prose", config=None, changes={"max_steps": 30, "lm_warmup_steps": 100})
    assert cfg.lm_warmup_steps < 30
