"""``revela index``."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from revela_rag.cli.console import note, on_interrupt, print_json, results_last, settings
from revela_rag.cli.embeddings import Embeddings, encoder_of
from revela_rag.cli.fields import IdField, TextField, TitleField, with_fields
from revela_rag.errors import IndexingError

__all__ = ["EXAMPLES", "command", "index_corpus"]

EXAMPLES = """
Examples:
  revela index docs/ --model models/docs --output indexes/docs
  revela index docs/ --output indexes/docs              (again: embeds only what changed)
  revela index src/ --model models/code --output indexes/code --store chroma
  revela index huge.jsonl --model models/docs --output indexes/huge --kind hnsw
  revela index huge.jsonl --model models/docs --output indexes/small --kind rabitq --dimensions 192
  revela index huge.jsonl --model models/docs --output indexes/huge --engine ray --workers 8
  revela index src/ --model models/new --output indexes/code --overwrite
"""


class Store(StrEnum):
    """Where vectors live."""

    faiss = "faiss"
    chroma = "chroma"


class Engine(StrEnum):
    """Where texts are embedded."""

    local = "local"
    ray = "ray"


class Kind(StrEnum):
    """How FAISS searches."""

    flat = "flat"
    hnsw = "hnsw"
    ivf_sq8 = "ivf-sq8"
    rabitq = "rabitq"
    int4 = "int4"
    int8 = "int8"
    fp16 = "fp16"


_STORES: dict[Store, Literal["faiss", "chroma"]] = {Store.faiss: "faiss", Store.chroma: "chroma"}


def command(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder, file, JSON, YAML, JSONL, CSV, TSV or Parquet file (of tools, too), or BEIR directory.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the index.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model directory or name; an index remembers its own.")
    ] = None,
    embeddings: Embeddings = None,
    store: Annotated[
        Store | None, typer.Option(help="Where vectors live.", show_default="faiss, or what the index has")
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="How FAISS searches: all vectors, a graph (fast), clusters of 8-bit codes, or a code for each vector "
            "(little memory) and the closest exactly from disk; all but the first for 100,000 chunks and more.",
            show_default="flat, or what the index has",
        ),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep so many dimensions of the vectors, those that say most about this corpus.",
            show_default="all, or what the index has",
        ),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Where texts are embedded: here, or on a Ray cluster.")] = Engine.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: processes that embed.", show_default="one per CPU")
    ] = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    id_field: IdField = None,
    sync: Annotated[bool, typer.Option("--sync", help="Only bring an existing index up to date.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Build anew in place of an old index.")] = False,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Leave out chunks that equal or nearly equal an earlier one.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Chunk, embed and store a corpus, or bring an existing index up to date with it."""
    if workers is not None and engine is not Engine.ray:
        raise typer.BadParameter("--workers is for --engine ray, add that or leave it out")
    if embeddings is not None and engine is Engine.ray:
        raise typer.BadParameter("--engine ray loads a model in every worker, leave --embeddings out")
    if sync and overwrite:
        raise typer.BadParameter("--sync and --overwrite exclude each other, give one of them")
    from revela_rag.index.manifest import MANIFEST_FILE, Manifest

    there = (output.expanduser() / MANIFEST_FILE).exists()
    on_interrupt(context, f"{'The index is whole' if there else 'There is no index yet'}. Run the same command again.")
    show_progress = settings(context).show_progress
    fields = {"text_field": text_field, "title_field": title_field, "id_field": id_field}
    named = model or (Manifest.read(output.expanduser()).model.name if there and any(fields.values()) else None)
    with results_last():
        result = index_corpus(
            with_fields(source, fields, model=named, deduplicate=deduplicate, show_progress=show_progress),
            output=output,
            model=model,
            embeddings=embeddings,
            store=_STORES[store] if store else None,
            kind=kind.value if kind else None,
            dimensions=dimensions,
            engine="ray" if engine is Engine.ray else "local",
            workers=workers,
            sync=sync,
            overwrite=overwrite,
            deduplicate=deduplicate,
            show_progress=show_progress,
        )
    changes = result["sync"] or {}
    if changes.get("kept"):
        unread = result["corpus"]["unreadable"]
        named = ", ".join(list(unread)[:3]) + (f" and {len(unread) - 3} more" if len(unread) > 3 else "")
        note(f"Kept {changes['kept']} chunks of what could not be read: {named}")
    if json:
        print_json(result)
        return
    if changes:
        typer.echo(", ".join(f"{count} {change}" for change, count in changes.items() if count or change != "kept"))
    typer.echo(f"{result['index']}: {result['chunks']} chunks ({result['store']}), model {result['model']}")
    typer.echo(result["summary"])
    disk, memory = (sum(part[where] for part in result["parts"].values()) / 1e6 for where in ("disk", "memory"))
    typer.echo(
        f"{disk:,.1f} MB on disk, {memory:,.1f} MB in memory; revela doctor {shlex.quote(result['index'])}: by part"
    )
    again = {"--embeddings": embeddings, "--model": model} if embeddings else {}
    over = "".join(f" {name} {shlex.quote(value)}" for name, value in again.items() if value)
    note(f'Next: revela search {shlex.quote(result["index"])} "your question"{over}')


def index_corpus(
    source: Any,
    *,
    output: str | Path,
    model: str | None = None,
    embeddings: str | None = None,
    store: Literal["faiss", "chroma"] | None = None,
    kind: str | None = None,
    dimensions: int | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    sync: bool = False,
    overwrite: bool = False,
    deduplicate: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Build an index, or bring the one that is there up to date.

    Args:
        source: anything :func:`revela_rag.load_corpus` reads.
        output: directory of the index.
        model: model directory or name; None takes the one an existing index was built with.
        embeddings: embeddings behind an API as ``module:name``, which ``model``, where it is given, adapted.
        store: ``"faiss"`` or ``"chroma"``; None means FAISS, or what an existing index has.
        kind: how FAISS searches, see :meth:`revela_rag.Index.build`; None means ``"flat"``, or what an existing index
            has.
        dimensions: how many to keep of the vectors', see there; None means all, or as many as an existing index keeps.
        engine: ``"ray"`` embeds on a Ray cluster, see :class:`revela_rag.model.ray.RayEncoder`.
        workers: processes that embed there; None means one per CPU.
        sync: fail where there is no index yet.
        overwrite: build anew where there is one.
        deduplicate: leave out chunks that equal or nearly equal an earlier one of any document, as ``adapt`` does.
        show_progress: show progress bars on stderr.

    Returns:
        ``index``, ``model``, ``store``, ``kind``, ``dimensions``, ``chunks``, ``parts`` (bytes on ``disk`` and in
        ``memory`` of each, see :class:`revela_rag.index.checks.sizes.Part`), ``corpus`` (counts), ``summary``,
        ``seconds`` and ``sync`` (added, updated, deleted, unchanged, embedded and kept chunks, or None for a new
        index). Kept are those of files and folders that could not be read this time.

    Raises:
        IndexingError: the arguments do not fit what is there, or nothing of what is there would be left.
        IndexMismatchError: the index was built with another model.
        CorpusError: nothing usable in ``source``.
    """
    from revela_rag.index import Index
    from revela_rag.index.from_source import index_source
    from revela_rag.index.manifest import MANIFEST_FILE, Manifest

    folder = Path(output).expanduser()
    exists = (folder / MANIFEST_FILE).exists()
    if sync and not exists:
        raise IndexingError(f"there is no index in {folder} to sync. Leave --sync out and name a --model to build one")
    if model is None and embeddings is None and (overwrite or not exists):
        raise IndexingError(
            f"a new index in {folder} needs a model. Pass --model with a directory that `revela adapt` wrote, or "
            "all-MiniLM-L6-v2 for one that is not adapted"
        )
    started = time.perf_counter()
    encoder: Any = None
    if engine == "ray":
        from revela_rag.model.ray import RayEncoder

        recorded = Manifest.read(folder).model if model is None else None
        named = model or (recorded.name if recorded else "")
        encoder = RayEncoder(named, workers=workers, max_length=recorded.max_length if recorded else None)
    else:
        encoder = encoder_of(model, embeddings)
    options: dict[str, Any] = {"store": store, "kind": kind, "dimensions": dimensions, "overwrite": overwrite}
    more = {**options, "deduplicate": deduplicate, "show_progress": show_progress}
    index, corpus, changes = index_source(Index, source, path=folder, encoder=encoder, **more)
    with index:
        found = _describe(index)
    return {
        **found,
        "sync": asdict(changes) if changes else None,
        "corpus": corpus.report.as_dict(),
        "summary": corpus.report.summary(),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _describe(index: Any) -> dict[str, Any]:
    from revela_rag.index.checks.sizes import index_parts

    return {
        "index": str(index.path),
        "model": index.manifest.model.name,
        "store": index.store,
        "kind": index.kind,
        "dimensions": index.dimension,
        "chunks": len(index),
        "parts": {part.name: {"disk": part.disk, "memory": part.memory} for part in index_parts(index.path)},
    }
