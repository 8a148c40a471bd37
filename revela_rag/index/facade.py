"""The index, as users see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError, IndexMismatchError, ModelError
from revela_rag.index import writer
from revela_rag.index.generations import LOCK_TIMEOUT
from revela_rag.index.manifest import Manifest
from revela_rag.index.snapshot import Snapshot
from revela_rag.index.types import Hit, Mode, SyncReport, check_mode
from revela_rag.index.words import LEXICAL_LIMIT

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["Index"]

Result = TypeVar("Result")
Kind = Literal["flat", "hnsw", "ivf-sq8"]


class Index:
    """Chunks and their vectors on disk, searchable by meaning, by words, or by both.

    Made by :meth:`build` or :meth:`open`. One index may be searched by many threads and opened by many processes;
    writers take turns. A search sees the index as it was before a write or after it, never in between. What another
    process writes is seen after :meth:`refresh`.
    """

    def __init__(
        self, path: Path, snapshot: Snapshot, encoder: Encoder | None, *, lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        self.path = path
        self._snapshot: Snapshot | None = snapshot
        self._encoder = encoder
        self._lock_timeout = lock_timeout
        self._lock = threading.RLock()  # held for moments: searches need it, too
        self._finding = threading.Lock()
        self._writing = threading.RLock()

    @classmethod
    def build(
        cls,
        chunks: Iterable[Chunk],
        *,
        encoder: Encoder,
        path: str | Path,
        store: Literal["faiss", "chroma"] = "faiss",
        kind: Kind = "flat",
        vectors: np.ndarray | None = None,
        show_progress: bool = False,
        overwrite: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> Index:
        """Embed chunks and write them as an index.

        Args:
            chunks: consumed once, in batches; of several with one id the first is kept.
            encoder: the model; its fingerprint is stored with the index.
            path: a new or empty directory, or an index to replace.
            store: ``"faiss"``, or ``"chroma"``, approximate above 10,000 vectors.
            kind: how FAISS searches: ``"flat"`` compares all vectors; ``"hnsw"`` walks a graph, fastest, in about 1.2
                times the memory of the vectors; ``"ivf-sq8"`` looks into some clusters of 8-bit codes, in a quarter
                of it. Both search exactly below 10,000 vectors.
            vectors: (n, d) embeddings of the chunks in their order, when they are known already.
            show_progress: draw a progress bar.
            overwrite: replace an index that is there; until the new one is complete the old one is served.
            lock_timeout: seconds to wait for another writer.

        Raises:
            IndexingError: the path holds something else or, without ``overwrite``, an index; another writer is at it.
            DiskError: the disk is full; nothing half-written is left.
            MissingExtraError: chromadb is not installed.
        """
        root = Path(path).expanduser()
        writer.build(
            root,
            chunks,
            encoder=encoder,
            store=store,
            kind=kind,
            vectors=vectors,
            overwrite=overwrite,
            show_progress=show_progress,
            timeout=lock_timeout,
        )
        return cls(root, Snapshot.open(root), encoder, lock_timeout=lock_timeout)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        verify: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> Index:
        """Open an index.

        Args:
            path: its directory.
            encoder: the model to search with; None means the one the index was built by, loaded when first needed.
            verify: hash every file. Sizes are always checked, and hashes of files up to 64 MiB.
            lock_timeout: seconds a write waits for another writer.

        Raises:
            IndexingError: there is no index, or it is damaged.
            IndexMismatchError: ``encoder`` is not the model the index was built by.
            DiskError: a Chroma store cannot be written, and there is no room for a private copy of it.
        """
        root = Path(path).expanduser()
        snapshot = Snapshot.open(root, verify=verify)
        if encoder is not None and encoder.fingerprint != snapshot.manifest.model.fingerprint:
            snapshot.close()
            raise writer.mismatch(root, snapshot.manifest, encoder)
        return cls(root, snapshot, encoder, lock_timeout=lock_timeout)

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """Everything the index says about itself."""
        return self._current().manifest

    @property
    def store(self) -> str:
        """``"faiss"`` or ``"chroma"``."""
        return self.manifest.store

    @property
    def kind(self) -> str:
        """How FAISS searches: ``"flat"``, ``"hnsw"`` or ``"ivf-sq8"``."""
        return self.manifest.kind

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self.manifest.dimension

    @property
    def encoder(self) -> Encoder:
        """The model; found by its recorded name on first use.

        Raises:
            ModelError: it is not where it was.
            IndexMismatchError: what is there now is another model.
        """
        with self._finding:
            if self._encoder is None:
                self._encoder = self._find_encoder()
            return self._encoder

    def __len__(self) -> int:
        return self.manifest.count

    def __repr__(self) -> str:
        if self._snapshot is None:
            return f"Index({str(self.path)!r}, closed)"
        return f"Index({str(self.path)!r}, {len(self)} chunks, {self.store})"

    # -- writing -----------------------------------------------------------------------------------------------

    def sync(
        self, chunks: Iterable[Chunk], *, keep: Callable[[str], bool] | None = None, show_progress: bool = False
    ) -> SyncReport:
        """Make the index hold exactly ``chunks``.

        Compares by chunk id. Only new chunks and those whose embedded text changed are embedded; a change of
        metadata alone is written without the model. When nothing changed, nothing is written.

        Args:
            chunks: what it shall hold.
            keep: asked for the id of a document whose chunks would be deleted; where it is true, they stay. With
                ``corpus.report.is_unreadable`` a file that could not be read does not count as gone.
            show_progress: draw a progress bar.

        Raises:
            IndexingError: another writer is at it.
            DiskError: the disk is full; the index is as it was.
        """
        return self._merge(chunks, prune=True, keep=keep, show_progress=show_progress)

    def add(
        self, chunks: Iterable[Chunk], vectors: np.ndarray | None = None, *, show_progress: bool = False
    ) -> SyncReport:
        """Add chunks, or replace those whose id is there already; nothing is deleted.

        Args:
            chunks: what to add.
            vectors: (n, d) embeddings of the chunks, when they are known already.
            show_progress: draw a progress bar.

        Raises:
            IndexMismatchError: the vectors do not have the index's length.
        """
        return self._merge(chunks, vectors=vectors, prune=False, show_progress=show_progress)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete chunks by id, passing over unknown ones; gives how many were deleted."""
        listed = _listed(ids)
        with self._writing:
            self._current()
            deleted = writer.delete(self.path, listed, timeout=self._lock_timeout)
            self.refresh()
        return deleted

    def refresh(self) -> bool:
        """Take up what other processes wrote since; True when there was something."""
        with self._lock:
            current = self._current()
            if Manifest.read(self.path).generation == current.manifest.generation:
                return False
            fresh = Snapshot.open(self.path)
            if self._encoder is not None and self._encoder.fingerprint != fresh.manifest.model.fingerprint:
                fresh.close()
                raise writer.mismatch(self.path, fresh.manifest, self._encoder)
            self._snapshot = fresh  # the old one closes when the last search that uses it ends
            return True

    # -- reading -----------------------------------------------------------------------------------------------

    def get(self, ids: Iterable[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; unknown ids are left out."""
        listed = _listed(ids)
        return self._read(lambda snapshot: snapshot.texts.get(listed))

    def document_ids(self) -> list[str]:
        """The ids of the documents it has chunks of, each once."""
        return self._read(lambda snapshot: list(dict.fromkeys(snapshot.texts.documents())))

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        mode: Mode = "auto",
        vector: np.ndarray | None = None,
    ) -> list[Hit]:
        """The chunks that answer a query best.

        Args:
            query: plain text; the model's query prompt is put before it.
            k: at most this many.
            filter: metadata a chunk must have, applied before the best are picked: ``{"language": "python"}``; a list
                means any of its values, and metadata that is a list must hold one of them; ``document_id`` and ``kind``
                work too, where no metadata has that name.
            mode: ``"hybrid"`` (cosines and BM25 together, by :func:`revela_rag.fusion.fuse`), ``"dense"`` (cosines),
                ``"lexical"`` (BM25, needs no model), or ``"auto"``: hybrid, which finds more (docs/hybrid.md), but
                dense in an index of more than 200,000 chunks, beside which no BM25 is kept.
            vector: the query's embedding, (d,) of any length but zero, where it is not to be made of ``query``, as for
                a hypothetical answer (HyDE); words are still read from ``query``.

        Returns:
            Hits, best first; see :class:`Hit` for what the score means in each mode.

        Raises:
            IndexingError: ``k`` or ``mode`` is out of range, the filter cannot be used, the index is closed.
            IndexMismatchError: the vector does not have the index's length.
        """
        if not isinstance(query, str):
            raise IndexingError(f"The query must be a string, got {type(query).__name__}.")
        vectors = None if vector is None else np.asarray(vector, dtype=np.float32).reshape(1, -1)
        return self._search([query], vectors, k=k, filter=filter, mode=mode)[0]

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        mode: Mode = "auto",
    ) -> list[list[Hit]]:
        """:meth:`search` for several queries at once, which is faster; one list of hits per query."""
        if isinstance(queries, str):
            raise IndexingError("queries is one string; pass a list, or use search().")
        return self._search(queries, None, k=k, filter=filter, mode=mode)

    def resolve_mode(self, mode: Mode) -> Mode:
        """What ``"auto"`` means in this index now; the other modes are themselves.

        Raises:
            IndexingError: there is no such mode.
        """
        check_mode(mode)
        if mode != "auto":
            return mode
        return "hybrid" if len(self) <= LEXICAL_LIMIT else "dense"

    def search_vector(self, vector: np.ndarray, *, k: int = 10, filter: Mapping[str, Any] | None = None) -> list[Hit]:
        """The chunks nearest to a query vector, (d,) of any length but zero; needs no model.

        Raises:
            IndexMismatchError: the vector does not have the index's length.
        """
        _check_k(k)
        row = self._unit(np.asarray(vector, dtype=np.float32).reshape(1, -1))
        return self._read(lambda snapshot: snapshot.dense(row, k, filter))[0]

    def close(self) -> None:
        """Let go of files and memory, after a write that is under way; the index cannot be used any more."""
        with self._writing, self._lock:
            if self._snapshot is not None:
                self._snapshot.close()
                self._snapshot = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------------------------

    def _search(
        self,
        queries: Sequence[str],
        vectors: np.ndarray | None,
        *,
        k: int,
        filter: Mapping[str, Any] | None,
        mode: Mode,
    ) -> list[list[Hit]]:
        _check_k(k)
        mode = self.resolve_mode(mode)
        if not queries or not len(self):
            return [[] for _ in queries]
        if mode == "lexical":
            return self._read(lambda snapshot: snapshot.lexical(queries, k, filter))
        units = self._unit(self.encoder.encode_queries(queries) if vectors is None else vectors)
        if mode == "dense":
            return self._read(lambda snapshot: snapshot.dense(units, k, filter))
        return self._read(lambda snapshot: snapshot.hybrid(queries, units, k, filter))

    def _current(self) -> Snapshot:
        snapshot = self._snapshot
        if snapshot is None:
            raise IndexingError(f"The index {str(self.path)!r} is closed; open it again.")
        return snapshot

    def _read(self, search: Callable[[Snapshot], Result]) -> Result:
        """Search the current generation; once more if a writer took it away meanwhile."""
        snapshot = self._current()
        try:
            return search(snapshot)
        except IndexingError:
            if self._snapshot is None:
                raise
            self.refresh()
            fresh = self._current()
            if fresh is snapshot:
                raise
            return search(fresh)

    def _merge(self, chunks: Iterable[Chunk], **options: Any) -> SyncReport:
        with self._writing:
            self._current()
            report = writer.merge(self.path, chunks, encoder=self.encoder, timeout=self._lock_timeout, **options)
            self.refresh()
        return report

    def _find_encoder(self) -> Encoder:
        from revela_rag.model.encoder import Encoder

        manifest = self.manifest
        recorded = manifest.model
        if not recorded.name:
            raise ModelError(
                f"The index {str(self.path)!r} was built by a model that was only in memory; pass it: "
                "Index.open(path, encoder=Encoder(model))."
            )
        try:
            encoder = Encoder(recorded.name, max_length=recorded.max_length)
        except ModelError as error:
            raise ModelError(
                f"The model that built the index {str(self.path)!r} is not there any more: {error} Pass it: "
                "Index.open(path, encoder=Encoder(directory)), or --model DIRECTORY on the command line."
            ) from error
        if encoder.fingerprint != recorded.fingerprint:
            raise writer.mismatch(self.path, manifest, encoder)
        return encoder

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        dimension = self.dimension
        if vectors.ndim != 2 or vectors.shape[1] != dimension:
            raise IndexMismatchError(
                f"The query vector has length {vectors.shape[-1]}, the index {str(self.path)!r} has {dimension}; "
                "use the model the index was built by."
            )
        if not np.isfinite(vectors).all():
            raise IndexingError("The query vector holds values that are not finite.")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.ascontiguousarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise IndexingError(f"k={k!r} must be a whole number of at least 1.")


def _listed(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str):
        raise IndexingError(f"ids is one string, {ids!r}; pass a list of ids.")
    return [str(id_) for id_ in ids]
