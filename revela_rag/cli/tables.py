"""The tables of ``revela evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from revela_rag.evaluation import Comparison, Evaluation, RetrievalData
    from revela_rag.evaluation.parts import PartResult

__all__ = ["print_differences", "print_moved", "print_parts", "print_table"]

_SHOWN = 5
_FILE_WIDTH = 120
_MOST_COLUMNS = 3  # of metrics; with more each is a row


def print_table(data: RetrievalData, rows: Sequence[Evaluation]) -> None:
    """Evaluations of one set, with intervals; a row each, or a column where there are many metrics."""
    from rich import box
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
    _print(table)


def print_parts(data: RetrievalData, found: Sequence[PartResult]) -> None:
    """Parts of a search, each with what it gains over the search without one."""
    from rich import box
    from rich.table import Table

    metrics = [metric for metric in found[0].evaluation.metrics if not metric.startswith("MRR")]
    queries = found[0].evaluation.queries
    typer.echo(f"{data.name}: {queries} queries, {len(data.corpus)} documents; difference [95 % interval, paired]")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("part", *metrics, "ms a query"):
        table.add_column(title, justify="left" if title == "part" else "right", no_wrap=True)
    for part in found:
        table.add_row(part.name, *(_gain(part, metric) for metric in metrics), f"{part.milliseconds:.1f}")
    _print(table)


def _gain(part: PartResult, metric: str) -> str:
    mean, compared = part.evaluation.mean(metric), part.comparisons.get(metric)
    if compared is None:
        return f"{mean:.3f}"
    return f"{mean:.3f} {compared.difference:+.3f} \\[{compared.low:+.3f}, {compared.high:+.3f}]"


def _print(table: Any) -> None:
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=_FILE_WIDTH)).print(table)


def _cell(evaluation: Evaluation, metric: str) -> str:
    low, high = evaluation.interval(metric)
    return f"{evaluation.mean(metric):.4f} \\[{low:.3f}, {high:.3f}]"


def print_differences(comparisons: Mapping[str, Comparison]) -> None:
    """A line for each metric."""
    for metric, found in comparisons.items():
        interval = f"[{found.low:+.4f}, {found.high:+.4f}]"
        typer.echo(f"difference in {metric:<10} {found.difference:+.4f} {interval}  p {_p_value(found)}")


def _p_value(comparison: Comparison) -> str:
    return "< 0.001" if comparison.p_value < 0.001 else f"= {comparison.p_value:.3f}"


def print_moved(comparison: Comparison, before: Any, after: Evaluation, data: RetrievalData) -> None:
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
