"""The quality bench on a toy set: every system, going on after a stop, and what the table says."""

from __future__ import annotations

import json

import pytest

SETTINGS = {
    "max_steps": 3,
    "lm_warmup_steps": 1,
    "group_size": 4,
    "contrastive_pairs": 8,
    "neighbours": 1,
    "lora_rank": 4,
    "max_tokens": 32,
    "retriever_max_tokens": 64,
    "retriever_lr": 0.01,
    "temperature": 0.05,
    "strengths": "[0.5,1.0]",
}


def arguments(toy, base, lm, output, **options):
    settings = [f"--set={name}={value}" for name, value in {**SETTINGS, "lm": lm}.items()]
    chosen = {"data": toy, "backbone": base, "output": output, "seeds": "0", "adapter": "linear", **options}
    return [*(f"--{name}={value}" for name, value in chosen.items()), *settings]


def results(output):
    found = [json.loads(path.read_text()) for path in (output / "results").glob("*/*/*.json")]
    return {result["system"]: result for result in found}


def test_every_system_and_going_on_after_a_stop(bench, toy, tiny_bert, tiny_lm, tmp_path, monkeypatch):
    call = arguments(toy, tiny_bert, tiny_lm, tmp_path)
    run = bench.systems.Bench.run

    def stopped(self, system, adapter, seed):
        if system == "published":
            raise KeyboardInterrupt
        return run(self, system, adapter, seed)

    monkeypatch.setattr(bench.systems.Bench, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench.run.main(call)
    assert set(results(tmp_path)) == {"bm25", "base", "contrastive", "ict", "simcse", "tsdae"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}

    monkeypatch.setattr(bench.systems.Bench, "run", run)
    bench.run.main(call)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found = results(tmp_path)
    assert set(found) == set(bench.systems.SYSTEMS)
    assert found["tsdae"]["status"] == "not run"
    assert {name for name, result in found.items() if result["status"] != "done"} == {"tsdae"}
    assert not list((tmp_path / "models").glob("*/*/*"))  # models are removed when they are scored

    table = (tmp_path / "table.md").read_text()
    heads = next(line for line in table.splitlines() if line.startswith("| set (queries)"))
    row = next(line for line in table.splitlines() if line.startswith("| toy (16)"))
    cells = dict(zip(heads.split(" | "), row.split(" | "), strict=True))
    for name in ("bm25", "base", "ict", "simcse", "contrastive", "published", "revela"):
        values = found[name]["scores"]["full"]["nDCG@10"].values()
        column = name if name in ("bm25", "base") else f"{name}/linear"
        assert cells[column].strip("*") == f"{sum(values) / 16:.3f}"
    values = found["default"]["scores"]["hybrid"]["nDCG@10"].values()
    assert cells["bm25+default/linear |"].strip("* |") == f"{sum(values) / 16:.3f}"
    assert "the linear adapter has none that learns" in table
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"scores-tiny-bert.png", "gains-tiny-bert.png"}

    def never(self, system, adapter, seed):
        raise AssertionError(f"{system} was run again")

    monkeypatch.setattr(bench.systems.Bench, "run", never)
    bench.run.main(call)
    with pytest.raises(AssertionError, match="was run again"):  # other settings are another result
        bench.run.main([*call, "--set=max_steps=2"])


def test_lora_trains_the_encoder(bench, toy, tiny_bert, tiny_lm, tmp_path):
    systems = "base,tsdae,default"
    options = {"systems": systems, "adapter": "lora", "limit-queries": 6, "limit-documents": 90}
    bench.run.main(arguments(toy, tiny_bert, tiny_lm, tmp_path, **options))
    found = results(tmp_path)
    assert {name: result["status"] for name, result in found.items()} == dict.fromkeys(found, "done")
    assert len(found["tsdae"]["scores"]["full"]["nDCG@10"]) == 6
    assert found["default"]["adapter"] == "lora"


@pytest.mark.parametrize("method", ["contrastive", "ict", "simcse", "tsdae"])
def test_lora_baselines_move_the_encoder(bench, toy, tiny_bert, method):
    from revela_training.config import AdaptConfig
    from revela_training.resolve import make_plan
    from revela_training.retriever.backbone import TrainableRetriever

    cfg = make_plan(AdaptConfig(retriever_lr=1e-2, max_steps=3), "lora")
    retriever = TrainableRetriever(tiny_bert, adapter="lora", lora_rank=4, max_length=64)
    before = retriever.embed(["def a river"], "document")
    texts = [f"the {noun} of day {i}" for i, noun in enumerate(["apple", "river", "engine", "window"])]
    step = bench.baselines.Step(texts, [bench.baselines.damaged(text) for text in texts][::-1])
    if method == "simcse":
        step = bench.baselines.Step(texts, texts)
    bench.baselines.train(method, retriever, [step] * 3, cfg, base=str(tiny_bert))
    assert (retriever.embed(["def a river"], "document") - before).abs().max() > 1e-4


def test_simcse_drops_out_in_the_encoder(bench, tiny_bert, monkeypatch):
    from revela_training.config import AdaptConfig
    from revela_training.resolve import make_plan
    from revela_training.retriever.backbone import TrainableRetriever

    retriever = TrainableRetriever(tiny_bert, adapter="lora", lora_rank=4, max_length=64)
    texts, views = ["the apple of day one", "the river of day two"], []

    def look(*_):
        views.extend(retriever.encode(texts, "document").detach() for _ in range(2))
        views.append([module.training for module in retriever.backbone.modules()])

    monkeypatch.setattr(bench.baselines, "_fit", look)
    step = bench.baselines.Step(texts, texts)
    plan = make_plan(AdaptConfig(retriever_lr=1e-2, max_steps=1), "lora")
    bench.baselines.train("simcse", retriever, [step], plan, base=str(tiny_bert))
    assert (views[0] - views[1]).abs().max() > 1e-3
    assert all(views[2]), "attention drops out with its module"


def test_training_sees_no_query_and_no_judgement(bench, toy, tiny_bert, tmp_path, monkeypatch):
    seen = []

    def remember(method, retriever, steps, cfg, *, base):
        seen.extend(text for step in steps for text in (*step.left, *step.right))

    monkeypatch.setattr(bench.baselines, "train", remember)
    task = bench.sets.BeirSet(toy).task(0)
    settings = {name: value for name, value in SETTINGS.items() if name != "strengths"}
    for method in ("contrastive", "ict", "simcse"):
        bench.systems.Bench(str(tiny_bert), task, settings, tmp_path).run(method, "linear", 0)
    assert len(seen) > 50
    assert not [text for text in seen if "unspoken wish" in text]
    assert not [chunk for chunk in task.corpus.chunks if "unspoken wish" in chunk.embedding_text]
    # and the pairs that the gate holds back are not trained on either
    from revela_training.data.units import split_pairs
    from revela_training.gate.held_back import evaluation_pairs

    choose, report = split_pairs(evaluation_pairs(task.corpus.chunks)[0], holdout=0.3, max_queries=1000)
    assert len(choose) > 5
    assert not {pair.query for pair in (*choose, *report)} & {text.strip() for text in seen}


def test_all_splits_but_train_count_together(bench, toy):
    task = bench.sets.BeirSet(toy).task(0)
    assert len(task.data.queries) == 16
    assert task.data.name == "toy/dev+test"
    assert len(bench.sets.BeirSet(toy, split="train").task(0).data.queries) == 4


def test_every_seed_of_the_standard_library_reports_on_other_docstrings(bench):
    from revela_rag.corpus import QUERY_ROLES, load_corpus

    code = "\n\n".join(
        f'def f{i}(x):\n    """Give back the number {i} times whatever it is."""\n    return x * {i} + len(str({i}))\n'
        for i in range(40)
    )
    each = bench.sets.StdlibSet(40)
    each._corpus = load_corpus([{"id": "f.py", "text": code}], deduplicate=False)
    first, again, second = each.task(0), each.task(0), each.task(1)
    assert first.digest == again.digest != second.digest
    assert first.data.queries.keys() != second.data.queries.keys()
    assert len(first.data.queries) == len(second.data.queries) == round(0.25 * len(each._corpus.chunks))
    texts = [chunk.embedding_text for chunk in first.corpus.chunks]
    texts += [part.text for chunk in first.corpus.chunks for part in chunk.parts]
    assert not [q for q in first.data.queries.values() if any(q in text for text in texts)]
    trained = [chunk for chunk in first.corpus.chunks if chunk.part(QUERY_ROLES)]
    assert len(trained) == len(each._corpus.chunks) - len(first.data.queries)


def test_a_failed_training_is_a_result(bench, toy, tiny_bert, tiny_lm, tmp_path):
    call = arguments(toy, tiny_bert, tiny_lm, tmp_path, systems="base,revela")
    bench.run.main([*call, "--set=group_size=4000"])  # more texts than there are
    found = results(tmp_path)
    assert (found["base"]["status"], found["revela"]["status"]) == ("done", "failed")
    assert "one group needs 4000" in found["revela"]["reason"]
    assert f"revela/linear (tiny-bert, failed): {found['revela']['reason']}" in (tmp_path / "table.md").read_text()
