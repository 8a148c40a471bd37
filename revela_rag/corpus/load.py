"""The whole way from a source to a corpus."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from revela_rag.corpus.chunking import Pieces, cut_document
from revela_rag.corpus.duplicates import find_duplicates
from revela_rag.corpus.formats.readers import Unreadable
from revela_rag.corpus.metadata import MOST_VALUES
from revela_rag.corpus.report import Corpus, CorpusReport
from revela_rag.corpus.sources.paths import MAX_FILE_BYTES, Source, open_source
from revela_rag.corpus.sources.shapes import Fields
from revela_rag.corpus.types import Chunk
from revela_rag.corpus.window import Window
from revela_rag.errors import CorpusError

__all__ = ["load_corpus"]

_logger = logging.getLogger(__name__)


def load_corpus(
    source: Source,
    *,
    max_words: int = 120,
    window: Window | None = None,
    deduplicate: bool = True,
    near_duplicate_threshold: float = 0.9,
    max_file_bytes: int = MAX_FILE_BYTES,
    show_progress: bool = False,
    text_field: str | None = None,
    title_field: str | None = None,
    id_field: str | None = None,
) -> Corpus:
    """Read, chunk and deduplicate a source.

    Args:
        source: see :func:`~revela_rag.corpus.iter_documents`.
        max_words: upper bound on the words of a prose chunk; code may hold twice as many (default 120).
        window: what the model reads, :attr:`revela_rag.Encoder.token_window`: chunks of more tokens are cut further, as
            what lies behind does not reach their vectors; None cuts by words alone.
        deduplicate: drop chunks that equal or nearly equal an earlier one (default True), as training wants it; False
            for an index, where every source should be found.
        near_duplicate_threshold: Jaccard similarity of four-word shingles from which two chunks are near duplicates, in
            (0, 1]; 1 drops exact duplicates only (default 0.9).
        max_file_bytes: larger files and records are skipped (default 10 MB).
        show_progress: show a progress bar with the time left on standard error.
        text_field: name of the field of records that holds their text (``body.storage.value``); None finds it.
        title_field: the same for the title.
        id_field: the same for the id.

    Returns:
        The chunks in source order and a report of what was dropped and skipped. Metadata that cannot be kept (objects,
        bytes, long lists) is left out, with one warning.

    Raises:
        CorpusError: if the source does not exist or holds nothing usable.
        MissingExtraError: if a Parquet file is given without pyarrow.
        ValueError: if a number is out of range.
    """
    if not 0 < near_duplicate_threshold <= 1:
        raise ValueError(f"near_duplicate_threshold is {near_duplicate_threshold}; it must be in (0, 1]")
    if max_words < 8:
        raise ValueError(f"max_words is {max_words}; use at least 8 words per chunk")
    if max_file_bytes < 1:
        raise ValueError(f"max_file_bytes is {max_file_bytes}; it must be positive")
    report = CorpusReport(window=window.tokens if window else None)
    chunks: list[Chunk] = []
    truncated: set[str] = set()
    pieces = Pieces()
    with _progress(show_progress) as progress:
        documents, total = open_source(source, max_file_bytes, report, Fields(text_field, title_field, id_field))
        task = progress.add_task("Reading", total=total)
        for document in documents:
            try:
                found, long = cut_document(document, max_words=max_words, window=window)
            except Unreadable as reason:
                report.skip(str(reason), document.id)
                continue
            if not found:
                report.skip("no text", document.id)
                continue
            report.documents += 1
            named = list(map(pieces.named, found)) if document.is_piece else found
            truncated.update(chunk.id for chunk, before in zip(named, found, strict=True) if before.id in long)
            chunks += named
            progress.update(task, completed=report.documents + sum(map(len, report.skipped.values())))
        progress.update(task, total=total or report.documents, completed=total or report.documents)
        if not chunks:
            raise CorpusError(_nothing(source, report))
        if deduplicate:
            task = progress.add_task("Removing duplicates", total=len(chunks))
            duplicates = find_duplicates(
                chunks,
                threshold=near_duplicate_threshold,
                progress=lambda done: progress.update(task, completed=done) if done % 256 == 0 else None,
            )
            progress.update(task, completed=len(chunks))
            report.exact_duplicates, report.near_duplicates = len(duplicates.exact), len(duplicates.near)
            dropped = {*duplicates.exact, *duplicates.near}
            chunks = [chunk for position, chunk in enumerate(chunks) if position not in dropped]
    report.chunks = len(chunks)
    report.truncated = sum(chunk.id in truncated for chunk in chunks) if truncated else 0
    _logger.info("%s", report.summary())
    if report.left_out:
        _logger.warning(
            "Metadata left out: %s. Kept are strings, numbers, booleans, dates, and lists and objects of up to %d.",
            report.left_out_summary(),
            MOST_VALUES,
        )
    return Corpus(chunks, report)


def _nothing(source: Source, report: CorpusReport) -> str:
    name = str(source) if isinstance(source, str | Path) else "the given documents"
    if not report.skipped:
        return f"No document found in {name}: it is empty. Give a folder, file or iterable that holds text."
    return (
        f"No usable text in {name}; skipped {report.skipped_summary()}. Supported are Markdown, text, reST, HTML, PDF, "
        "notebooks, mails, office files (extra documents), source code, JSONL, CSV, TSV and JSON files of tools in "
        "folders, and single files of JSON, YAML and Parquet, which are named themselves."
    )


@contextmanager
def _progress(show: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as progress:
        yield progress
