"""``revela adapt``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from revela_rag.cli.console import as_typed, note, on_interrupt, print_json, results_last, settings
from revela_rag.cli.durations import duration_option, parse_duration
from revela_rag.cli.embeddings import Embeddings, Yes, confirmed, load_embeddings
from revela_rag.cli.fields import IdField, TextField, TitleField, with_fields
from revela_rag.errors import MissingExtraError
from revela_rag.model.find import DEFAULT_BASE

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela adapt docs/ --output models/docs
  revela adapt src/ --output models/code --preset code --time-limit 10m
  revela adapt notes.jsonl --output models/notes --base BAAI/bge-small-en-v1.5 --max-steps 500
  revela adapt tools.json --output models/tools
  revela adapt tickets.csv --output models/tickets --text-field problem --title-field subject
  revela adapt docs/ --output models/docs --adapter linear
  revela adapt src/ --output models/code --lm Qwen/Qwen2.5-0.5B
  revela adapt src/ --output models/code --resume
  revela adapt docs/ --output models/docs --embeddings my_stack:embeddings
"""


class Adapter(StrEnum):
    """What of the model learns."""

    auto = "auto"
    linear = "linear"
    lora = "lora"


class Preset(StrEnum):
    """Settings that suit a kind of corpus."""

    auto = "auto"
    prose = "prose"
    code = "code"
    published = "published"


def command(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder, file, JSON, YAML, JSONL, CSV, TSV or Parquet file (of tools, too), or BEIR directory.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write the model to.")],
    base: Annotated[str | None, typer.Option(help="Embedding model to adapt.", show_default="all-MiniLM-L6-v2")] = None,
    embeddings: Embeddings = None,
    lm: Annotated[
        str | None,
        typer.Option(help="Causal LM to train against with the Revela objective; bundled for a small one."),
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="auto goes by what most of the corpus is; published is the paper's setting.")
    ] = Preset.auto,
    adapter: Annotated[
        Adapter | None,
        typer.Option(
            help="linear learns on top of the model (seconds, once texts are embedded), lora inside it (minutes). "
            "auto: lora for tools and other small corpora of prose, linear for all else and where lora does no good.",
            show_default="auto",
        ),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many steps.", show_default="by the corpus")
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            callback=duration_option,
            metavar="DURATION",
            help="Be done after this long: 90s, 10m, 1h30m. Where not all fits, fewer texts train and judge.",
        ),
    ] = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    id_field: IdField = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML or JSON file with more settings.")
    ] = None,
    yes: Yes = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Adapt an embedding model to a corpus without labels.

    Docstrings and headings held back from training tell whether it helped; if not, the base model is written.
    """
    if max_steps is not None and time_limit is not None:
        raise typer.BadParameter("--max-steps and --time-limit exclude each other, give one of them")
    if base is not None and embeddings is not None:
        raise typer.BadParameter("--base and --embeddings exclude each other, give one of them")
    on_interrupt(context, f"Go on with: {as_typed(context, '--resume')}")
    run = _adapt()
    show_progress = settings(context).show_progress
    fields = {"text_field": text_field, "title_field": title_field, "id_field": id_field}
    with results_last():
        result = run(
            with_fields(source, fields, model=base or DEFAULT_BASE, deduplicate=True, show_progress=show_progress),
            output=output,
            base=base if embeddings is None else load_embeddings(embeddings),
            lm=lm,
            preset=preset.value,
            **({} if adapter is None else {"adapter": adapter.value}),
            max_steps=max_steps,
            time_limit=parse_duration(time_limit) if time_limit else None,
            resume=resume,
            config=config,
            show_progress=show_progress,
            **({} if embeddings is None or yes else {"confirm": confirmed}),
        )
    if json:
        print_json(_as_dict(result))
        return
    if skipped := (result.report.get("corpus") or {}).get("skipped"):
        reasons = ", ".join(f"{len(ids)} × {reason}" for reason, ids in skipped.items())
        note(f"skipped {reasons}")
    for entry in result.report.get("refused", []):
        note(f"{entry['adapter']} first: {entry['summary'].partition(';')[0]}")
    typer.echo(result.summary)
    typer.echo(f"Model: {result.path}")
    over = "" if embeddings is None else f" --embeddings {shlex.quote(embeddings)}"
    note(f"Next: revela index {shlex.quote(source)} --model {shlex.quote(str(result.path))}{over} --output INDEX")


def _adapt() -> Callable[..., Any]:
    try:
        from revela_training import adapt
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(error.name or "peft", "training", "adapting a model") from error
    return adapt


def _as_dict(result: Any) -> dict[str, Any]:
    """What a program wants to know, without the per-query values and the training log."""
    evaluations = result.report.get("gate", {}).get("evaluations", {})
    return {
        "model": str(result.path),
        "adapted": result.adapted,
        "strength": result.strength,
        "summary": result.summary,
        "evaluations": {name: evaluation["metrics"] for name, evaluation in evaluations.items()},
        "corpus": result.report.get("corpus"),
        "seconds": result.report.get("seconds"),
    }
