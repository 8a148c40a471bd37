"""What a write brings, made ready before the write takes the lock: compared with the index, and embedded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Any

import numpy as np

from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index.texts import Record, embedded, record
from revela_rag.index.writing.generations import disk_errors
from revela_rag.unit import unit_rows

__all__ = ["Batch", "Known", "Staged", "prepare"]

logger = logging.getLogger(__name__)

_LINES = 2048
_IN_MEMORY = 32 * 2**20  # bytes; of more there is a temporary file beside the index, which goes with the process

#: Gives row and record of those ids that an index has.
Known = Callable[[Sequence[str]], Mapping[str, tuple[int, Record]]]


@dataclass(slots=True)
class Batch:
    """Some chunks to write, each id once in a write.

    Attributes:
        same: records that the index has as they are.
        records: all others.
        vectors: one per entry of ``records``, (d,) float32; None where the index has the embedded text.
        given: whether the vectors were given: then they count also for a text that the index has.
    """

    same: list[Record]
    records: list[Record]
    vectors: list[np.ndarray | None]
    given: bool = False


def prepare(
    chunks: Iterable[Chunk],
    known: Known,
    *,
    encode: Callable[[Sequence[str]], Sequence[np.ndarray]],
    size: int,
    vectors: np.ndarray | None = None,
    show_progress: bool = False,
) -> Iterator[Batch]:
    """Compare chunks with an index and embed those whose text is new to it; the first of several with one id counts.

    Args:
        chunks: consumed in batches.
        known: asked for each batch; what is known of a chunk may save its embedding.
        encode: makes a vector, (d,) float32, of each text.
        size: chunks in a batch.
        vectors: (n, d) embeddings of the chunks, when they are known already.
        show_progress: draw a progress bar, for whose sake batches are at most 256 where ``size`` is 2048 or less.

    Raises:
        IndexingError: something is no chunk or cannot be stored, or there are more or fewer vectors than chunks.
    """
    rows = None if vectors is None else _unit_rows(vectors)
    position, seen, report = 0, set[str](), CorpusReport()
    size = min(size, 256) if show_progress and size <= _LINES else size
    for chunk_batch in _batches(chunks, size, show_progress):
        given = None if rows is None else rows[position : position + len(chunk_batch)]
        if given is not None and len(given) != len(chunk_batch):
            raise IndexingError(
                f"There are more chunks than the {0 if rows is None else len(rows)} vectors; give one each."
            )
        position += len(chunk_batch)
        fresh: list[tuple[int, Record]] = []
        for place, chunk in enumerate(chunk_batch):
            if not isinstance(chunk, Chunk):
                raise IndexingError(f"An index holds Chunk objects, got {type(chunk).__name__}; see load_corpus.")
            values = record(chunk, report)
            if values[0] not in seen:
                seen.add(values[0])
                fresh.append((place, values))
        yield _compared(fresh, known([values[0] for _, values in fresh]), given, encode)
    if rows is not None and position != len(rows):
        raise IndexingError(f"There are {len(rows)} vectors for {position} chunks; give one each.")
    if report.left_out:
        logger.warning("Metadata that is missing (NaN) was left out: %s.", report.left_out_summary("chunks"))


def _compared(
    fresh: list[tuple[int, Record]],
    known: Mapping[str, tuple[int, Record]],
    given: np.ndarray | None,
    encode: Callable[[Sequence[str]], Sequence[np.ndarray]],
) -> Batch:
    if given is not None:
        return Batch([], [values for _, values in fresh], [given[place] for place, _ in fresh], given=True)
    batch, new = Batch([], [], []), list[int]()
    for _, values in fresh:
        there = known[values[0]][1] if values[0] in known else None
        if there == values:
            batch.same.append(values)
            continue
        if there is None or embedded(there) != embedded(values):
            new.append(len(batch.records))
        batch.records.append(values)
    batch.vectors = [None] * len(batch.records)
    if new:
        found = encode([embedded(batch.records[place]) for place in new])
        for place, vector in zip(new, found, strict=True):
            batch.vectors[place] = vector
    return batch


class Staged:
    """Batches that wait for the lock; use it as a context, which removes what it holds.

    Args:
        root: directory of the index.
        generation: what the batches were compared with.
        batches: consumed at once.
        window: tokens that the chunks were cut for.

    Attributes:
        ids: of all chunks.
        documents: of all chunks.
        same: how many chunks the generation has as they are.

    Raises:
        DiskError: there is no room for them.
    """

    def __init__(self, root: Path, generation: str, batches: Iterable[Batch], *, window: int | None = None) -> None:
        self.generation = generation
        self.window = window
        self.ids: set[str] = set()
        self.documents: set[str] = set()
        self.same = 0
        self._given = False
        self._dimension = 0
        self._files = [SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(root)) for _ in range(3)]  # noqa: SIM115
        try:
            for batch in batches:
                with disk_errors(root):
                    self._put(batch)
        except BaseException:
            self.close()
            raise

    def _put(self, batch: Batch) -> None:
        same, rest, vectors = self._files
        for values in (*batch.same, *batch.records):
            self.ids.add(values[0])
            self.documents.add(values[3])
        self.same += len(batch.same)
        self._given = batch.given
        for values in batch.same:
            same.write(json.dumps([values, False]).encode() + b"\n")
        for values, vector in zip(batch.records, batch.vectors, strict=True):
            rest.write(json.dumps([values, vector is not None]).encode() + b"\n")
            if vector is not None:
                self._dimension = len(vector)
                vectors.write(np.ascontiguousarray(vector, dtype=np.float32).tobytes())

    def batches(self, generation: str) -> Iterator[Batch]:
        """What there is to write to a generation; all there is, unless it is the one they were compared with."""
        same, rest, vectors = self._files
        for file in (rest,) if generation == self.generation else (same, rest):
            file.seek(0)
            vectors.seek(0)
            while lines := [json.loads(line) for line in islice(file, _LINES)]:
                records = [tuple(values) for values, _ in lines]
                found = [self._vector() if has else None for _, has in lines]
                yield Batch([], records, found, given=self._given)

    def _vector(self) -> np.ndarray:
        return np.frombuffer(self._files[2].read(4 * self._dimension), dtype=np.float32)

    def close(self) -> None:
        """Remove everything."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise IndexingError(f"vectors must have shape (n, d), got {rows.shape}.")
    if not np.isfinite(rows).all():
        raise IndexingError("vectors hold values that are not finite; embed the texts again.")
    return unit_rows(rows)


def _batches(chunks: Iterable[Chunk], size: int, show_progress: bool) -> Iterator[list[Chunk]]:
    iterator = iter(chunks)
    bar: Any = None
    if show_progress:
        from tqdm.auto import tqdm

        total = len(chunks) if isinstance(chunks, Sized) else None
        bar = tqdm(total=total, desc="index", unit="chunk")
    try:
        while batch := list(islice(iterator, size)):
            yield batch
            if bar is not None:
                bar.update(len(batch))
    finally:
        if bar is not None:
            bar.close()
