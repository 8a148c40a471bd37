from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from revela_rag.demo import run, run_demo
from revela_rag.demo.stdlib import stdlib_corpus

TINY = {
    "functions": 60,
    "settings": {
        "max_steps": 4,
        "lm_warmup_steps": 1,
        "holdout": 0.6,
        "group_size": 4,
        "groups_per_step": 1,
        "max_tokens": 16,
    },
}


def test_the_corpus_is_documented_code_without_tests_and_the_same_every_time() -> None:
    first, again = (stdlib_corpus(functions=50, show_progress=False) for _ in range(2))
    assert [chunk.id for chunk in first.chunks] == [chunk.id for chunk in again.chunks]
    assert len(first.chunks) == 50
    assert all(chunk.parts and chunk.kind == "code" for chunk in first.chunks)
    assert not any("test" in Path(chunk.document_id).parts for chunk in first.chunks)


@pytest.mark.slow
def test_the_demo_runs_the_whole_road_and_does_not_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_QUICK", TINY)
    console = Console(file=io.StringIO(), width=160)
    result = run_demo(output=tmp_path, quick=True, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert {"bm25", "base", "hybrid"} <= set(result["evaluations"])
    assert all(question in text for question in run.QUESTIONS)
    for found in result["answers"].values():
        assert found["LangChain / FAISS"] == found["LlamaIndex / Chroma"]
        assert len(found["LangChain / FAISS"]) == 3
    assert Path(result["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")

    monkeypatch.setattr("revela_training.adapt", lambda *_, **__: pytest.fail("adapted again"))
    again = run_demo(output=tmp_path, quick=True, console=console)
    assert again["summary"] == result["summary"]
