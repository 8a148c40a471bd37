"""The options that say where records keep what, for the commands that read a corpus."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = ["IdField", "TextField", "TitleField", "with_fields"]

_BY_ITSELF = "found where common systems have it"

TextField = Annotated[
    str | None,
    typer.Option(help="Field of a record with its text; a.b.c for one inside of others.", show_default=_BY_ITSELF),
]
TitleField = Annotated[str | None, typer.Option(help="Field of a record with its title.", show_default=_BY_ITSELF)]
IdField = Annotated[str | None, typer.Option(help="Field of a record with its id.", show_default=_BY_ITSELF)]


def with_fields(
    source: str, fields: dict[str, str | None], *, model: str | None, deduplicate: bool, show_progress: bool
) -> Any:
    """The source as it is, or, where any of its fields is named, the corpus that was read by them for a model."""
    if not any(fields.values()):
        return source
    from revela_rag.corpus import load_corpus
    from revela_rag.model.window import read_window

    named: dict[str, Any] = {**fields, "window": read_window(model) if model else None}
    return load_corpus(source, deduplicate=deduplicate, show_progress=show_progress, **named)
