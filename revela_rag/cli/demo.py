"""``revela demo``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from revela_rag.cli.console import on_interrupt, print_json

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela demo --quick
  revela demo --output revela-demo
  revela demo --fresh
  revela demo --raw-lm      a plain language model learns to retrieve (20 minutes)
"""


def command(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="A small corpus and few steps, under two minutes.")] = False,
    raw_lm: Annotated[
        bool,
        typer.Option("--raw-lm", help="Make a plain language model, SmolLM2-135M, a retriever, with a plot."),
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model, indexes and report.")] = Path(
        "revela-demo"
    ),
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on where an earlier run stopped, or start again.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the whole road on the standard library of this Python: adapt, index, ask, measure."""
    again = f"revela demo{' --quick' if quick else ''} --output {shlex.quote(str(output))}"
    on_interrupt(context, "" if raw_lm else f"Run it again to go on: {again}")
    from rich.console import Console

    from revela_rag.demo import run_demo, run_raw_demo

    console = Console(stderr=json)
    if raw_lm:
        result = run_raw_demo(output=output, quick=quick, console=console)
    else:
        result = run_demo(output=output, quick=quick, fresh=not resume, console=console)
    if json:
        print_json(result)
