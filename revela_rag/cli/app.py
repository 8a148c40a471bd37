"""The ``revela`` application: global options and the list of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from revela_rag.cli import adapt, demo, doctor, evaluate, index, mcp, search
from revela_rag.cli.console import Command, Group, Settings, set_up_logging

__all__ = ["app"]

app = typer.Typer(
    name="revela",
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from revela_rag import __version__

        typer.echo(f"revela {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log what happens; twice for everything.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Adapt a retriever to your own documents or code, without labels; index them; search them.

    Exit status: 0 done, 1 an error with a message, 2 wrong usage, 130 stopped with Ctrl-C, 143 with SIGTERM.
    """
    context.obj = Settings(show_progress=not quiet)
    set_up_logging(verbose)


for _name, _module in (
    ("adapt", adapt),
    ("index", index),
    ("search", search),
    ("mcp", mcp),
    ("evaluate", evaluate),
    ("demo", demo),
    ("doctor", doctor),
):
    app.command(_name, cls=Command, epilog=_module.EXAMPLES)(_module.command)
