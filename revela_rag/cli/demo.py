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
"""


def command(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="A small corpus and few steps, under two minutes.")] = False,
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
    on_interrupt(context, f"Run it again to go on: {again}")
    from rich.console import Console

    from revela_rag.demo import run_demo

    result = run_demo(output=output, quick=quick, fresh=not resume, console=Console(stderr=json))
    if json:
        print_json(result)
