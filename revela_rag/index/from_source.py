"""An index that holds what a source holds: built of it, and brought up to date with it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela_rag.corpus.report import Corpus
from revela_rag.errors import IndexingError
from revela_rag.index.manifest import MANIFEST_FILE
from revela_rag.index.types import SyncReport
from revela_rag.surrogates import encodable

if TYPE_CHECKING:
    from revela_rag.index.facade import Index
    from revela_rag.model.encoder import Encoder

__all__ = ["index_source", "sync_source"]

logger = logging.getLogger(__name__)


def index_source(
    kind_of_index: type[Index],
    source: Any,
    *,
    path: str | Path,
    encoder: Encoder | None,
    store: Any = None,
    kind: Any = None,
    dimensions: int | None = None,
    overwrite: bool = False,
    deduplicate: bool = False,
    show_progress: bool = False,
    **opening: Any,
) -> tuple[Index, Corpus, SyncReport | None]:
    """See :meth:`revela_rag.Index.from_source`; gives also what was read, and what changed where it was there."""
    folder = Path(path).expanduser()
    if overwrite or not (folder / MANIFEST_FILE).exists():
        if encoder is None:
            raise IndexingError(f"A new index in {str(folder)!r} needs a model; pass encoder=Encoder(model).")
        corpus = _read(source, encoder, deduplicate, show_progress)
        chosen = {"store": store or "faiss", "kind": kind or "flat", "dimensions": dimensions}
        options = {**chosen, "overwrite": overwrite}
        given: dict[str, Any] = {"encoder": encoder, "show_progress": show_progress, **options, **opening}
        return kind_of_index.build(corpus, path=folder, **given), corpus, None
    index = kind_of_index.open(folder, encoder=encoder, **opening)
    try:
        if store is not None and store != index.store:
            raise IndexingError(f"The index in {str(folder)!r} uses {index.store}, not {store}. {_ANEW}")
        if kind is not None and kind != index.kind:
            raise IndexingError(f"The index in {str(folder)!r} is of kind {index.kind}, not {kind}. {_ANEW}")
        if dimensions is not None and (index.manifest.model_dimension is None or dimensions != index.dimension):
            raise IndexingError(
                f"The index in {str(folder)!r} keeps {index.dimension} dimensions, not {dimensions}. {_ANEW}"
            )
        corpus, report = sync_source(index, source, deduplicate=deduplicate, show_progress=show_progress)
    except BaseException:
        index.close()
        raise
    return index, corpus, report


def sync_source(index: Index, source: Any, *, deduplicate: bool, show_progress: bool) -> tuple[Corpus, SyncReport]:
    """See :meth:`revela_rag.Index.sync_source`; gives also what was read."""
    corpus = _read(source, index.encoder, deduplicate, show_progress)
    _refuse_another(index, corpus, source)
    keep = corpus.report.is_unreadable
    return corpus, index.sync(corpus, keep=keep, show_progress=show_progress)


_ANEW = "Build it anew in its place with overwrite=True (--overwrite), or choose another path."


def _read(source: Any, encoder: Encoder, deduplicate: bool, show_progress: bool) -> Corpus:
    """The corpus of a source, its chunks cut for the model; one that was read stays as it is."""
    from revela_rag.corpus import load_corpus

    window = getattr(encoder, "token_window", None)
    if not isinstance(source, Corpus):
        return load_corpus(source, window=window, deduplicate=deduplicate, show_progress=show_progress)
    cut = source.report.window
    if window is not None and cut is not None and cut > window.tokens:
        logger.warning(
            "The corpus was cut for a model of %d tokens and this one reads %d, so longer chunks lose their ends: read "
            "it with load_corpus(..., window=encoder.token_window).",
            cut,
            window.tokens,
        )
    return source


def _refuse_another(index: Index, corpus: Corpus, source: Any) -> None:
    held = index.document_ids()
    found = {encodable(chunk.document_id) for chunk in corpus}  # as an index has them
    if not held or not found.isdisjoint(held) or any(map(corpus.report.is_unreadable, held)):
        return
    raise IndexingError(
        f"The index in {str(index.path)!r} holds {len(held)} documents, and none of them is among the {len(found)} of "
        f"{source if isinstance(source, str | Path) else 'the source'}: a sync would delete them all. Name the source "
        "it was built from, choose another path (--output) for another index, or build it anew from this source with "
        "overwrite=True (--overwrite) and a model."
    )
