"""A plain language model becomes a retriever: the demo of it, in small."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from sentence_transformers import SentenceTransformer

from revela_rag.corpus import structural_pairs
from revela_rag.demo import raw, run_raw_demo
from revela_rag.demo.stdlib import stdlib_corpus
from revela_training.objective.lm import bundled_lm_path

TINY = {"functions": 40, "queries": 8, "steps": 3, "every": 2, "minutes": 5.0}


def test_held_back_docstrings_are_in_no_text_that_trains() -> None:
    chunks, data = raw._held_back(TINY)
    whole = stdlib_corpus(functions=40, show_progress=False).chunks
    assert [chunk.id for chunk in chunks] == [chunk.id for chunk in whole]
    asked = set(data.queries.values())
    assert len(asked) == 8 < len(structural_pairs(whole))
    for chunk in chunks:
        assert not any(part.text in asked for part in chunk.parts)
        assert not any(query in chunk.text for query in asked)
    assert sum(not chunk.parts for chunk in chunks) == 8


@pytest.mark.slow
def test_it_evaluates_plots_and_leaves_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_FULL", TINY)
    console = Console(file=io.StringIO(), width=160)
    result = run_raw_demo(output=tmp_path, model=str(bundled_lm_path()), console=console)
    assert [point["step"] for point in result["points"]] == [0, 2, 3]
    stored = json.loads((tmp_path / "raw" / "points.json").read_text())
    assert stored["points"] == result["points"] and stored["BM25"] == result["bm25"] > 0.3
    svg = Path(result["plot"]).read_text()
    assert svg.startswith("<svg") and "nDCG@10" in svg
    assert "nats a token" in console.file.getvalue()  # type: ignore[attr-defined]
    assert SentenceTransformer(result["model"]).encode(["a"]).shape == (1, 256)
