"""Writes to an index: build, sync, add and delete, each as one new generation.

Chunks are taken in batches, so memory holds the vectors of the store and one batch of texts, not the corpus.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index.approximate import KINDS
from revela_rag.index.generations import Workspace, disk_errors, publish, writing
from revela_rag.index.manifest import Manifest, ModelEntry, describe_files
from revela_rag.index.snapshot import LEXICAL_FOLDER, store_class
from revela_rag.index.texts import TEXTS_FILE, Record, TextStore, record
from revela_rag.index.types import SyncReport, VectorStore
from revela_rag.index.words import LEXICAL_LIMIT, WordIndex

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["build", "delete", "merge", "model_entry"]

_BATCH = 2048


def build(
    root: Path,
    chunks: Iterable[Chunk],
    *,
    encoder: Encoder,
    store: str,
    kind: str,
    vectors: np.ndarray | None,
    overwrite: bool,
    show_progress: bool,
    timeout: float,
) -> SyncReport:
    """Write an index of ``chunks`` as the new generation of ``root``."""
    store_class(store)
    if kind not in KINDS or (kind != "flat" and store != "faiss"):
        raise IndexingError(
            f"kind={kind!r} is not one of {', '.join(KINDS)} of store='faiss'; leave it out for Chroma."
        )
    with writing(root, timeout=timeout, create=True, overwrite=overwrite) as workspace:
        if workspace.current is not None and not overwrite:
            raise IndexingError(
                f"{str(root)!r} is already an index; bring it up to date with Index.open(...).sync(chunks), "
                "or replace it with overwrite=True."
            )
        job = _Job(workspace, encoder, store, kind, fresh=True)
        job.consume(chunks, vectors, show_progress)
        return job.finish(lexical=True)


def merge(
    root: Path,
    chunks: Iterable[Chunk],
    *,
    encoder: Encoder,
    vectors: np.ndarray | None = None,
    prune: bool,
    keep: Callable[[str], bool] | None = None,
    show_progress: bool,
    timeout: float,
) -> SyncReport:
    """Add and update ``chunks``; with ``prune`` also delete all else but documents that ``keep`` is true of.

    Writes nothing when nothing changed.
    """
    with writing(root, timeout=timeout) as workspace:
        job = _Job(workspace, encoder, fresh=False)
        job.consume(chunks, vectors, show_progress)
        if prune:
            job.prune(keep)
        return job.finish(lexical=prune)


def delete(root: Path, ids: Sequence[str], *, timeout: float) -> int:
    """Delete chunks by id; ids that are not there are passed over."""
    with writing(root, timeout=timeout) as workspace:
        job = _Job(workspace, None, fresh=False)
        job.delete(ids)
        return job.finish(lexical=False).deleted


def model_entry(encoder: Encoder, *, prompts: bool = True) -> ModelEntry:
    """What the manifest says about a model."""
    return ModelEntry(
        name=str(getattr(encoder, "name", None) or encoder.model_path),
        fingerprint=encoder.fingerprint,
        max_length=getattr(encoder, "chosen_max_length", None),
        query_prompt=encoder.query_prompt if prompts else "",
        document_prompt=encoder.document_prompt if prompts else "",
    )


@dataclass(slots=True)
class _Counts:
    added: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    embedded: int = 0
    kept: int = 0


class _Job:
    """One write: compares with the current generation, and starts a new one at the first difference."""

    def __init__(
        self, workspace: Workspace, encoder: Encoder | None, store: str = "", kind: str = "", *, fresh: bool
    ) -> None:
        self._workspace = workspace
        self._encoder = encoder
        self._old = None if fresh else workspace.current
        self._old_folder = workspace.root / self._old.generation if self._old else None
        self._store = store or (self._old.store if self._old else "faiss")
        self._kind = kind or (self._old.kind if self._old else "flat")
        self._before: TextStore | None = None
        if self._old and self._old_folder:
            self._old.verify(self._old_folder)
            self._before = TextStore.open(self._old_folder / TEXTS_FILE)
            if encoder is not None and encoder.fingerprint != self._old.model.fingerprint:
                raise mismatch(workspace.root, self._old, encoder)
        self._texts: TextStore | None = None
        self._vectors: VectorStore | None = None
        self._dimension = self._old.dimension if self._old else None
        self._seen: set[str] = set()
        self._counts = _Counts()

    # -- reading what comes in ---------------------------------------------------------------------------------

    def consume(self, chunks: Iterable[Chunk], vectors: np.ndarray | None, show_progress: bool) -> None:
        """Take in chunks, in batches; the first of several with one id counts."""
        rows = None if vectors is None else _unit_rows(vectors)
        position = 0
        for batch in _batches(chunks, getattr(self._encoder, "window", _BATCH), show_progress):
            given = None if rows is None else rows[position : position + len(batch)]
            if given is not None and len(given) != len(batch):
                raise IndexingError(
                    f"There are more chunks than the {0 if rows is None else len(rows)} vectors; give one each."
                )
            position += len(batch)
            self._take(batch, given)
        if rows is not None and position != len(rows):
            raise IndexingError(f"There are {len(rows)} vectors for {position} chunks; give one each.")

    def _take(self, batch: Sequence[Chunk], given: np.ndarray | None) -> None:
        fresh = []
        for place, chunk in enumerate(batch):
            if not isinstance(chunk, Chunk):
                raise IndexingError(f"An index holds Chunk objects, got {type(chunk).__name__}; see load_corpus.")
            values = record(chunk)
            if values[0] not in self._seen:
                self._seen.add(values[0])
                fresh.append((place, values))
        known = self._before.records([values[0] for _, values in fresh]) if self._before else {}
        new: list[tuple[int, Record]] = []
        changed: list[tuple[int, int, Record]] = []
        for place, values in fresh:
            if values[0] not in known:
                new.append((place, values))
            elif given is not None or known[values[0]][1] != values:
                changed.append((known[values[0]][0], place, values))
            else:
                self._counts.unchanged += 1
        if new or changed:
            self._write(new, changed, known, given)

    def _write(
        self,
        new: list[tuple[int, Record]],
        changed: list[tuple[int, int, Record]],
        known: dict[str, tuple[int, Record]],
        given: np.ndarray | None,
    ) -> None:
        moved = [
            (row, place, values)
            for row, place, values in changed
            if given is not None or _embedded(values) != _embedded(known[values[0]][1])
        ]
        places = [place for place, _ in new] + [place for _, place, _ in moved]
        if given is not None:
            vectors = given[places]
        else:
            vectors = self._embed([_embedded(v) for _, v in new] + [_embedded(v) for _, _, v in moved])
            self._counts.embedded += len(places)
        with disk_errors(self._workspace.root):
            texts, store = self._draft(vectors.shape[1] if len(vectors) else None)
            rows = texts.insert([values for _, values in new])
            for row, _, values in changed:
                texts.update(row, values)
            replaced = [row for row, _, _ in moved]
            store.remove(np.array(replaced, dtype=np.int64))
            store.add(np.array(rows + replaced, dtype=np.int64), vectors)
        self._counts.added += len(new)
        self._counts.updated += len(changed)

    def _embed(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.empty((0, self._dimension or 0), dtype=np.float32)
        assert self._encoder is not None
        return self._encoder.encode_documents(texts)

    # -- taking out --------------------------------------------------------------------------------------------

    def prune(self, keep: Callable[[str], bool] | None) -> None:
        """Delete every chunk that did not come in, unless ``keep`` is true of its document."""
        if self._before is not None:
            gone = [(row, document) for row, id_, document in self._before.ids() if id_ not in self._seen]
            rows = [row for row, document in gone if keep is None or not keep(document)]
            self._counts.kept = len(gone) - len(rows)
            self._delete(rows)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete by id."""
        if self._before is not None:
            self._delete([row for row, _ in self._before.records(list(dict.fromkeys(ids))).values()])

    def _delete(self, rows: list[int]) -> None:
        if rows:
            with disk_errors(self._workspace.root):
                texts, store = self._draft(None)
                texts.delete(rows)
                store.remove(np.array(rows, dtype=np.int64))
            self._counts.deleted += len(rows)

    # -- the new generation ------------------------------------------------------------------------------------

    def _draft(self, dimension: int | None) -> tuple[TextStore, VectorStore]:
        if self._texts is None or self._vectors is None:
            self._dimension = self._dimension or dimension or self._model_dimension()
            folder = self._workspace.begin()
            if self._old_folder is not None:
                shutil.copyfile(self._old_folder / TEXTS_FILE, folder / TEXTS_FILE)
            self._texts = TextStore.create(folder / TEXTS_FILE)
            self._vectors = store_class(self._store).create(
                folder, dimension=self._dimension, kind=self._kind, source=self._old_folder
            )
        if dimension is not None and dimension != self._dimension:
            raise IndexMismatchError(
                f"The vectors have length {dimension}, the index {str(self._workspace.root)!r} has "
                f"{self._dimension}; embed them with the model the index was built by."
            )
        return self._texts, self._vectors

    def _model_dimension(self) -> int:
        assert self._encoder is not None
        return self._encoder.dimension

    def finish(self, *, lexical: bool) -> SyncReport:
        """Publish, if anything changed or there was no index yet."""
        counts = self._counts
        report = SyncReport(**asdict(counts))
        if not report.changed and self._old is not None and self._model() == self._old.model:
            self._close()
            return report
        with disk_errors(self._workspace.root):
            self._publish(lexical)
        return report

    def _publish(self, lexical: bool) -> None:
        texts, store = self._draft(None)
        store.save()
        if lexical and len(texts) <= LEXICAL_LIMIT:
            words = WordIndex.build(texts.rows(), texts.texts(), texts.documents())
            words.save(self._workspace.folder / LEXICAL_FOLDER)
        count = len(texts)
        texts.save()
        assert self._dimension is not None
        manifest = Manifest(
            generation=self._workspace.folder.name,
            store=self._store,
            kind=self._kind,
            dimension=self._dimension,
            count=count,
            model=self._model(),
            library=str(import_module("revela_rag").__version__),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files=describe_files(
                self._workspace.folder, known=self._old_folder, entries=self._old.files if self._old else None
            ),
        )
        self._close()
        publish(self._workspace, manifest)

    def _model(self) -> ModelEntry:
        if self._old is not None:  # of the same fingerprint, but perhaps in another place now
            name = "" if self._encoder is None else model_entry(self._encoder, prompts=False).name
            return replace(self._old.model, name=name or self._old.model.name)
        assert self._encoder is not None
        return model_entry(self._encoder)

    def _close(self) -> None:
        if self._before is not None:
            self._before.close()


def mismatch(root: Path, manifest: Manifest, encoder: Any) -> IndexMismatchError:
    """The error for an index that another model built; names both."""
    name = getattr(encoder, "name", None) or encoder.model_path
    return IndexMismatchError(
        f"The index {str(root)!r} was built by the model {manifest.model.name!r} (fingerprint "
        f"{manifest.model.fingerprint[:12]}), not by {name!r} (fingerprint {encoder.fingerprint[:12]}). Open it with "
        "the model it was built by, or build it again with this one: "
        f"revela index SOURCE --model {name} --output {root} --overwrite."
    )


def _embedded(values: Record) -> str:
    return f"{values[2]}\n{values[1]}" if values[2] else values[1]


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise IndexingError(f"vectors must have shape (n, d), got {rows.shape}.")
    if not np.isfinite(rows).all():
        raise IndexingError("vectors hold values that are not finite; embed the texts again.")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def _batches(chunks: Iterable[Chunk], size: int, show_progress: bool) -> Iterator[list[Chunk]]:
    iterator = iter(chunks)
    bar: Any = None
    if show_progress:
        from tqdm.auto import tqdm

        total = len(chunks) if isinstance(chunks, Sized) else None
        bar = tqdm(total=total, desc="index", unit="chunk")
    try:
        if show_progress and size == _BATCH:
            size = 256  # a bar that moves only every 2048 chunks says little
        while batch := list(islice(iterator, size)):
            yield batch
            if bar is not None:
                bar.update(len(batch))
    finally:
        if bar is not None:
            bar.close()
