"""A plain language model becomes a retriever: it learns the standard library with the Revela objective alone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from revela_rag.corpus import structural_pairs
from revela_rag.corpus.types import titled
from revela_rag.demo.stdlib import stdlib_corpus
from revela_rag.errors import MissingExtraError
from revela_rag.evaluation import RetrievalData, dense_run, lexical_run, score_run, structural_data
from revela_rag.report import quality_curve

if TYPE_CHECKING:
    from revela_rag.corpus import Chunk

__all__ = ["run_raw_demo"]

_FULL = {"functions": 800, "queries": 150, "steps": 150, "every": 25, "minutes": 14.0}
_QUICK = {"functions": 200, "queries": 40, "steps": 12, "every": 6, "minutes": 3.0}
_SUPERVISED = "all-MiniLM-L6-v2"


def run_raw_demo(
    *,
    output: str | Path = "revela-demo",
    model: str = "smollm2-135m",
    quick: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a plain language model on documented functions, and ask it held-back docstrings as it goes.

    No pair is marked: docstrings and bodies are texts among others that share a batch, and the language model, which
    stays as it was, tells by what it gains from each which of them a text should be near to.

    Args:
        output: folder for the curve and the model.
        model: the plain language model, retriever and reader at once.
        quick: a few steps, which show the road and not the destination.
        console: where to print.

    Returns:
        ``points`` (one an evaluation), ``bm25`` and ``supervised`` (nDCG@10 on the same queries), ``plot`` and
        ``model`` (paths) and ``seconds``.

    Raises:
        MissingExtraError: the demo's extras are not installed.
        ModelError: the language model is not installed.
    """
    try:
        from revela_training.config import RAW_DECODER, AdaptConfig
        from revela_training.curve import Curve
        from revela_training.retriever.export import export_model
    except ImportError as error:
        raise MissingExtraError(str(error.name), "demo", "the demo") from error
    console = console or Console()
    size: Mapping[str, Any] = _QUICK if quick else _FULL
    folder = Path(output) / ("raw-quick" if quick else "raw")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    console.rule(f"1/3  {size['functions']} functions of this interpreter's standard library")
    chunks, data = _held_back(size)
    others = {"BM25": _bm25(data), _SUPERVISED: _supervised(data)}
    for name, value in others.items():
        console.print(f"{name}: nDCG@10 {value:.3f} on {len(data.queries)} held-back docstrings")

    console.rule(f"2/3  {model} learns, at most {size['minutes']:g} minutes")
    settings = {**RAW_DECODER, "base": model, "lm": model, "contrastive_weight": 0.0, "max_tokens": 64}
    settings |= {"retriever_max_tokens": 64, "max_steps": size["steps"], "query_part": "whole"}
    curve = Curve(chunks, data, AdaptConfig(**settings), folder / "work", evaluated_tokens=96)
    points: list[dict[str, Any]] = []
    plot = folder / "curve.svg"
    for point in curve.points(every=size["every"], minutes=size["minutes"], at_start=True):
        points.append(point.as_dict())
        gain = point.training.get("baseline_loss", 0.0) - point.training.get("lm_loss", 0.0)
        console.print(
            f"step {point.step:3d}  {point.seconds / 60:4.1f} min  nDCG@10 {point.quality['nDCG@10']:.3f}  "
            f"Recall@100 {point.quality['Recall@100']:.3f}"
            + (f"  the LM gains {gain:.2f} nats a token from its neighbours" if point.step else "")
        )
        (folder / "points.json").write_text(json.dumps({"points": points, **others}, indent=1), encoding="utf-8")
        plot.write_text(quality_curve(points, others), encoding="utf-8")

    console.rule("3/3  A language model became a retriever")
    assert curve.retriever is not None
    record = {"summary": f"{model}, the objective alone", "strength": 1.0, "points": points}
    export_model(curve.retriever, folder / "model", revela_json=record)
    console.print(_table(points, others))
    seconds = round(time.monotonic() - started, 1)
    console.print(f"Curve: {plot}   Model: {folder / 'model'}   Wall time: {seconds:.0f} s")
    return {
        "points": points,
        "bm25": others["BM25"],
        "supervised": others[_SUPERVISED],
        "plot": str(plot),
        "model": str(folder / "model"),
        "seconds": seconds,
    }


def _held_back(size: Mapping[str, Any]) -> tuple[list[Chunk], RetrievalData]:
    """Chunks that train, some of them without their docstring, and those docstrings as queries for all bodies."""
    chunks = stdlib_corpus(functions=size["functions"], show_progress=False).chunks
    pairs = structural_pairs(chunks)
    drawn = np.random.default_rng(0).permutation(len(pairs))[: size["queries"]]
    asked = [pairs[i] for i in sorted(drawn.tolist())]
    hidden = {pair.chunk_id: pair.answer_text for pair in asked}
    training = [replace(chunk, text=hidden[chunk.id], parts=()) if chunk.id in hidden else chunk for chunk in chunks]
    return training, structural_data(asked, chunks, name="stdlib")


def _documents(data: RetrievalData) -> list[str]:
    return [titled(title, text) for title, text in data.corpus.values()]


def _bm25(data: RetrievalData) -> float:
    run = lexical_run(list(data.queries.values()), _documents(data), list(data.queries), list(data.corpus))
    return score_run(run, data.qrels).mean()


def _supervised(data: RetrievalData) -> float:
    from revela_rag.model.encoder import Encoder

    encoder = Encoder(_SUPERVISED)
    vectors = encoder.encode_queries(list(data.queries.values())), encoder.encode_documents(_documents(data))
    return score_run(dense_run(*vectors, list(data.queries), list(data.corpus)), data.qrels).mean()


def _table(points: Sequence[Mapping[str, Any]], others: Mapping[str, float]) -> Table:
    table = Table(title="Held-back docstrings find their function, nDCG@10")
    table.add_column("system")
    table.add_column("nDCG@10", justify="right")
    table.add_row("the language model as it was", f"{points[0]['quality']['nDCG@10']:.3f}")
    table.add_row(f"after {points[-1]['step']} steps of the objective", f"{points[-1]['quality']['nDCG@10']:.3f}")
    for name, value in others.items():
        table.add_row(f"{name}{' (trained on labelled pairs)' if name == _SUPERVISED else ''}", f"{value:.3f}")
    return table
