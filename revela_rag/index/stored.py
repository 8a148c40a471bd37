"""Documents that are stored whole under their own ids, as the vector stores of other libraries do it."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.corpus.metadata import plain
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index.facade import Index, Kind
from revela_rag.index.manifest import MANIFEST_FILE
from revela_rag.model.encoder import Encoder
from revela_rag.retriever import open_index

__all__ = ["add_whole", "kept_metadata", "open_or_make", "refuse_unknown"]


def open_or_make(
    index: Index | str | Path | None,
    *,
    encoder: Encoder | None,
    needed: str,
    store: str = "faiss",
    kind: Kind = "flat",
    lock_timeout: float | None = None,
    auto_refresh: bool | None = None,
) -> Index:
    """The index of a store: open already, opened, or made where there is none.

    Args:
        index: an open index or the directory of one; None makes one that is removed with the last reference to it.
        encoder: what embeds; None means the model that an existing index was built by.
        needed: name of the argument that says so.
        store: of a new index, see :meth:`Index.build`; so is ``kind``.
        kind: see ``store``.
        lock_timeout: of an index given as a directory, see :meth:`Index.open`; None for the default.
        auto_refresh: likewise.

    Raises:
        IndexingError: it is damaged, or there is none and nothing that embeds.
        IndexMismatchError: it was built by another model.
    """
    given: dict[str, Any] = {"lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
    if isinstance(index, Index) or (index is not None and (Path(index).expanduser() / MANIFEST_FILE).exists()):
        return open_index(index, model=encoder, **given)
    if encoder is None:
        raise IndexingError(f"There is no index in {str(index)!r}; give {needed}=, and an empty one is made.")
    path = Path(tempfile.mkdtemp(prefix="revela-store-")) if index is None else Path(index)
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    made = Index.build([], encoder=encoder, path=path, store=store, kind=kind, **options)  # type: ignore[arg-type]
    if index is None:
        weakref.finalize(made, shutil.rmtree, path, ignore_errors=True)
    return made


def add_whole(index: Index, chunks: Sequence[Chunk], vectors: np.ndarray | None = None) -> None:
    """Add chunks under their ids in place of what is there under these, be it a document that was cut.

    Args:
        index: where to.
        chunks: each id once.
        vectors: (n, d) embeddings of the chunks, when they are known already.

    Raises:
        IndexMismatchError: the vectors do not have the index's length.
    """
    if not chunks:
        return
    there = index.get([chunk.id for chunk in chunks])
    index.add(chunks, vectors)
    own = {chunk.id for chunk in chunks}
    if pieces := [chunk.id for chunk in there if chunk.id not in own]:
        index.delete(pieces)


def kept_metadata(metadata: Mapping[str, Any], report: CorpusReport) -> dict[str, Any]:
    """What JSON can hold as it is, dates and the like as :func:`~revela_rag.corpus.metadata.plain` makes them.

    The rest is left out and counted in ``report``.
    """
    kept = {}
    for key, value in metadata.items():
        try:
            json.dumps(value, allow_nan=False)
            kept[str(key)] = value
        except (TypeError, ValueError, RecursionError):
            if (made := plain(value)) is None:
                report.leave_out(str(key))
            else:
                kept[str(key)] = made
    return kept


def refuse_unknown(arguments: Mapping[str, Any], known: Iterable[str] = ()) -> None:
    """IndexingError for arguments that would have no effect."""
    if unknown := sorted(set(arguments) - set(known)):
        raise IndexingError(f"{', '.join(unknown)}: no argument of this method; a misspelt one would have no effect.")
