"""``revela evaluate``."""

from __future__ import annotations

import json as json_module
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revela_rag.cli.console import note, results_last, settings
from revela_rag.errors import DiskError

if TYPE_CHECKING:
    from revela_rag.evaluation import Comparison, Evaluation, RetrievalData

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela evaluate bm25 --data beir/scifact
  revela evaluate models/docs --data my-labels/ --split dev --baseline all-MiniLM-L6-v2
  revela evaluate hybrid:models/docs --data my-labels/ --json result.json
  revela evaluate all-MiniLM-L6-v2 --data beir/scifact --limit-queries 50 --cache .embeddings
"""

_SHOWN = 5
_FILE_WIDTH = 120
_MOST_COLUMNS = 3  # of metrics; with more each is a row


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model directory or name, bm25, or hybrid:MODEL.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="BEIR directory: corpus, queries, qrels/.")],
    split: Annotated[str | None, typer.Option(help="File in qrels/.", show_default="test, or the only one")] = None,
    baseline: Annotated[str | None, typer.Option(help="Model to compare with, query by query.")] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write everything, per-query values too; - is stdout."),
    ] = None,
    all_at: Annotated[
        list[int] | None,
        typer.Option(
            min=1, metavar="K", help="All@K, too: every relevant document among the first K, as agents need tools."
        ),
    ] = None,
    no_chunk: Annotated[
        bool, typer.Option("--no-chunk", help="Truncate long documents instead of scoring their chunks.")
    ] = False,
    limit_queries: Annotated[int | None, typer.Option(min=1, help="Only the first N queries.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Directory to keep embeddings in.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...", show_default="the best there is")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per forward pass.")] = 32,
) -> None:
    """Measure a model on labelled data: nDCG@10, Recall@100 and MRR@10 with 95 % intervals."""
    from revela_rag.evaluation import compare, evaluate, load_beir

    loaded = load_beir(data, split=split)
    if limit_queries is not None:
        loaded = loaded.limited(limit_queries)

    def run(name: str) -> Evaluation:
        with results_last():
            return evaluate(
                name,
                loaded,
                all_at=sorted(set(all_at or ())),
                chunk=not no_chunk,
                cache_dir=cache,
                show_progress=settings(context).show_progress,
                device=device,
                batch_size=batch_size,
            )

    before = run(baseline) if baseline is not None else None
    after = run(model)
    comparisons = {metric: compare(before, after, metric=metric) for metric in after.metrics} if before else {}
    if json is not None:
        _write(json, after, before, comparisons)
    if str(json) == "-":
        return
    _print_table(loaded, [evaluation for evaluation in (before, after) if evaluation])
    if comparisons:
        _print_differences(comparisons)
        _print_moved(next(iter(comparisons.values())), before, after, loaded)
    if json is not None:
        note(f"Per-query values: {json}")


def _write(file: Path, after: Evaluation, before: Evaluation | None, comparisons: dict[str, Comparison]) -> None:
    content: dict[str, Any] = after.as_dict()
    if before is not None:
        content["baseline"] = before.as_dict()
        content["comparison"] = {metric: comparison.as_dict() for metric, comparison in comparisons.items()}
    text = json_module.dumps(content, indent=2, ensure_ascii=False)
    if str(file) == "-":
        typer.echo(text)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.tmp")
        temporary.write_text(text + "\n", encoding="utf-8", errors="replace")
        temporary.replace(file)
    except OSError as error:
        raise DiskError(f"cannot write {file} ({error}). Choose another path for --json") from error


def _print_table(data: RetrievalData, rows: list[Evaluation]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    last = rows[-1]
    excluded = f", {last.excluded} without a relevant document left out" if last.excluded else ""
    own = f", {len(data.own)} with their query's id ignored as in BEIR" if data.own else ""
    documents = f"{len(data.corpus)} documents{own}"
    typer.echo(f"{data.name}: {last.queries} queries{excluded}, {documents}; mean [95 % interval]")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    wide = len(last.metrics) > _MOST_COLUMNS
    lines = [[escape(evaluation.name), *map(partial(_cell, evaluation), evaluation.metrics)] for evaluation in rows]
    lines = [["model", *last.metrics], *lines]
    head, *body = zip(*lines, strict=True) if wide else lines
    table.add_column(head[0], overflow="fold")
    for title in head[1:]:
        table.add_column(title, justify="right", no_wrap=not wide, overflow="fold")
    for line in body:
        table.add_row(*line)
    console = Console()
    (console if console.is_terminal else Console(width=_FILE_WIDTH)).print(table)


def _cell(evaluation: Evaluation, metric: str) -> str:
    low, high = evaluation.interval(metric)
    return f"{evaluation.mean(metric):.4f} \\[{low:.3f}, {high:.3f}]"


def _print_differences(comparisons: dict[str, Comparison]) -> None:
    for metric, found in comparisons.items():
        interval = f"[{found.low:+.4f}, {found.high:+.4f}]"
        typer.echo(f"difference in {metric:<10} {found.difference:+.4f} {interval}  p {_p_value(found)}")


def _p_value(comparison: Comparison) -> str:
    return "< 0.001" if comparison.p_value < 0.001 else f"= {comparison.p_value:.3f}"


def _print_moved(comparison: Comparison, before: Any, after: Evaluation, data: RetrievalData) -> None:
    """Which queries rose and fell most, best known by their own words."""
    metric = comparison.metric
    same = comparison.queries - len(comparison.risen) - len(comparison.fallen)
    typer.echo(f"{metric}: {len(comparison.risen)} queries rose, {len(comparison.fallen)} fell, {same} unchanged")
    for title, ids in (("rose most", comparison.risen), ("fell most", comparison.fallen)):
        if ids:
            typer.echo(f"  {title}:")
        for query_id in ids[:_SHOWN]:
            old, new = before.values(metric)[query_id], after.values(metric)[query_id]
            words = " ".join(data.queries[query_id].split())
            typer.echo(f"    {old:.3f} -> {new:.3f}  {words[:80]}  ({query_id})")
