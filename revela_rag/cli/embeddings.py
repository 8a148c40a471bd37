"""``--embeddings``: embeddings behind an API, as an object in a module of the user's."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revela_rag.cli.console import note
from revela_rag.errors import ModelError

if TYPE_CHECKING:
    from revela_rag.api import CostEstimate
    from revela_rag.model.encoder import Encoder

__all__ = ["Embeddings", "Yes", "confirmed", "encoder_of", "load_embeddings"]

Embeddings = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="Embeddings behind an API: an object in a Python module, such as LangChain's; its code is run.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --embeddings: send texts without asking.")]


def load_embeddings(named: str) -> Any:
    """The object that ``module:name`` names; modules of the working directory are found, too.

    Raises:
        ModelError: there is none.
    """
    module, _, name = named.partition(":")
    if not module or not name.isidentifier():
        raise ModelError(f"--embeddings {named!r} must be MODULE:NAME, such as my_stack:embeddings.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"--embeddings {named!r} cannot be imported: {error}.") from error


def encoder_of(model: str | None, embeddings: str | None) -> Encoder | None:
    """The encoder of ``--model``, over ``--embeddings`` where those are given; None without both."""
    from revela_rag.model.encoder import Encoder

    if embeddings is not None:
        return Encoder.over(load_embeddings(embeddings), model)
    return None if model is None else Encoder(model)


def confirmed(estimate: CostEstimate) -> bool:
    """Whether a person at the terminal wants to go on; nobody there says no."""
    if not sys.stdin.isatty():
        note(f"{estimate}. Add --yes to send them.")
        return False
    return typer.confirm(f"{estimate}. Go on?", err=True)
