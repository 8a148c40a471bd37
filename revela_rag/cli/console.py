"""What all commands share: where output goes, how they fail, how their help looks."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from revela_rag.errors import RevelaError

__all__ = [
    "Command",
    "Group",
    "Settings",
    "as_typed",
    "fail",
    "note",
    "on_interrupt",
    "print_json",
    "results_last",
    "set_up_logging",
    "settings",
]

_RESUME = "revela.resume"
_OURS = ("revela_rag", "revela_training", "langchain_revela")
_NOISY = ("transformers", "sentence_transformers", "huggingface_hub", "chromadb", "accelerate", "faiss")


@dataclass(frozen=True)
class Settings:
    """Options given before the command.

    Attributes:
        show_progress: draw progress bars on stderr.
    """

    show_progress: bool = True


def settings(context: typer.Context) -> Settings:
    """The options given before the command."""
    return context.obj if isinstance(context.obj, Settings) else Settings()


class Command(TyperCommand):
    """A command whose epilog, the examples, is shown line for line."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the epilog as it stands."""
        epilog, self.epilog = self.epilog, None
        try:
            super().format_help(ctx, formatter)
        finally:
            self.epilog = epilog
        if epilog:
            formatter.write(f"{epilog.strip(chr(10))}\n")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which shall tidy up as Ctrl-C does."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise where SIGTERM would end the process on the spot."""

    def terminated(number: int, frame: Any) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminated)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Group(TyperGroup):
    """Ends with a message and a status instead of a traceback: 1 for what a user can mend, 130 and 143 for a signal."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _terminable():
                return super().invoke(ctx)
        except RevelaError as error:
            logging.getLogger(__name__).debug("where the error was raised", exc_info=True)
            fail(str(error))
        except OSError as error:
            if error.errno is None or error.errno == errno.EPIPE:  # a closed pipe is no error: typer ends quietly
                raise
            logging.getLogger(__name__).debug("where the error was raised", exc_info=True)
            fail(f"{error}. Check the path, its permissions and the free space")
        except KeyboardInterrupt as error:
            hint = ctx.meta.get(_RESUME)
            typer.echo(f"\nStopped. {hint}" if hint else "\nStopped.", err=True)
            raise typer.Exit(143 if isinstance(error, _Terminated) else 130) from None


def fail(message: str) -> None:
    """Print an error on stderr and exit with status 1.

    Raises:
        typer.Exit: always.
    """
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(1)


def on_interrupt(context: typer.Context, hint: str) -> None:
    """Say ``hint`` when Ctrl-C or SIGTERM ends the command."""
    context.meta[_RESUME] = hint


def as_typed(context: typer.Context, *further: str) -> str:
    """The command with the options it was given, and ``further`` ones, ready to be pasted."""
    words = ["revela", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE" or value is None:
            continue
        value = value.value if isinstance(value, Enum) else value
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            words += [parameter.opts[0], str(value)]
    return shlex.join([*words, *(option for option in further if option not in words)])


def note(message: str) -> None:
    """Tell the person at the terminal something that is not a result."""
    typer.echo(message, err=True)


def print_json(value: Any) -> None:
    """Print a result for a program to read."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def results_last() -> Iterator[None]:
    """Send what libraries print to stderr, so that stdout holds the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def set_up_logging(verbosity: int) -> None:
    """Log to stderr: warnings of ours, with ``-v`` progress in words, with ``-vv`` everything."""
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("revela")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbosity else "%(message)s"))
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers = [other for other in logger.handlers if other.get_name() != "revela"] + [handler]
        logger.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR if verbosity == 0 else level)
