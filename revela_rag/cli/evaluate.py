"""``revela evaluate``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revela_rag.cli.console import note, results_last, settings
from revela_rag.cli.tables import print_differences, print_moved, print_parts, print_table
from revela_rag.errors import DiskError

if TYPE_CHECKING:
    from revela_rag.evaluation import Comparison, Evaluation, RetrievalData

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela evaluate bm25 --data beir/scifact
  revela evaluate models/docs --data my-labels/ --split dev --baseline all-MiniLM-L6-v2
  revela evaluate hybrid:models/docs --data my-labels/ --json result.json
  revela evaluate models/docs --data my-labels/ --parts feedback,coverage
  revela evaluate all-MiniLM-L6-v2 --data beir/scifact --limit-queries 50 --cache .embeddings
"""


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
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...|all",
            help="Compare hybrid search of MODEL with and without parts: feedback, mmr, coverage, maxsim.",
        ),
    ] = None,
) -> None:
    """Measure a model on labelled data: nDCG@10, Recall@100 and MRR@10 with 95 % intervals."""
    from revela_rag.evaluation import compare, evaluate, load_beir

    loaded = load_beir(data, split=split)
    if limit_queries is not None:
        loaded = loaded.limited(limit_queries)
    if parts is not None:
        if baseline is not None or no_chunk or all_at or model == "bm25":
            raise typer.BadParameter("--parts compares searches of one MODEL, without --baseline, --no-chunk, --all-at")
        options = {"device": device, "batch_size": batch_size, "show_progress": settings(context).show_progress}
        _compare_parts(model.removeprefix("hybrid:"), loaded, parts, json, cache_dir=cache, **options)
        return

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
    print_table(loaded, [evaluation for evaluation in (before, after) if evaluation])
    if comparisons:
        print_differences(comparisons)
        print_moved(next(iter(comparisons.values())), before, after, loaded)
    if json is not None:
        note(f"Per-query values: {json}")


def _compare_parts(model: str, data: RetrievalData, names: str, json: Path | None, **options: Any) -> None:
    from revela_rag.evaluation.parts import compare_parts

    chosen = () if names.strip() == "all" else [name.strip() for name in names.split(",")]
    with results_last():
        found = compare_parts(model, data, parts=chosen, **options)
    if json is not None:
        _write_json(json, {"data": data.name, "model": model, "parts": [part.as_dict() for part in found]})
    if str(json) == "-":
        return
    print_parts(data, found)
    if json is not None:
        note(f"Per-query values: {json}")


def _write(file: Path, after: Evaluation, before: Evaluation | None, comparisons: dict[str, Comparison]) -> None:
    content: dict[str, Any] = after.as_dict()
    if before is not None:
        content["baseline"] = before.as_dict()
        content["comparison"] = {metric: comparison.as_dict() for metric, comparison in comparisons.items()}
    _write_json(file, content)


def _write_json(file: Path, content: dict[str, Any]) -> None:
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
