from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from revela_rag.corpus import Corpus, load_corpus
from revela_rag.errors import CorpusError, DiskError, ModelError, TrainingError
from revela_rag.model.encoder import Encoder
from revela_training import AdaptConfig, adapt
from revela_training.assemble import build_retriever, warn_of_one_hot, within_positions
from revela_training.gate import run_gate
from revela_training.job import AdaptResult
from revela_training.loop import trainer
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever

SMALL = {
    "max_steps": 6,
    "lm_warmup_steps": 2,
    "group_size": 4,
    "groups_per_step": 1,
    "max_tokens": 24,
    "checkpoint_steps": 2,
    "show_progress": False,
}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Prose with structure: sections under headings."""
    folder = tmp_path_factory.mktemp("guide")
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ri", "mo", "ta", "ke", "lu") for b in ("ver", "tor", "ble", "ment", "ding", "nel")]
    for page in range(30):
        sections = []
        for _ in range(4):
            body = rng.choice(words, size=40)
            sections.append(f"## The {' '.join(body[:4])}\n\n{' '.join(body[4:])}.\n")
        (folder / f"page{page}.md").write_text("\n".join(sections))
    return load_corpus(folder, deduplicate=False)


@pytest.fixture
def run(code_corpus: Corpus, base_dir: Path, lm_dir: Path, tmp_path: Path):
    def job(output: str = "model", source=code_corpus, **changes):
        settings = {"base": str(base_dir), "lm": str(lm_dir), **SMALL, **changes}
        return adapt(source, output=tmp_path / output, **settings)

    return job


def test_the_whole_road_leaves_a_model_and_its_proof(run, tmp_path: Path) -> None:
    result = run(retriever_lr=0.05, contrastive_weight=1.0, max_steps=30)
    stored = json.loads((result.path / "revela.json").read_text())
    assert stored["summary"] == result.summary
    assert stored["config"]["max_steps"] == 30
    assert stored["corpus"]["chunks"] == 100
    gate = result.report["gate"]
    assert {"bm25", "base", "hybrid"} <= set(gate["evaluations"])
    assert result.adapted == (result.strength > 0)
    assert [p.name for p in tmp_path.iterdir()] == ["model"], "work folders are removed"
    vectors = Encoder(result.path).encode_queries(["Find the river that opens every day"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_run_that_does_not_help_returns_the_base(run, base_dir: Path) -> None:
    result = run(retriever_lr=1e-9)
    assert not result.adapted
    assert result.summary.startswith("kept the base model")
    texts = ["def f(): return 1", "apples and pears"]
    assert np.allclose(
        Encoder(result.path).encode_documents(texts), Encoder(base_dir).encode_documents(texts), atol=1e-6
    )


def test_without_the_objective_no_lm_is_needed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revela_training.assemble.load_lm", lambda *_, **__: pytest.fail("an LM was loaded"))
    result = run(revela_weight=0.0, retriever_lr=0.05)
    assert result.report["config"]["lm_warmup_steps"] == 0
    losses = [entry["contrastive_loss"] for entry in result.report["log"] if "contrastive_loss" in entry]
    assert len(losses) > 0 and losses[-1] < losses[0]


def test_lora_goes_the_same_road(run) -> None:
    result = run(adapter="lora", lora_rank=4, lm_training="lora", strengths=(1.0,))
    assert (result.path / "modules.json").is_file()


def test_lora_learns_from_keywords_and_spans_too(run) -> None:
    learning = {"retriever_lr": 3e-2, "max_steps": 24, "self_distillation": 0.0}
    result = run(adapter="lora", lora_rank=4, revela_weight=0.0, **learning)
    assert result.report["training"]["pseudo_texts"] > 0
    losses = [entry["contrastive_loss"] for entry in result.report["log"] if "contrastive_loss" in entry]
    assert losses[-1] < losses[0]


@pytest.fixture
def run_auto(guide: Corpus, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Adapt prose with the adapter left open, and the adapters that came to the gate, which refuses those named."""
    trained: list[str] = []

    def job(*refuses: str, **changes) -> tuple[AdaptResult, list[str]]:
        def judged(data, embed, strengths, *, strict, gentle):
            assert gentle is not strict  # LoRA is held to the base by self-distillation
            trained.append("lora" if strict else "linear")
            gate = run_gate(data, embed, strengths, strict=strict, gentle=gentle)
            return replace(gate, strength=0.0 if trained[-1] in refuses else 1.0, summary=f"judged {trained[-1]}")

        monkeypatch.setattr("revela_training.job.run_gate", judged)
        small = {**SMALL, "lora_rank": 4, "max_eval_queries": 10, "max_eval_documents": 40, **changes}
        return adapt(guide, output=tmp_path / "model", base=str(base_dir), **small), trained

    return job


def test_prose_with_structure_gets_lora_and_if_refused_the_linear_map(run_auto, tmp_path: Path) -> None:
    result, trained = run_auto()
    assert trained == ["lora"]
    assert (result.summary, result.report["config"]["adapter"], result.report["refused"]) == ("judged lora", "lora", [])
    trained.clear()
    result, trained = run_auto("lora")
    assert trained == ["lora", "linear"]
    assert (result.summary, result.report["config"]["adapter"]) == ("judged linear", "linear")
    assert result.report["refused"] == [{"adapter": "lora", "summary": "judged lora"}]
    assert json.loads((result.path / "revela.json").read_text())["refused"] == result.report["refused"]
    trained.clear()
    result, trained = run_auto("lora", "linear")
    assert (trained, result.adapted, result.strength) == (["lora", "linear"], False, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "work folders are removed"


def test_a_large_base_is_not_trained_inside_on_a_cpu(run_auto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revela_training.job._LARGEST_ON_CPU", 10)
    assert run_auto()[1] == ["linear"]
    assert run_auto(adapter="lora")[1] == ["linear", "lora"], "who asks for it gets it"


def test_an_adapter_that_cannot_be_trained_gives_way_to_the_next(run_auto, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model, *rest, **options):
        if model.settings.adapter == "lora":
            raise TrainingError("the loss is nan")
        return train(model, *rest, **options)

    train = trainer.train
    monkeypatch.setattr("revela_training.job.train", failing)
    result, trained = run_auto()
    assert trained == ["linear"]
    assert result.report["refused"] == [{"adapter": "lora", "summary": "the loss is nan"}]
    with pytest.raises(TrainingError, match="nan"):
        run_auto(adapter="lora")


def test_a_run_stopped_in_its_second_adapter_goes_on_there(run_auto, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("revela_training.job.cache", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_auto("lora")
    assert run_auto("lora", resume=True)[0].report["config"]["adapter"] == "linear"


def test_prose_without_structure_is_evaluated_on_cropped_queries(run) -> None:
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(300)]
    texts = [" ".join(rng.choice(words, size=30)) + "." for _ in range(80)]
    result = run(source=texts, preset="prose")
    assert result.report["gate"]["weak"]
    assert "cropped queries" in result.summary


def test_a_corpus_smaller_than_one_group_is_refused(run, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"(too few|one group needs)"):
        run(source=["One short text about apples.", "Another about pears and plums."], group_size=16)
    assert not (tmp_path / "model").exists()


def test_where_nothing_can_be_held_back_the_base_is_the_model(run, base_dir: Path) -> None:
    texts = [f"note {i}" for i in range(40)]
    result = run(source=texts)
    assert not result.adapted and result.strength == 0
    assert result.summary.startswith("kept the base model: of the corpus' 40 chunks 0 have a heading")
    assert json.loads((result.path / "revela.json").read_text())["summary"] == result.summary
    kept, base = (Encoder(folder).encode_queries(texts[:3]) for folder in (result.path, base_dir))
    np.testing.assert_allclose(kept, base, atol=1e-6)


@pytest.mark.parametrize(("count", "kept"), [(66, True), (67, False)])
def test_a_corpus_too_small_to_judge_is_not_embedded(
    run, monkeypatch: pytest.MonkeyPatch, count: int, kept: bool
) -> None:
    def train(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("revela_training.job.train", train)
    if kept:
        monkeypatch.setattr(TrainableRetriever, "embed_base", lambda *_, **__: pytest.fail("embedded"))
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(300)]
    texts = [" ".join(rng.choice(words, size=30)) + "." for _ in range(count)]
    if not kept:
        with pytest.raises(KeyboardInterrupt):
            run(source=texts)
        return
    assert run(source=texts).summary == (
        "kept the base model: of the corpus' 66 chunks 66 have a heading, a docstring or a title of three words with a "
        "text below, or are long enough to be cut in two: too few to tell a better model by. It takes about 67, of "
        "which 10 are held back to choose by and as many to report. Add documents, or longer ones."
    )


def test_that_a_model_will_be_replaced_is_told_first(run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model").mkdir()
    for name in ("revela.json", "modules.json"):
        (tmp_path / "model" / name).write_text("{}")
    with pytest.raises(CorpusError):
        run(source=["One short text about apples."])
    assert "model holds a model already, which this run replaces when it is done" in caplog.text
    assert (tmp_path / "model" / "modules.json").is_file()


def test_an_empty_folder_is_refused(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="empty"):
        run(source=tmp_path / "empty")


@pytest.mark.parametrize("name", ["base", "lm"])
def test_a_model_that_does_not_exist_is_named(run, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        run(**{name: str(tmp_path / "nowhere")})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_is_named(run) -> None:
    with pytest.raises(TrainingError, match="temprature"):
        run(temprature=1)


def test_an_output_that_is_something_else_is_refused_before_training(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("precious")
    monkeypatch.setattr("revela_training.job.train", lambda *_, **__: pytest.fail("trained before checking"))
    with pytest.raises((ModelError, DiskError, TrainingError), match="model"):
        run()
    assert (tmp_path / "model" / "thesis.txt").read_text() == "precious"


def test_a_full_disk_leaves_no_model_and_can_be_resumed(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("revela_training.retriever.export.write_sentence_config", full)
        with pytest.raises(DiskError, match="No space left"):
            run()
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(trainer.RevelaTrainer, "training_step", lambda *_: pytest.fail("trained again"))
    assert run(resume=True).path.is_dir()


def test_a_time_limit_is_no_reason_not_to_go_on_and_is_told(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    long = {"max_steps": 5000, "lm_warmup_steps": 0}
    with monkeypatch.context() as patch:
        patch.setattr("revela_training.job.run_gate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(time_limit=1.0, **long)
    with pytest.raises(TrainingError, match=r"changed since it was started: seed \(was 0\)\. Run with the same"):
        run(seed=1, resume=True, **long)
    result = run(time_limit=0.9, resume=True, **long)
    training = result.report["training"]
    assert 0 < training["steps"] < training["planned_steps"] == 5000
    assert f" (time limit: {training['steps']:,} of 5,000 steps)" in result.summary
    assert "time limit" not in run("whole").summary


def test_a_time_limit_is_one_on_all_of_it(
    run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    embedded: list[str] = []
    own = TrainableRetriever.embed_base

    def embed(self, texts, role, **options):
        embedded.extend(texts)
        return own(self, texts, role, **options)

    monkeypatch.setattr(TrainableRetriever, "embed_base", embed)
    monkeypatch.setattr("revela_training.budget._measure", lambda *_: 400.0)  # tokens a second
    monkeypatch.setattr("revela_training.budget._FEWEST", {"texts": 20, "pseudo": 5, "documents": 40, "queries": 12})
    result = run(revela_weight=0.0, time_limit=600.0)
    assert result.report["training"]["sampled"] == {} and "time limit" not in result.summary
    whole, embedded[:] = len(set(embedded)), []
    result = run(revela_weight=0.0, time_limit=30.0)
    sampled = result.report["training"]["sampled"]
    texts, documents = sampled["texts"], sampled["documents"]
    assert 20 <= texts[0] < texts[1] and 40 <= documents[0] < documents[1] == 100
    assert result.report["training"]["texts"] <= texts[0]
    said = f"{texts[0]} of {texts[1]} texts to train on, {documents[0]} of 100 texts to search"
    assert said in result.summary and 0 < len(set(embedded)) < 0.8 * whole
    assert result.report["config"]["time_limit"] == 30.0 and not caplog.text.count("more than is left")


def test_nan_leaves_no_model(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from revela_training.loop.step import Step

    real = Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda step, batch: replace(real(step, batch), loss=float("nan")))
    with pytest.raises(TrainingError, match="loss is"):
        run(max_steps=20)
    assert list(tmp_path.iterdir()) == []


def test_a_plain_language_model_becomes_a_retriever(run, lm_dir: Path) -> None:
    result = run(base=str(lm_dir), lm=None, contrastive_weight=0.0)
    report = result.report
    assert (report["config"]["adapter"], report["config"]["lm"]) == ("lora", str(lm_dir))
    log = report["log"]
    assert any(entry.get("baseline_loss", 0) > 0 for entry in log)
    assert any(entry.get("retriever_grad_norm", 0) > 0 for entry in log)
    prompts = json.loads((result.path / "config_sentence_transformers.json").read_text())["prompts"]
    assert (prompts["query"], prompts["document"]) == ("Query: ", "Passage: ")


KILLED = """
import sys
from revela_training import adapt
adapt(sys.argv[1], output=sys.argv[2], base=sys.argv[3], lm=sys.argv[4], max_steps=100, lm_warmup_steps=2, group_size=4,
      groups_per_step=1, max_tokens=24, checkpoint_steps=2, show_progress=False)
"""


@pytest.mark.slow
def test_a_killed_run_is_resumed(code_folder: Path, base_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    arguments = [str(code_folder), str(output), str(base_dir), str(lm_dir)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})
    checkpoints = tmp_path / ".model.work" / "checkpoints"
    deadline = time.monotonic() + 240
    while trainer.latest_checkpoint(checkpoints) is None and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    reached = int(trainer.latest_checkpoint(checkpoints).name.split("-")[1])  # type: ignore[union-attr]
    result = adapt(
        load_corpus(code_folder),
        output=output,
        base=str(base_dir),
        lm=str(lm_dir),
        resume=True,
        **{**SMALL, "max_steps": 100},
    )
    first = min(entry["step"] for entry in result.report["log"] if "train_runtime" not in entry)
    assert first <= reached < 100
    assert result.path.is_dir()


def test_max_words_of_a_settings_file_cut_the_chunks(base_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        text = " ".join(f"{['alpha', 'beta', 'gamma', 'delta'][i % 4]}{number * i % 17}." for i in range(120))
        (folder / f"{number}.md").write_text(text)
    (tmp_path / "settings.toml").write_text("max_words = 10\n")
    found = {}
    for config in (None, tmp_path / "settings.toml"):
        small = {name: value for name, value in SMALL.items() if name != "lm_warmup_steps"}
        result = adapt(folder, output=tmp_path / "model", base=str(base_dir), config=config, adapter="linear", **small)
        found[config] = result.report["corpus"]["chunks"]
    assert found[tmp_path / "settings.toml"] > 1.5 * found[None]  # which the window of the base cuts, too


def test_an_interruption_loses_a_block_of_embeddings_not_all(run, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[int] = []
    own = TrainableRetriever.embed_base

    def embed(self, texts, role, **options):
        embedded.append(len(texts))
        if len(embedded) == 4 and stop:
            raise KeyboardInterrupt
        return own(self, texts, role, **options)

    monkeypatch.setattr("revela_training.loop.workspace.EMBEDDED_AT_ONCE", 16)
    monkeypatch.setattr(TrainableRetriever, "embed_base", embed)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        run(adapter="linear", revela_weight=0.0)
    whole, stop = sum(embedded[:3]), False
    embedded.clear()
    run(adapter="linear", revela_weight=0.0, resume=True)
    resumed = list(embedded)
    embedded.clear()
    run("again", adapter="linear", revela_weight=0.0)
    assert whole == 48 and sum(resumed) == sum(embedded) - whole


def plan(**changes: object) -> RunPlan:
    return make_plan(AdaptConfig(**changes), "linear")


def test_lora_starts_from_its_seed(base_dir: Path) -> None:
    weights = []
    for state, seed in ((100, 0), (101, 0), (100, 1)):
        torch.manual_seed(state)
        retriever = build_retriever(make_plan(AdaptConfig(seed=seed, base=str(base_dir)), "lora"))
        weights.append(torch.cat([p.flatten() for p in retriever.parameters() if p.requires_grad]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_an_lm_of_few_positions_reads_fewer_tokens(lm_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = AutoModelForCausalLM.from_pretrained(lm_dir)
    reader.config.max_position_embeddings = 32
    assert within_positions(plan(max_tokens=64, read="published"), reader).max_tokens == 32
    assert "at most 32 tokens" in caplog.text
    for length in (24, 32):
        cfg = plan(max_tokens=length, read="published")
        assert within_positions(cfg, reader) is cfg
    assert within_positions(plan(max_tokens=32), reader).max_tokens == 16  # neighbours lie in a text's past
    assert within_positions(plan(), None) == plan()


def test_weights_that_stayed_one_hot_are_told(run, caplog: pytest.LogCaptureFixture) -> None:
    log = run(temperature=1e-6, contrastive_weight=0.0).report["log"]
    assert all(entry["max_weight"] > 0.999 for entry in log if "max_weight" in entry)
    assert (
        caplog.text.count("one-hot from the first step to the last") == 1 and "raise temperature=1e-06" in caplog.text
    )
    caplog.clear()
    for other in ([*log, {"max_weight": 0.9}], [{"contrastive_loss": 1.0}], []):
        warn_of_one_hot(other, plan())
    assert not caplog.text


def test_another_retriever_and_another_training_can_be_given(run, base_dir: Path) -> None:
    built, trained = [], []

    def build(plan: RunPlan) -> TrainableRetriever:
        built.append(build_retriever(plan))
        return built[-1]

    def training(model, dataset, collator, plan: RunPlan, **options) -> list[dict[str, float]]:
        trained.append((model.retriever, plan.max_steps, len(dataset)))
        with torch.no_grad():
            model.retriever.adapter.weight.fill_(0.25)
        return []

    result = run(build=build, trainer=training, adapter="linear", max_steps=4)
    assert [(retriever, steps) for retriever, steps, _ in trained] == [(built[0], 4)] and len(built) == 1
    assert result.report["log"] == [] and bool((built[0].adapter.weight == 0.25).all())
