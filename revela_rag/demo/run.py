"""Adapt, index, ask, and show whether it helped."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from revela_rag.demo.stdlib import stdlib_corpus
from revela_rag.errors import MissingExtraError
from revela_rag.report import write_report

if TYPE_CHECKING:
    from revela_rag.corpus import Corpus
    from revela_rag.model.encoder import Encoder

__all__ = ["QUESTIONS", "metrics_table", "run_demo"]

logger = logging.getLogger(__name__)

QUESTIONS = (
    "run a command and capture what it prints",
    "how do I parse an ISO date string?",
    "compress bytes with gzip",
)
_FULL = {"functions": 3000, "settings": {"holdout": 0.5}}
_QUICK = {"functions": 600, "settings": {"max_steps": 40, "holdout": 0.4}}


def run_demo(
    *, output: str | Path = "revela-demo", quick: bool = False, fresh: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Run the whole road on the standard library and print one table.

    A run that was interrupted goes on where it stopped when it is started again.

    Args:
        output: folder for model, indexes and report.
        quick: a small corpus and few steps, under two minutes.
        fresh: throw away what an earlier run left in ``output``.
        console: where to print.

    Returns:
        ``summary``, ``evaluations``, ``answers``, ``report`` (path) and ``seconds``.

    Raises:
        MissingExtraError: the demo's extras are not installed.
    """
    try:
        from revela_training import adapt
    except ImportError as error:
        raise MissingExtraError(str(error.name), "demo", "the demo") from error
    console = console or Console()
    size: Mapping[str, Any] = _QUICK if quick else _FULL
    folder = Path(output) / ("quick" if quick else "full")
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    console.rule("1/4  The corpus: this interpreter's standard library")
    corpus = stdlib_corpus(functions=size["functions"], show_progress=True)
    console.print(f"{len(corpus.chunks)} documented functions and classes; {corpus.report.summary()}")
    console.rule("2/4  Adapt all-MiniLM-L6-v2 without labels")
    adaptation = folder / "adaptation.json"
    if adaptation.is_file() and (folder / "model").is_dir():
        report = json.loads(adaptation.read_text(encoding="utf-8"))
        console.print("Done by an earlier run; start with --fresh to adapt again.")
    else:
        result = adapt(
            corpus, output=folder / "model", base="all-MiniLM-L6-v2", preset="code", resume=True, **size["settings"]
        )
        report = result.report
        adaptation.write_text(json.dumps(report), encoding="utf-8")
    console.rule("3/4  Index in FAISS and in Chroma, ask through LangChain and LlamaIndex")
    answers = _ask(corpus, folder, console)
    console.rule("4/4  Did it help?")
    evaluations, summary = report["gate"]["evaluations"], report["gate"]["summary"]
    console.print(metrics_table(evaluations))
    console.print(f"[bold]{summary}[/bold]")
    page = write_report(report, folder / "report.html", title="revela demo: the Python standard library")
    seconds = round(time.monotonic() - started, 1)
    console.print(f"Report: {page}   Model: {folder / 'model'}   Wall time: {seconds:.0f} s")
    return {
        "summary": summary,
        "evaluations": {name: value["metrics"] for name, value in evaluations.items()},
        "answers": answers,
        "report": str(page),
        "seconds": seconds,
    }


def metrics_table(evaluations: Mapping[str, Mapping[str, Any]]) -> Table:
    """Means with 95 % intervals, one row a system."""
    queries = next(iter(evaluations.values()))["queries"]
    table = Table(title=f"{queries} held-back docstrings as queries, their functions as answers")
    table.add_column("system")
    metrics = list(next(iter(evaluations.values()))["metrics"])
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, evaluation in evaluations.items():
        means = (evaluation["metrics"][metric] for metric in metrics)
        cells = (f"{mean['mean']:.4f} [{_short(mean['low'])}-{_short(mean['high'])}]" for mean in means)
        table.add_row(name.replace("_", " "), *cells)
    return table


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _ask(corpus: Corpus, folder: Path, console: Console) -> dict[str, dict[str, list[str]]]:
    """Ask every question through LangChain over FAISS and through LlamaIndex over Chroma."""
    from langchain_revela import RevelaRetriever as LangChainRetriever
    from llama_index.retrievers.revela import RevelaRetriever as LlamaIndexRetriever
    from revela_rag.index import Index
    from revela_rag.model.encoder import Encoder

    encoder: Encoder = Encoder(folder / "model")
    vectors = encoder.encode_documents([chunk.embedding_text for chunk in corpus.chunks], show_progress=True)
    indexes = {
        store: Index.build(
            corpus.chunks, encoder=encoder, path=folder / store, store=store, vectors=vectors, overwrite=True
        )
        for store in ("faiss", "chroma")
    }
    chain = LangChainRetriever(index=indexes["faiss"], k=3)
    engine = LlamaIndexRetriever(index=indexes["chroma"], similarity_top_k=3)
    answers: dict[str, dict[str, list[str]]] = {}
    for question in QUESTIONS:
        found = {
            "LangChain / FAISS": [_place(document.metadata) for document in chain.invoke(question)],
            "LlamaIndex / Chroma": [_place(node.node.metadata) for node in engine.retrieve(question)],
        }
        answers[question] = found
        console.print(f"\n[bold]{question}[/bold]")
        for system, places in found.items():
            console.print(f"  {system:20} {'   '.join(places)}")
    return answers


def _place(metadata: Mapping[str, Any]) -> str:
    symbol = metadata.get("symbol")
    return f"{metadata.get('source')}:{symbol}" if symbol else str(metadata.get("source"))
