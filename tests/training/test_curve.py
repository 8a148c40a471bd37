"""A training watched by queries that do not train."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from revela_rag.corpus import Corpus, structural_pairs
from revela_rag.evaluation import RetrievalData, structural_data
from revela_training.config import RAW_DECODER, AdaptConfig
from revela_training.curve import Curve

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(code_corpus: Corpus) -> RetrievalData:
    return structural_data(structural_pairs(code_corpus.chunks)[:12], code_corpus.chunks, name="code")


@pytest.fixture
def make(code_corpus: Corpus, data: RetrievalData, lm_dir: Path, tmp_path: Path):
    def curve(structure: bool = True, **changes) -> Curve:
        settings = {"group_size": 4, "max_steps": 4, "max_tokens": 24, "retriever_max_tokens": 24, **changes}
        settings |= {"base": str(lm_dir), "lm": str(lm_dir), "contrastive_weight": 0.0}
        return Curve(
            code_corpus.chunks, data, AdaptConfig(**{**RAW_DECODER, **settings}), tmp_path / "work", structure, 32
        )

    return curve


def test_it_evaluates_as_often_as_asked_and_at_the_end(make, data: RetrievalData, tmp_path: Path) -> None:
    curve = make()
    points = list(curve.points(every=3, at_start=True))
    assert [point.step for point in points] == [0, 3, 4]
    assert points[0].training == {} and points[1].training["baseline_loss"] > 0
    assert points[0].seconds == 0 < points[1].seconds <= points[2].seconds
    assert set(points[0].quality) == {"nDCG@10", "Recall@100", "MRR@10"}
    queries, documents = curve.vectors
    assert (len(queries), len(documents)) == (len(data.queries), len(data.corpus))
    assert list(tmp_path.iterdir()) == []  # the work is gone


def test_it_trains_and_repeats_itself(make) -> None:
    first, again, other = make(), make(), make(seed=1)
    values = [next(c.points(every=4)).training["lm_loss"] for c in (first, again, other)]
    assert values[0] == values[1] != values[2]
    learned = [p for name, p in first.retriever.named_parameters() if "lora_B" in name]  # zeros at first
    assert learned and all(bool(p.any()) for p in learned)


def test_without_structure_every_chunk_is_one_text(make, code_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from revela_training import curve as library

    seen = []
    own = library.build_dataset

    def spy(units, *rest):
        seen.append(units)
        return own(units, *rest)

    monkeypatch.setattr(library, "build_dataset", spy)
    next(make(structure=False).points(every=4))
    next(make(structure=True).points(every=4))
    whole, parts = seen
    assert [unit.texts for unit in whole] == [(chunk.embedding_text,) for chunk in code_corpus.chunks]
    assert all(len(unit.texts) == 2 for unit in parts)


def test_time_ends_it(make) -> None:
    points = list(make(max_steps=50).points(every=100, minutes=1e-6))
    assert [point.step for point in points] == [1]


@pytest.mark.slow
def test_the_gpu_script_runs_small_on_a_cpu(lm_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    kinds = itertools.product(("cat", "dog", "fox", "owl"), ("fish", "bread"), ("barn", "wood"))
    texts = [f"the {animal} eats {food} in the {place}" for animal, food, place in kinds]
    lines = [json.dumps({"_id": f"d{i}", "title": "", "text": text}) for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "what does the fox eat"}))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td8\t1\n")
    out = tmp_path / "out"
    command = [sys.executable, "training/recipes/real_lm/run.py", "--model", str(lm_dir), "--data", str(folder)]
    command += ["--minutes", "1", "--every", "2", "--skip-checks", "--output", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "figures.json").read_text())
    assert [point["step"] for point in figures[0]["points"]] == [0, 2, 4]
    files = {file.name: file.stat().st_size for file in out.iterdir()}
    assert {"figures.json", "curve.png", "adapter-0.safetensors"} <= set(files)
    assert len(files) <= 8 and max(files.values()) <= 16 * 2**20
