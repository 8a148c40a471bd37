"""The parts of the quality bench: cached vectors, adapters read back, averages, plots and the raw backbone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from revela_rag.evaluation import evaluate
from revela_rag.model.encoder import Encoder
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.export import export_model

TEXTS = ["a river", "def paints(window): ...", "the engine " * 40, "a river"]


def test_cached_vectors_are_those_of_the_backbone(bench, tiny_bert, tmp_path):
    plain = TrainableRetriever(tiny_bert, adapter="linear", max_length=32)
    expected = {length: plain.embed_base(TEXTS, "document", max_length=length) for length in (32, 64, None)}
    cache = bench.cache.VectorCache(tmp_path)
    cached = cache.retriever(tiny_bert, adapter="linear", max_length=32)
    for _ in range(2):
        for length, vectors in expected.items():
            assert torch.allclose(cached.embed_base(TEXTS, "document", max_length=length), vectors, atol=1e-6)
    # short texts once for all windows, the long one once per window
    assert cache.embedded == 2 + 3
    again = bench.cache.VectorCache(tmp_path)
    other = again.retriever(tiny_bert, adapter="linear")
    other.prompts["query"] = "ask: "
    assert torch.allclose(other.embed_base(TEXTS, "document"), expected[None], atol=1e-6)
    assert again.embedded == 0
    other.embed_base(TEXTS, "query")
    assert again.embedded == 3  # another prompt
    lora = again.retriever(tiny_bert, adapter="lora", lora_rank=2)
    assert torch.allclose(lora.embed_base(TEXTS, "document"), expected[None], atol=1e-6)
    assert again.embedded == 3  # what LoRA changes is never kept


def test_another_model_has_other_vectors(bench, tiny_bert, tmp_path):
    cache = bench.cache.VectorCache(tmp_path)
    first = cache.retriever(tiny_bert, adapter="linear")
    vectors = first.embed_base(TEXTS, "document")
    second = cache.retriever(tiny_bert, adapter="linear")
    with torch.no_grad():
        for parameter in second.backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(second.embed_base(TEXTS, "document"), vectors, atol=1e-3)


def test_what_is_scored_is_what_the_exported_model_gives(bench, toy, tiny_bert, tmp_path):
    retriever = TrainableRetriever(tiny_bert, adapter="linear")
    torch.nn.init.normal_(retriever.adapter.weight, std=0.3)
    torch.nn.init.normal_(retriever.adapter.bias, std=0.1)
    export_model(retriever, tmp_path / "model", strength=0.5, revela_json={})
    task = bench.sets.BeirSet(toy).task(0)
    measured = bench.systems.Bench(str(tiny_bert), task, {"precision": "fp32"}, tmp_path)
    embed = measured._embedder(retriever)
    encoder = Encoder(tmp_path / "model")
    assert np.allclose(embed(TEXTS, "document", 0.5), encoder.encode_documents(TEXTS), atol=1e-5)
    assert np.allclose(embed(TEXTS, "query", 0.5), encoder.encode_queries(TEXTS), atol=1e-5)
    assert np.allclose(embed(TEXTS, "query", 0.0), Encoder(tiny_bert).encode_queries(TEXTS), atol=1e-5)
    assert not np.allclose(embed(TEXTS, "document", 1.0), embed(TEXTS, "document", 0.5), atol=1e-2)


def result(system, seed, values, *, name="cats", variant="full", strength=1.0):
    metrics = {metric: dict(values) for metric in ("nDCG@10", "Recall@100", "MRR@10")}
    adapter = "" if system == "base" else "auto"
    place = {"system": system, "adapter": adapter, "backbone": "b", "set": name, "seed": seed}
    return {**place, "status": "done", "strength": strength, "scores": {variant: metrics}}


def test_seeds_are_averaged_query_by_query_and_sets_count_the_same(bench):
    queries = [f"q{i}" for i in range(60)]
    found = bench.summary.summarise(
        [
            result("base", None, dict.fromkeys(queries, 0.5)),
            result("default", 0, dict.fromkeys(queries, 0.7), variant="gated", strength=0.25),
            result("default", 1, {q: 0.9 if i % 2 else 0.1 for i, q in enumerate(queries)}, variant="gated"),
            result("base", None, dict.fromkeys(queries[:2], 0.4), name="dogs"),
            result("default", 0, dict.fromkeys(queries[:2], 0.3), name="dogs", variant="gated"),
        ]
    )
    rows = {(row["set"], row["column"]): row for row in found["rows"]}
    cats = rows["cats", "default"]
    assert cats["metrics"]["nDCG@10"] == pytest.approx(0.6)
    assert cats["seeds"] == [0, 1]
    assert cats["strengths"] == {"0": 0.25, "1": 1.0}
    assert cats["vs_base"]["difference"] == pytest.approx(0.1)
    assert (cats["vs_base"]["risen"], cats["vs_base"]["fallen"]) == (30, 30)
    overall = next(entry for entry in found["means"] if entry["column"] == "default")
    assert overall["metrics"]["nDCG@10"] == pytest.approx(0.45)
    assert overall["vs_base"]["difference"] == pytest.approx(0.0)
    assert overall["vs_base"]["worst"] == pytest.approx(-0.1)
    text = bench.table.markdown(found)
    assert "| cats (60) | 0.500 | 0.600* |" in text
    assert "| dogs (2) | 0.400 | 0.300* |" in text
    assert "| **mean** | 0.450 | 0.450 |" in text
    assert "0.600* (0.25, 1)" in text


def test_over_sets_is_sure_of_a_shift_and_unsure_of_noise(bench):
    rng = np.random.default_rng(1)
    noise = [rng.normal(0, 0.2, 200) for _ in range(3)]
    noise = [gain - gain.mean() for gain in noise]
    assert bench.summary.over_sets(noise)["p_value"] > 0.9
    shifted = bench.summary.over_sets([gain + 0.1 for gain in noise])
    assert shifted["difference"] == pytest.approx(0.1)
    assert shifted["p_value"] < 0.001
    assert shifted["low"] == pytest.approx(0.1 - 1.96 * 0.2 / 600**0.5, abs=0.005)


def test_settings_are_read_as_a_settings_file_has_them(bench):
    given = ["v_norm=false", "dual=True", "lm=None", "lm_lr=3e-3", "max_steps=7", "strengths=[0.5, 1.0]", "lm=a/b"]
    args = [part for entry in given for part in ("--set", entry)]
    settings = [
        bench.run.parse(["--stdlib", "10", "--output", "out", *args[i : i + 2]]).settings for i in range(0, 14, 2)
    ]
    assert [value for found in settings for value in found.values()] == [False, True, None, 0.003, 7, [0.5, 1.0], "a/b"]


def test_ways_of_fusing_are_measured_on_documents_and_on_passages(bench, toy, tiny_bert, tmp_path, capsys):
    found = bench.hybrid.main(["--data", str(toy), "--backbone", str(tiny_bert), "--output", str(tmp_path)])["toy"]
    assert set(found) == {name for table in bench.hybrid.COLUMNS for name in table}
    assert (found["bm25, k1 0.8"], found["hybrid, k1 0.8"]) == (found["bm25"], found["hybrid"]), "the default"
    assert all(0 <= value <= 1 for value in found.values()) and found["bm25"] > 0.5 > found["dense"]
    data = bench.sets.BeirSet(toy).task(0).data
    assert found["hybrid"] == pytest.approx(evaluate(f"hybrid:{tiny_bert}", data).mean("nDCG@10"), abs=1e-6)
    # every document is one passage here, so whose words are read makes no difference
    assert found["own words 1"] == pytest.approx(found["own words 0"], abs=0.02)
    assert "| toy |" in capsys.readouterr().out


def test_strengths_are_shown_as_the_gate_and_as_people_judge_them(bench, toy, tiny_bert, tmp_path, capsys):
    settings = ["--set=max_steps=3", "--set=retriever_lr=0.01", "--set=strengths=[0.25,0.5,1.0]"]
    call = [f"--data={toy}", f"--backbone={tiny_bert}", "--seeds=0,1", "--adapter=linear", f"--output={tmp_path}"]
    bench.run.main([*call, "--systems=base,default", *settings])
    with pytest.raises(SystemExit):  # the gate's strengths were not all scored
        bench.strengths.main([str(tmp_path)])
    bench.run.main([*call, "--systems=base,default", *settings, "--curves"])
    bench.strengths.main([str(tmp_path)])
    assert "| toy | " in capsys.readouterr().out
    assert (tmp_path / "strengths-tiny-bert.png").stat().st_size > 1000
    found = bench.strengths.curves(bench.summary.read(tmp_path / "results"))["tiny-bert"]["toy"]
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("results/*/toy/default-*.json"))]
    base = json.loads((tmp_path / "results/tiny-bert/toy/base.json").read_text())["scores"]
    for curve, result in zip(found, results, strict=True):
        assert set(curve.asked) == set(curve.hybrid) == set(curve.held_back) == {0.0, 0.25, 0.5, 1.0}
        for variant, strength in (("full", 1.0), ("gated", result["strength"])):
            gain = bench.summary.mean(result["scores"][variant]["nDCG@10"]) - bench.summary.mean(
                base["full"]["nDCG@10"]
            )
            assert curve.asked[strength] == pytest.approx(100 * gain)
        assert curve.held_back[0.5] == pytest.approx(100 * (result["choosing"]["0.5"] - result["choosing"]["0.0"]))


def test_the_table_of_strengths_averages_seeds(bench):
    rising = bench.strengths.Curve(
        {0.0: 0, 0.5: 2.0, 1.0: 4.0}, {0.0: 0, 0.5: 3.0, 1.0: 1.0}, {0.0: 0, 0.5: 1.0, 1.0: 0}, 0.5
    )
    falling = bench.strengths.Curve(
        {0.0: 0, 0.5: 2.0, 1.0: 1.0}, {0.0: 0, 0.5: 1.0, 1.0: -3.0}, {0.0: 0, 0.5: 0, 1.0: 0}, 0.0
    )
    row = bench.strengths.table({"set": [rising, falling]}).splitlines()[-1]
    assert row == "| set | 1.00, 0.50 | 0.5, 0 | +1.5, +0.5 | +2.0 at 0.5 | -1.0 |"


def test_what_was_not_run_is_said(bench):
    base = result("base", None, {"q": 0.5})
    failed = {**base, "system": "published", "adapter": "linear", "seed": 0, "status": "failed", "scores": {}}
    text = bench.table.markdown(bench.summary.summarise([base, {**failed, "reason": "No gradient reached it"}]))
    assert "published/linear (b, failed): No gradient reached it [cats, seed 0]" in text


def test_crops_and_damage_depend_on_the_text_alone(bench):
    text = "one two three four\nfive six seven eight nine ten"
    crop, rest = bench.baselines.cropped(text)
    assert (crop, rest) == bench.baselines.cropped(text)
    assert crop in text and 3 <= len(crop.split()) <= 5
    assert rest == text or crop not in rest
    assert bench.baselines.cropped("too short") is None
    ruins = bench.baselines.damaged("word " * 1000)
    assert 350 < len(ruins.split()) < 450
    assert bench.baselines.damaged("word") == "word"


def test_the_small_lm_is_a_mean_pooled_backbone(bench, tmp_path):
    folder = bench.backbones.resolve_backbone("small-lm", tmp_path)
    assert folder == bench.backbones.resolve_backbone("small-lm", tmp_path)
    model = Encoder(folder).model
    tokens = model.tokenizer(["def add(a, b): return a + b"], return_tensors="pt")
    with torch.no_grad():
        state = model[0].auto_model(**tokens).last_hidden_state.mean(1)[0].numpy()
    vector = Encoder(folder).encode_documents(["def add(a, b): return a + b", "a longer text " * 9])[0]
    assert np.allclose(vector, state / np.linalg.norm(state), atol=1e-4)
    retriever = TrainableRetriever(folder, adapter="linear")
    assert np.allclose(
        retriever.embed_base(["x = 1"], "query").numpy(), Encoder(folder).encode_queries(["x = 1"]), atol=1e-5
    )


def test_several_indexes_are_compared_with_one_and_with_a_perfect_router(bench, toy, tiny_bert, tmp_path):
    other = shutil.copytree(toy, tmp_path / "other")
    words = (other / "corpus.jsonl").read_text().replace("Find the", "Lose a")
    (other / "corpus.jsonl").write_text(words)
    parts = [bench.several.read(folder, str(tiny_bert), queries=8, documents=40) for folder in (toy, other)]
    assert all(id_.startswith("other/") for id_ in parts[1].data.corpus)
    found = bench.several.measure(parts, tmp_path / "work")
    assert set(found) == {"its own index", "all indexes", "all, by rank", "one index"}
    assert all(0 <= value <= 1 for values in found.values() for value in values)
    assert sum(found["its own index"]) >= sum(found["all indexes"]) >= sum(found["all, by rank"])
    lines = bench.several.table(parts, found).splitlines()
    assert len(lines) == 6 and lines[2] == "| its own index | 1.000 | 1.000 | 1.000 |"
