"""``revela doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from revela_rag.cli.console import print_json, results_last

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """
Examples:
  revela doctor
  revela doctor --json
"""

_MARKS = {"ok": "ok", "missing": "--", "warning": "!!", "failed": "FAILED"}


def command(json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False) -> None:
    """Check this installation: versions, extras, device, memory, models and stores.

    Exits with 1 when something that everything needs is broken; a missing extra is not.
    """
    from revela_rag.cli.diagnostics import diagnose

    with results_last():
        checks = diagnose()
    healthy = all(check.status != "failed" for check in checks)
    if json:
        print_json({"ok": healthy, "checks": [check.as_dict() for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            typer.echo(f"{_MARKS[check.status]:>6}  {check.name:<{width}}  {check.detail}")
            if check.remedy:
                typer.echo(f"{'':>6}  {'':<{width}}  -> {check.remedy}")
        typer.echo("Everything essential works." if healthy else "Something essential is broken, see FAILED above.")
    if not healthy:
        raise typer.Exit(1)
