from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_bm25_table(beir: Path, revela: Callable[..., Any]) -> None:
    text = revela("evaluate", "bm25", "--data", beir).stdout
    assert "tiny/dev: 3 queries" in text and "nDCG@10" in text and "1.0000 [1.000, 1.000]" in text


def test_all_at_k_stands_beside_the_others(beir: Path, revela: Callable[..., Any]) -> None:
    text = revela("evaluate", "bm25", "--data", beir, "--all-at", "3", "--all-at", "1").stdout
    assert text.index("bm25") < text.index("MRR@10") < text.index("All@1") < text.index("All@3")
    assert text.count("[1.000, 1.000]") >= 4


def test_json_file_holds_every_query(beir: Path, tmp_path: Path, model: Path, revela: Callable[..., Any]) -> None:
    target = tmp_path / "new" / "result.json"
    revela("-q", "evaluate", model, "--data", beir, "--baseline", "bm25", "--json", target)
    result = json.loads(target.read_text(encoding="utf-8"))
    assert result["name"] == str(model)
    assert set(result["per_query"]) == {"nDCG@10", "Recall@100", "MRR@10"}
    assert set(result["per_query"]["nDCG@10"]) == {"q1", "q2", "q3"}
    assert result["metrics"]["Recall@100"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert result["baseline"]["metrics"]["nDCG@10"]["mean"] == pytest.approx(1.0)
    comparison = result["comparison"]["nDCG@10"]
    assert comparison["difference"] == pytest.approx(result["metrics"]["nDCG@10"]["mean"] - 1.0)
    assert not list(target.parent.glob("*.tmp"))


def test_baseline_shows_the_difference_and_who_moved(beir: Path, model: Path, revela: Callable[..., Any]) -> None:
    text = revela("-q", "evaluate", "bm25", "--data", beir, "--baseline", model).stdout
    assert "difference in nDCG@10" in text and " p " in text and text.count("1.0000 [1.000, 1.000]") >= 3
    assert "queries rose" in text and "0 fell" in text


def test_json_on_stdout_stands_alone(beir: Path, revela: Callable[..., Any]) -> None:
    result = json.loads(revela("evaluate", "bm25", "-d", beir, "--json", "-", "--limit-queries", "2").stdout)
    assert result["queries"] == 2


def test_hybrid_and_cache(beir: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    arguments = ("-q", "evaluate", f"hybrid:{model}", "-d", beir, "--cache", tmp_path / "cache", "--json", "-")
    first, second = (json.loads(revela(*arguments).stdout) for _ in range(2))
    assert first["per_query"] == second["per_query"]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_errors(beir: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    assert "choose one of: dev" in revela("evaluate", "bm25", "-d", beir, "--split", "test", code=1).stderr
    assert "nowhere" in revela("evaluate", "bm25", "-d", tmp_path / "nowhere", code=1).stderr
    assert "./gone" in revela("evaluate", "./gone", "-d", beir, code=1).stderr
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot write" in revela("evaluate", "bm25", "-d", beir, "--json", tmp_path / "file" / "x", code=1).stderr
    revela("evaluate", "bm25", code=2)
    revela("evaluate", "bm25", "-d", beir, "--limit-queries", "0", code=2)


def test_an_index_scores_as_its_model(beir: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    from revela_rag import Index, Retriever, evaluate

    revela("-q", "index", beir, "-m", model, "-o", tmp_path / "ix")
    by_model = evaluate(model, beir)
    with Index.open(tmp_path / "ix") as index:
        assert evaluate(index, beir).per_query == by_model.per_query
        assert evaluate(Retriever(index, mode="lexical"), beir).mean("nDCG@10") == pytest.approx(1.0)


def test_parts_of_a_search_are_compared(beir: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    arguments = ("-q", "evaluate", model, "--data", beir, "--cache", tmp_path / "cache")
    text = revela(*arguments, "--parts", "feedback,coverage").stdout
    rows = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert rows[0] == "tiny/dev:" and rows[-3:] == ["hybrid", "feedback", "coverage"]
    assert "Recall@100" in text and "ms a query" in text and "+0.000 [+0.000, +0.000]" in text
    whole = json.loads(revela(*arguments, "--parts", "all", "--json", "-").stdout)
    assert [part["name"] for part in whole["parts"]] == ["hybrid", "feedback", "mmr", "coverage", "maxsim"]
    assert "no such part" in revela(*arguments, "--parts", "rerank", code=1).stderr
    assert "--parts" in revela(*arguments, "--parts", "mmr", "--baseline", "bm25", code=2).stderr
