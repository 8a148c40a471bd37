"""``revela doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revela_rag.cli.console import fail, print_json, results_last

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela doctor
  revela doctor --json
  revela doctor my-index --verify
"""

_MARKS = {"ok": "ok", "missing": "--", "warning": "!!", "failed": "FAILED"}


def command(
    index: Annotated[Path | None, typer.Argument(help="Check this index instead of the installation.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte of the index; without it, what opening it reads.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check this installation: versions, extras, device, memory, models and stores; or an index.

    Exits with 1 when something that everything needs is broken, a missing extra is not; or when the index has a fault.
    """
    if verify and index is None:
        fail("--verify reads an index; name its directory: revela doctor INDEX --verify")
    with results_last():
        if index is None:
            from revela_rag.cli.diagnostics import diagnose

            checks = diagnose()
        else:
            from revela_rag.index.checks.verify import open_index, verify_index

            checks = list(verify_index(index) if verify else open_index(index))
    healthy = all(check.status != "failed" for check in checks)
    if json:
        print_json({"ok": healthy, "checks": [check.as_dict() for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            typer.echo(f"{_MARKS[check.status]:>6}  {check.name:<{width}}  {check.detail}")
            if check.remedy:
                typer.echo(f"{'':>6}  {'':<{width}}  -> {check.remedy}")
        if index is None:
            typer.echo("Everything essential works." if healthy else "Something essential is broken, see FAILED above.")
        elif not healthy:
            typer.echo("The index is damaged, see FAILED above.")
        else:
            typer.echo("The index is whole." if verify else "The index opens; --verify reads every byte of it.")
    if not healthy:
        raise typer.Exit(1)
