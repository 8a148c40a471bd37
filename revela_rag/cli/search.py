"""``revela search``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from revela_rag.cli.console import print_json, results_last
from revela_rag.cli.embeddings import Embeddings, encoder_of

if TYPE_CHECKING:
    from revela_rag.index import Hit, Mode
    from revela_rag.parts import PartOptions

__all__ = ["EXAMPLES", "command", "parse_filter"]

EXAMPLES = """
Examples:
  revela search indexes/docs "how do I rotate the keys?"
  revela search indexes/code "parse a date" -k 10
  revela search indexes/code "parse a date" --filter language=python --filter kind=code
  revela search indexes/docs "rotate keys" --filter '{"$or": [{"team": "it"}, {"year": {"$gte": 2024}}]}'
  revela search indexes/docs "rotate and revoke keys" --select coverage --feedback 3 --highlights
  revela search indexes/docs "rotate keys" --json | jq '.hits[0].text'
"""

_LINES, _WIDTH = 3, 110


def command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Directory that revela index wrote.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many results.")] = 5,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Cosines and BM25 together: the default up to 200,000 chunks.")
    ] = False,
    dense: Annotated[bool, typer.Option("--dense", help="The model's cosines alone.")] = False,
    lexical: Annotated[bool, typer.Option("--lexical", help="BM25 alone.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the index's model is now, if it moved.")
    ] = None,
    embeddings: Embeddings = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help='Only chunks with this metadata, such as language=python ("3" in quotes is text), or that pass a '
            """filter in JSON: '{"year": {"$gte": 2020}}'.""",
        ),
    ] = None,
    select: Annotated[
        str, typer.Option(metavar="top|mmr|coverage", help="Which are shown: the best, different ones, or a cover.")
    ] = "top",
    feedback: Annotated[int, typer.Option(min=0, help="So many of the best refine the query; 3 is usual.")] = 0,
    highlights: Annotated[bool, typer.Option("--highlights", help="Show the sentences that answer.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Find the chunks that answer a question, best first."""
    modes: dict[Mode, bool] = {"hybrid": hybrid, "dense": dense, "lexical": lexical}
    chosen = [mode for mode, given in modes.items() if given]
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{mode}' for mode in chosen)} exclude each other, give one of them")
    if not query.strip():
        raise typer.BadParameter("the query is empty")
    conditions = parse_filter(filter or [])
    parts = _parts(select, feedback, lexical=lexical)

    from revela_rag.index import Index

    with results_last():
        encoder = encoder_of(model, embeddings)
        with Index.open(index, encoder=encoder) as opened:
            mode = opened.resolve_mode(chosen[0] if chosen else "auto")
            hits = opened.search(query, k=k, filter=conditions or None, mode=mode, **parts)
    if json:
        print_json({"query": query, "mode": mode, "hits": [_as_dict(hit, highlights=highlights) for hit in hits]})
        return
    if not hits:
        given = "" if mode == "lexical" else " ".join(f"--filter {condition}" for condition in filter or [])
        typer.echo(f"Nothing found: no chunk matches {given}" if given else "Nothing found.", err=True)
    for hit in hits:
        typer.echo(_shown(hit, highlights=highlights))


def _parts(select: str, feedback: int, *, lexical: bool) -> PartOptions:
    from revela_rag.errors import IndexingError
    from revela_rag.parts.selection import as_selector

    if lexical and feedback:
        raise typer.BadParameter("--feedback moves a query's vector, and --lexical has none")
    try:
        selector = as_selector(cast(Any, select))
    except IndexingError as error:
        raise typer.BadParameter(f"--select {select!r} is not one of top, mmr, coverage") from error
    return {"feedback": feedback, **({"select": selector} if selector else {})}


def parse_filter(conditions: list[str]) -> dict[str, Any]:
    """``["language=python", "start_line=3"]`` as a filter; values are JSON scalars where they can be, else text.

    A key that is given more than once allows any of its values. A condition that opens with ``{`` is a filter of its
    own, in JSON.

    Raises:
        typer.BadParameter: a condition has no ``=`` or no key, or is no filter that an index can answer.
    """
    from revela_rag.errors import IndexingError
    from revela_rag.index.filters import check_filter

    parsed: dict[str, list[str | int | float | bool]] = {}
    whole: list[dict[str, Any]] = []
    for condition in conditions:
        if condition.lstrip().startswith("{"):
            whole.append(_json_filter(condition))
            continue
        key, equals, text = condition.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"--filter {condition!r} must read KEY=VALUE, or be JSON in braces")
        try:
            value = json_module.loads(text)
        except ValueError:
            value = text
        parsed.setdefault(key.strip(), []).append(value if isinstance(value, str | int | float | bool) else text)
    single = {key: values[0] if len(values) == 1 else values for key, values in parsed.items()}
    given = [part for part in (single, *whole) if part]
    joined = given[0] if len(given) == 1 else {"$and": given} if given else {}
    try:
        check_filter(joined)
    except IndexingError as error:
        raise typer.BadParameter(f"--filter: {error}") from error
    return joined


def _json_filter(condition: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json_module.loads(condition)
    except ValueError as error:
        raise typer.BadParameter(f"--filter {condition!r} opens with a brace and is no JSON: {error}") from error
    return found


def _as_dict(hit: Hit, *, highlights: bool) -> dict[str, Any]:
    chunk = hit.chunk
    spans = {"highlights": [[span.start, span.end] for span in hit.highlights]} if highlights else {}
    return {
        "rank": hit.rank,
        "score": hit.score,
        "cosine": hit.cosine,
        "id": chunk.id,
        "document_id": chunk.document_id,
        "title": chunk.title,
        "text": chunk.text,
        "kind": chunk.kind,
        "position": chunk.position,
        "metadata": dict(chunk.metadata),
        **spans,
    }


def _shown(hit: Hit, *, highlights: bool = False) -> str:
    """Rank, score, place and title on one line, then the first lines of the text, or what is highlighted in it."""
    from revela_rag.corpus.place import place_in_file

    chunk = hit.chunk
    line = chunk.metadata.get("start_line")
    place = f"{chunk.document_id}:{line}" if line and "tool" not in chunk.metadata else chunk.document_id
    if inside := place_in_file(chunk):
        place = f"{chunk.document_id} {inside}"
    head = f"{hit.rank:>2}  {hit.score:.4f}  {place}" + (f"  {chunk.title}" if chunk.title else "")
    spans = hit.highlights if highlights else ()
    if spans:
        marked = [" ".join(chunk.text[span.start : span.end].split()) for span in spans]
        return "\n".join([head, *(f"  > {piece}" for piece in marked), ""])
    lines = [line.rstrip() for line in chunk.text.splitlines() if line.strip()]
    shown = [line if len(line) <= _WIDTH else f"{line[:_WIDTH]}..." for line in lines[:_LINES]]
    more = ["..."] if len(lines) > _LINES else []
    return "\n".join([head, *(f"    {line}" for line in shown + more), ""])
