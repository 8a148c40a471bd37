"""Writes to an index: build, sync, add, upsert and delete, each as one new generation.

Chunks are taken in batches, so memory holds the vectors of the store and one batch of texts, not the corpus. What is
written to an index that is there is embedded beforehand (:mod:`revela_rag.index.writing.staging`), so that writers
hold the lock for moments.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index.filters import Filter, parse_filter
from revela_rag.index.identity import check_identity, mismatch
from revela_rag.index.manifest import Manifest, ModelEntry, describe_files
from revela_rag.index.rotation import ROTATION_FILE, Rotation
from revela_rag.index.snapshot import LEXICAL_FOLDER, Snapshot
from revela_rag.index.stores import check_kind, store_class
from revela_rag.index.stores.segments import link
from revela_rag.index.texts import TEXTS_FILE, Record, TextStore, embedded
from revela_rag.index.types import SyncReport, VectorStore, check_k
from revela_rag.index.words import LEXICAL_LIMIT, are_current, write_words
from revela_rag.index.writing.generations import Workspace, disk_errors, publish, writing
from revela_rag.index.writing.kept import KeptVectors, forget
from revela_rag.index.writing.staging import Batch, Staged, prepare
from revela_rag.surrogates import encodable

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["Scope", "build", "delete", "merge", "model_entry", "stage"]

logger = logging.getLogger(__name__)

#: What a write makes equal to what comes in; see :func:`merge`.
Scope = Literal["chunks", "documents", "index"]
_BATCH = 2048


def build(
    root: Path,
    chunks: Iterable[Chunk],
    *,
    encoder: Encoder,
    store: str,
    kind: str,
    vectors: np.ndarray | None,
    dimensions: int | None,
    overwrite: bool,
    show_progress: bool,
    timeout: float,
) -> SyncReport:
    """Write an index of ``chunks`` as the new generation of ``root``."""
    store_class(store)
    check_kind(store, kind)
    if dimensions is not None:
        check_k(dimensions, "dimensions")
    with writing(root, timeout=timeout, create=True, overwrite=overwrite) as workspace:
        if workspace.current is not None and not overwrite:
            raise IndexingError(
                f"{str(root)!r} is already an index; bring it up to date with Index.open(...).sync(chunks), "
                "or replace it with overwrite=True."
            )
        job = _Job(workspace, encoder, store, kind, fresh=True)
        job.window = _cut_for(chunks)
        with KeptVectors(root, encoder) as kept:
            options: dict[str, Any] = {"vectors": vectors, "show_progress": show_progress}
            batches = prepare(chunks, lambda ids: {}, encode=kept.encode, size=_window(encoder), **options)
            if dimensions is None:
                for batch in batches:
                    job.take(batch)
            else:
                with Staged(root, "", batches) as staged:
                    job.rotate(staged, dimensions)
                    job.consume(staged)
            report = job.finish()
        forget(root)
        return report


def stage(
    root: Path,
    chunks: Iterable[Chunk],
    *,
    before: Snapshot,
    encoder: Encoder,
    vectors: np.ndarray | None,
    show_progress: bool,
) -> Staged:
    """Compare ``chunks`` with the index as it was ``before``, and embed what is new; needs no lock."""
    with KeptVectors(root, encoder) as kept:
        options: dict[str, Any] = {"vectors": vectors, "show_progress": show_progress}
        batches = prepare(chunks, before.texts.records, encode=kept.encode, size=_window(encoder), **options)
        return Staged(root, before.manifest.generation, batches, window=_cut_for(chunks))


def merge(
    root: Path,
    staged: Staged,
    *,
    encoder: Encoder,
    scope: Scope,
    keep: Callable[[str], bool] | None = None,
    timeout: float,
    opened: Manifest,
) -> SyncReport:
    """Add and update what is staged; writes nothing when nothing changed.

    Args:
        root: directory of the index.
        staged: what to write.
        encoder: the model of the index.
        scope: what else is deleted: ``"index"`` all but documents that ``keep`` is true of, ``"documents"`` the other
            chunks of the documents that come in, ``"chunks"`` nothing.
        keep: see ``scope``.
        timeout: seconds to wait for another writer.
        opened: what the index was when it was opened.

    Raises:
        IndexMismatchError: what lies in ``root`` is another index or of another model.
    """
    with writing(root, timeout=timeout) as workspace:
        check_identity(root, opened, workspace.current)
        job = _Job(workspace, encoder, fresh=False)
        job.consume(staged)
        if scope == "index":
            job.prune(staged, keep)
            job.window = staged.window
        elif scope == "documents":
            job.replace(staged)
        report = job.finish(stale_words=scope == "index")
        forget(root, encoder.fingerprint)
        return report


def _cut_for(chunks: Iterable[Chunk]) -> int | None:
    """Tokens that a corpus was cut for; other chunks do not say."""
    return getattr(getattr(chunks, "report", None), "window", None)


def _window(encoder: Encoder) -> int:
    """Chunks to take at a time."""
    return int(getattr(encoder, "window", _BATCH))


def delete(
    root: Path,
    *,
    ids: Sequence[str],
    documents: Sequence[str],
    filter: Filter | None,
    timeout: float,
    opened: Manifest,
) -> int:
    """Delete chunks; gives how many, see :meth:`revela_rag.Index.delete`."""
    with writing(root, timeout=timeout) as workspace:
        check_identity(root, opened, workspace.current)
        job = _Job(workspace, None, fresh=False)
        job.delete(ids, documents, filter)
        deleted = job.finish().deleted
    if not deleted and (ids or documents or filter):
        what = {"ids": ids, "documents": documents, "filter": filter}
        asked = ", ".join(f"{name}={shorten(repr(value), 200)}" for name, value in what.items() if value)
        logger.warning("Nothing was deleted from %r: it has no chunk for %s.", str(root), asked)
    return deleted


def model_entry(encoder: Encoder, *, prompts: bool = True) -> ModelEntry:
    """What the manifest says about a model."""
    return ModelEntry(
        name=str(getattr(encoder, "name", None) or encoder.model_path),
        fingerprint=encoder.fingerprint,
        max_length=getattr(encoder, "chosen_max_length", None),
        query_prompt=encoder.query_prompt if prompts else "",
        document_prompt=encoder.document_prompt if prompts else "",
        trust=getattr(encoder, "trust", None),
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
        self._rotation: Rotation | None = None
        if self._old and self._old_folder:
            self._old.verify(self._old_folder)
            self._before = TextStore.open(self._old_folder / TEXTS_FILE)
            if encoder is not None and encoder.fingerprint != self._old.model.fingerprint:
                raise mismatch(workspace.root, self._old, encoder)
            if self._old.model_dimension is not None:
                shape = (self._old.model_dimension, self._old.dimension)
                self._rotation = Rotation.read(self._old_folder, shape)
        self._texts: TextStore | None = None
        self._vectors: VectorStore | None = None
        self._dimension = self._old.dimension if self._old else None
        self._counts = _Counts()
        self.window = self._old.window if self._old else None
        self._altered: list[int] = []  # rows that have another embedded text than before

    # -- reading what comes in ---------------------------------------------------------------------------------

    def rotate(self, staged: Staged, dimensions: int) -> None:
        """Keep so many dimensions of all vectors, those that say most of what is staged."""
        batches = (np.stack([vector for vector in batch.vectors if vector is not None]) for batch in staged.batches(""))
        self._rotation = Rotation.fit(batches, dimensions)

    def consume(self, staged: Staged) -> None:
        """Take in what was made ready, perhaps before others wrote to the index."""
        generation = self._old.generation if self._old else ""
        if generation == staged.generation:
            self._counts.unchanged += staged.same
        for batch in staged.batches(generation):
            self.take(batch)

    def take(self, batch: Batch) -> None:
        """Take in a batch."""
        known = self._before.records([values[0] for values in batch.records]) if self._before else {}
        new: list[tuple[Record, np.ndarray | None]] = []
        moved: list[tuple[int, Record, np.ndarray | None]] = []
        described: list[tuple[int, Record]] = []
        for values, vector in zip(batch.records, batch.vectors, strict=True):
            if values[0] not in known:
                new.append((values, vector))
                continue
            row, there = known[values[0]]
            if batch.given or embedded(there) != embedded(values):
                moved.append((row, values, vector))
            elif there != values:
                described.append((row, values))
            else:
                self._counts.unchanged += 1
        if not (new or moved or described):
            return
        wanted = [*new, *((values, vector) for _, values, vector in moved)]
        vectors = self._vectors_of(wanted)
        self._counts.embedded += 0 if batch.given else len(wanted)
        with disk_errors(self._workspace.root):
            texts, store = self._draft(vectors.shape[1] if len(vectors) else None)
            rows = texts.insert([values for values, _ in new])
            for row, values in (*described, *((row, values) for row, values, _ in moved)):
                texts.update(row, values)
            replaced = [row for row, _, _ in moved]
            self._altered += replaced
            store.remove(np.array(replaced, dtype=np.int64))
            store.add(np.array(rows + replaced, dtype=np.int64), vectors)
        self._counts.added += len(new)
        self._counts.updated += len(described) + len(moved)

    def _vectors_of(self, wanted: Sequence[tuple[Record, np.ndarray | None]]) -> np.ndarray:
        """(n, d) vectors; texts that the index lost to another writer meanwhile are embedded now."""
        if not wanted:
            return np.empty((0, self._dimension or 0), dtype=np.float32)
        late: Iterator[np.ndarray] = iter(())
        if lost := [embedded(values) for values, vector in wanted if vector is None]:
            assert self._encoder is not None
            late = iter(self._encoder.encode_documents(lost))
        vectors = np.stack([next(late) if vector is None else vector for _, vector in wanted])
        if self._rotation is None:
            return vectors
        self._check_length(vectors.shape[1], self._rotation.length)
        return self._rotation.apply(vectors)

    # -- taking out --------------------------------------------------------------------------------------------

    def prune(self, staged: Staged, keep: Callable[[str], bool] | None) -> None:
        """Delete every chunk that did not come in, unless ``keep`` is true of its document."""
        if self._before is not None:
            gone = [(row, document) for row, id_, document in self._before.ids() if id_ not in staged.ids]
            rows = [row for row, document in gone if keep is None or not keep(document)]
            self._counts.kept = len(gone) - len(rows)
            self._delete(rows)

    def replace(self, staged: Staged) -> None:
        """Delete the chunks that did not come in of documents of which some did."""
        if self._before is not None:
            there = self._before.of_documents(sorted(staged.documents))
            self._delete([row for row, id_, _ in there if id_ not in staged.ids])

    def delete(self, ids: Sequence[str], documents: Sequence[str], filter: Filter | None) -> None:
        """Delete what is named by an id or by its document, or what matches a filter.

        Raises:
            IndexingError: an id names a document and no chunk.
        """
        if self._before is None:
            return
        found = self._before.find(ids)
        if named := self._before.of_documents([id_ for id_ in ids if encodable(id_) not in found]):
            raise IndexingError(
                f"{named[0][2]!r} is the id of a document, not of a chunk: delete(documents=[{named[0][2]!r}]) deletes "
                "its chunks. Nothing was deleted."
            )
        rows = {row for some in found.values() for row in some}
        rows.update(row for row, _, _ in self._before.of_documents(documents))
        if (condition := parse_filter(filter)) is not None:
            rows.update(self._before.select(condition).tolist())
        self._delete(sorted(rows))

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
            if self._rotation is not None and self._old_folder is not None:
                link(self._old_folder / ROTATION_FILE, folder / ROTATION_FILE)
            elif self._rotation is not None:
                self._rotation.write(folder)
            self._texts = TextStore.create(folder / TEXTS_FILE)
            self._vectors = store_class(self._store).create(
                folder, dimension=self._dimension, kind=self._kind, source=self._old_folder
            )
        if dimension is not None:
            self._check_length(dimension, self._dimension)
        return self._texts, self._vectors

    def _check_length(self, length: int, wanted: int | None) -> None:
        if length != wanted:
            raise IndexMismatchError(
                f"The vectors have length {length}, the index {str(self._workspace.root)!r} has {wanted}; embed them "
                "with the model the index was built by."
            )

    def _model_dimension(self) -> int:
        assert self._encoder is not None
        return self._encoder.dimension

    def finish(self, *, stale_words: bool = False) -> SyncReport:
        """Publish, if anything changed or there was no index yet, or ``stale_words`` and its words need writing."""
        counts = self._counts
        report = SyncReport(**asdict(counts))
        stale = stale_words and self._old_folder is not None and not self._has_words(self._old_folder)
        same = self._old is not None and (self._model(), self.window) == (self._old.model, self._old.window)
        if same and not (report.changed or stale):
            self._close()
            return report
        with disk_errors(self._workspace.root):
            self._publish()
        return report

    def _has_words(self, folder: Path) -> bool:
        """Whether there is the lexical index that a sync would write, as it would."""
        if self._before is None or len(self._before) > LEXICAL_LIMIT:
            return True
        return are_current(folder / LEXICAL_FOLDER, self._before.rows())

    def _publish(self) -> None:
        texts, store = self._draft(None)
        store.save()
        if len(texts) <= LEXICAL_LIMIT:
            folder = self._workspace.folder / LEXICAL_FOLDER
            source = self._old_folder / LEXICAL_FOLDER if self._old_folder else None
            write_words(folder, texts.rows(), texts.texts, source=source, altered=self._altered)
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
            window=self.window,
            identity=(current.identity if (current := self._workspace.current) else "") or uuid4().hex,
            model_dimension=None if self._rotation is None else self._rotation.length,
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
