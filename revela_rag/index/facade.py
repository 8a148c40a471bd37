"""The index, as users see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

import numpy as np

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index.filters import Filter, parse_filter
from revela_rag.index.from_source import index_source, sync_source
from revela_rag.index.identity import mismatch
from revela_rag.index.manifest import Manifest
from revela_rag.index.queries import find_encoder, unit_queries
from revela_rag.index.serving import Serving, reopen
from revela_rag.index.snapshot import Snapshot
from revela_rag.index.types import Hit, Mode, SyncReport, check_k, check_mode, check_queries, check_query, listed_ids
from revela_rag.index.words import LEXICAL_LIMIT
from revela_rag.index.writing import writer
from revela_rag.index.writing.generations import LOCK_TIMEOUT
from revela_rag.parts.pipeline import PartOptions, Parts

if TYPE_CHECKING:
    from revela_rag.corpus.load import Source
    from revela_rag.corpus.report import Corpus
    from revela_rag.model.encoder import Encoder

__all__ = ["Index"]

Result = TypeVar("Result")
Kind = Literal["flat", "hnsw", "ivf-sq8", "rabitq", "int4", "int8", "fp16"]


class Index:
    """Chunks and their vectors on disk, searchable by meaning, by words, or by both.

    Made by :meth:`build` or :meth:`open`. One index may be searched by many threads and opened by many processes;
    writers take turns. A search sees the index as it was before a write or after it, never in between. What another
    process wrote is seen by the next search, or after :meth:`refresh` where ``auto_refresh`` is off.
    """

    def __init__(
        self,
        path: Path,
        snapshot: Snapshot,
        encoder: Encoder | None,
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        auto_refresh: bool = True,
    ) -> None:
        self.path = path
        self.auto_refresh = auto_refresh
        self._encoder = encoder
        self._lock_timeout = lock_timeout
        self._serving = Serving(path, snapshot, check=self._check_model)
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
        dimensions: int | None = None,
        vectors: np.ndarray | None = None,
        show_progress: bool = False,
        overwrite: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
        auto_refresh: bool = True,
    ) -> Index:
        """Embed chunks and write them as an index.

        Args:
            chunks: consumed once, in batches; of several with one id the first is kept.
            encoder: the model; its fingerprint is stored with the index.
            path: a new or empty directory, or an index to replace.
            store: ``"faiss"``, or ``"chroma"``, approximate above 10,000 vectors.
            kind: how FAISS searches: ``"flat"`` compares all vectors; ``"hnsw"`` walks a graph, fastest, in about 1.2
                times the memory of the vectors; ``"ivf-sq8"`` looks into some clusters of 8-bit codes, in a quarter;
                ``"rabitq"``, ``"int4"``, ``"int8"`` and ``"fp16"`` compare all vectors by codes, in 1/27, 1/8, 1/4 and
                1/2 of it, and the closest exactly, from disk. Below 10,000 vectors all search exactly.
            dimensions: keep only so many of the vectors' dimensions, on disk and in memory: the directions that hold
                most of this corpus, until the index is built anew.
            vectors: (n, d) embeddings of the chunks in their order, when they are known already.
            show_progress: draw a progress bar.
            overwrite: replace an index that is there; until the new one is complete the old one is served.
            lock_timeout: seconds to wait for another writer, now and in later writes.
            auto_refresh: see :meth:`open`.

        Raises:
            IndexingError: the path holds something else or, without ``overwrite``, an index; another writer is at it.
            DiskError: the disk is full; nothing half-written is left.
            MissingExtraError: chromadb is not installed.
        """
        root = Path(path).expanduser().absolute()
        what: dict[str, Any] = {"store": store, "kind": kind, "dimensions": dimensions, "vectors": vectors}
        how: dict[str, Any] = {"overwrite": overwrite, "show_progress": show_progress, "timeout": lock_timeout}
        writer.build(root, chunks, encoder=encoder, **what, **how)
        return cls(root, Snapshot.open(root), encoder, lock_timeout=lock_timeout, auto_refresh=auto_refresh)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        verify: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
        auto_refresh: bool = True,
    ) -> Index:
        """Open an index.

        Args:
            path: its directory.
            encoder: the model to search with; None means the one the index was built by, loaded when first needed.
            verify: hash every file. Sizes are always checked, and hashes of files up to 64 MiB.
            lock_timeout: seconds a write waits for another writer.
            auto_refresh: whether a search looks first, by one ``stat``, if another process wrote, and takes that up;
                what cannot be taken up (another index, another model) is logged, and searches go on as before.

        Raises:
            IndexingError: there is no index, or it is damaged.
            IndexMismatchError: ``encoder`` is not the model the index was built by.
            DiskError: a Chroma store cannot be written, and there is no room for a private copy of it.
        """
        root = Path(path).expanduser().absolute()
        snapshot = Snapshot.open(root, verify=verify)
        if encoder is not None and encoder.fingerprint != snapshot.manifest.model.fingerprint:
            snapshot.close()
            raise mismatch(root, snapshot.manifest, encoder)
        return cls(root, snapshot, encoder, lock_timeout=lock_timeout, auto_refresh=auto_refresh)

    @classmethod
    def from_source(
        cls,
        source: Source | Corpus,
        *,
        path: str | Path,
        encoder: Encoder | None = None,
        store: Literal["faiss", "chroma"] | None = None,
        kind: Kind | None = None,
        dimensions: int | None = None,
        overwrite: bool = False,
        deduplicate: bool = False,
        show_progress: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
        auto_refresh: bool = True,
    ) -> Index:
        """The index of a source: built where there is none, brought up to date by :meth:`sync_source` where there is.

        Args:
            source: anything :func:`revela_rag.load_corpus` reads, or a corpus that it gave.
            path: directory of the index.
            encoder: the model; None means the one that an existing index was built by.
            store: None means FAISS, or what an existing index has; see :meth:`build`.
            kind: None means ``"flat"``, or what an existing index has.
            dimensions: None means all, or as many as an existing index keeps.
            overwrite: build anew where there is an index.
            deduplicate: leave out chunks that equal or nearly equal an earlier one of any document.
            show_progress: draw progress bars.
            lock_timeout: seconds to wait for another writer.
            auto_refresh: see :meth:`open`.

        Raises:
            IndexingError: the arguments do not fit the index that is there, or it is one of another source.
            IndexMismatchError: it was built by another model.
            CorpusError: nothing usable in the source.
        """
        options: dict[str, Any] = {"store": store, "kind": kind, "dimensions": dimensions, "overwrite": overwrite}
        opening: dict[str, Any] = {"lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
        more = {**options, **opening, "deduplicate": deduplicate, "show_progress": show_progress}
        return index_source(cls, source, path=path, encoder=encoder, **more)[0]

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
        """How FAISS searches, see :meth:`build`."""
        return self.manifest.kind

    @property
    def dimension(self) -> int:
        """Length of the vectors that it keeps; with ``dimensions`` less than the model's."""
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
                self._encoder = find_encoder(self.path, self.manifest)
            return self._encoder

    def __len__(self) -> int:
        return self._serving.followed(follow=self.auto_refresh).manifest.count

    def __repr__(self) -> str:
        if self._serving.closed:
            return f"Index({str(self.path)!r}, closed)"
        return f"Index({str(self.path)!r}, {len(self)} chunks, {self.store})"

    # -- writing -----------------------------------------------------------------------------------------------

    def sync(
        self, chunks: Iterable[Chunk], *, keep: Callable[[str], bool] | None = None, show_progress: bool = False
    ) -> SyncReport:
        """Make the index hold exactly ``chunks``.

        Compares by chunk id. Only new chunks and those whose embedded text changed are embedded; a change of
        metadata alone is written without the model. When nothing changed, nothing is written but BM25 where it is gone.

        Args:
            chunks: what it shall hold.
            keep: asked for the id of a document whose chunks would be deleted; where it is true, they stay. With
                ``corpus.report.is_unreadable`` a file that could not be read does not count as gone.
            show_progress: draw a progress bar.

        Raises:
            IndexingError: another writer is at it.
            DiskError: the disk is full; the index is as it was.
        """
        return self._merge(chunks, "index", keep=keep, show_progress=show_progress)

    def sync_source(
        self, source: Source | Corpus, *, deduplicate: bool = False, show_progress: bool = False
    ) -> SyncReport:
        """Make the index hold what a source holds, see :meth:`sync`.

        Documents that are there but could not be read (a disk error, a permission, broken JSON) stay.

        Args:
            source: anything :func:`revela_rag.load_corpus` reads, or a corpus that it gave.
            deduplicate: leave out chunks that equal or nearly equal an earlier one of any document.
            show_progress: draw progress bars.

        Raises:
            IndexingError: the index holds documents and the source has none of them, so that all would be deleted.
            CorpusError: nothing usable in the source.
        """
        return sync_source(self, source, deduplicate=deduplicate, show_progress=show_progress)[1]

    def add(
        self, chunks: Iterable[Chunk], vectors: np.ndarray | None = None, *, show_progress: bool = False
    ) -> SyncReport:
        """Add chunks, or replace those whose id is there already; nothing is deleted.

        A chunk's id follows from its text, so that a changed text is added beside the old one: see :meth:`upsert`.

        Args:
            chunks: what to add.
            vectors: (n, d) embeddings of the chunks, when they are known already.
            show_progress: draw a progress bar.

        Raises:
            IndexMismatchError: the vectors do not have the index's length.
        """
        return self._merge(chunks, "chunks", vectors=vectors, show_progress=show_progress)

    def upsert(
        self, chunks: Iterable[Chunk], vectors: np.ndarray | None = None, *, show_progress: bool = False
    ) -> SyncReport:
        """Make the index hold exactly ``chunks`` of the documents that they belong to; other documents stay.

        This replaces a document whose text changed. Give all pieces of a document at once: those that do not come in
        are deleted.

        Args:
            chunks: of some documents, told apart by ``document_id``.
            vectors: as for :meth:`add`.
            show_progress: draw a progress bar.

        Raises:
            IndexMismatchError: the vectors do not have the index's length.
        """
        return self._merge(chunks, "documents", vectors=vectors, show_progress=show_progress)

    def delete(
        self,
        ids: Iterable[str] = (),
        *,
        documents: Iterable[str] = (),
        filter: Filter | None = None,
    ) -> int:
        """Delete chunks: those with one of the ids, those of the documents, and those that match the filter.

        Args:
            ids: of chunks, or as they were given to the LangChain documents and LlamaIndex nodes that became chunks.
            documents: ids of documents, such as ``"book.pdf"``.
            filter: as in :meth:`search`; one without keys, which would match everything, is refused.

        Returns:
            How many chunks were deleted. Nothing at all is worth a warning in the log.

        Raises:
            IndexingError: nothing says what to delete, an id is a document's, or the filter cannot be used.
        """
        listed, named = listed_ids(ids), listed_ids(documents, "documents")
        condition = parse_filter(filter)
        if filter is not None and condition is None:
            raise IndexingError("The filter is empty and would delete everything; use sync([]) if that is meant.")
        with self._writing:
            opened = self._current().manifest
            what: dict[str, Any] = {"ids": listed, "documents": named, "filter": filter}
            deleted = writer.delete(self.path, **what, timeout=self._lock_timeout, opened=opened)
            self._serving.take_up(warm=True)
        return deleted

    def refresh(self) -> bool:
        """Take up what other processes wrote since; True when there was something.

        Raises:
            IndexMismatchError: another index lies there now, or one of another model.
        """
        return self._serving.take_up(warm=False)

    # -- reading -----------------------------------------------------------------------------------------------

    def get(self, ids: Iterable[str] | None = None, *, filter: Filter | None = None) -> list[Chunk]:
        """Chunks by id, in the order asked for, or all, in the order in which they came in; unknown ids are left out.

        Args:
            ids: as for :meth:`delete`; None means all.
            filter: what their metadata must be, as in :meth:`search`.

        Raises:
            IndexingError: the filter cannot be used.
        """
        listed, condition = None if ids is None else listed_ids(ids), parse_filter(filter)
        return self._read(lambda snapshot: snapshot.texts.get(listed, condition))

    def document_ids(self) -> list[str]:
        """The ids of the documents it has chunks of, each once."""
        return self._read(lambda snapshot: list(dict.fromkeys(snapshot.texts.documents())))

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        filter: Filter | None = None,
        mode: Mode = "auto",
        vector: np.ndarray | None = None,
        **parts: Unpack[PartOptions],
    ) -> list[Hit]:
        """The chunks that answer a query best.

        Args:
            query: plain text; the model's query prompt is put before it.
            k: at most this many.
            filter: metadata a chunk must have, before the best are picked: ``{"year": {"$gte": 2020}}``, or a function
                of it; see :func:`revela_rag.index.filters.parse_filter`.
            mode: ``"hybrid"`` (cosines and BM25 together, by :func:`revela_rag.fusion.fused_scores`), ``"dense"``
                (cosines), ``"lexical"`` (BM25, needs no model), or ``"auto"``: hybrid, which finds more
                (docs/results.md), but dense in an index of more than 200,000 chunks, beside which no BM25 is kept.
            vector: the query's embedding, (d,) and not zero, as of a hypothetical answer (HyDE); None makes it of
                ``query``, whose words are read in any case.
            parts: ``feedback``, ``rerank``, ``rerank_top``, ``select``: see :class:`revela_rag.parts.PartOptions`.

        Returns:
            Hits, best first; see :class:`Hit` for what the score means in each mode.

        Raises:
            IndexingError: an argument cannot be used, a part gives what it must not, the index is closed.
            IndexMismatchError: the vector does not have the index's length.
        """
        check_query(query)
        vectors = None if vector is None else np.asarray(vector, dtype=np.float32).reshape(1, -1)
        return self._search([query], vectors, Parts.of(**parts), k=k, filter=filter, mode=mode)[0]

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filter: Filter | None = None,
        mode: Mode = "auto",
        **parts: Unpack[PartOptions],
    ) -> list[list[Hit]]:
        """:meth:`search` for several queries at once, which is faster; one list of hits per query."""
        check_queries(queries)
        return self._search(queries, None, Parts.of(**parts), k=k, filter=filter, mode=mode)

    def resolve_mode(self, mode: Mode) -> Mode:
        """What ``"auto"`` means in this index now; the other modes are themselves.

        Raises:
            IndexingError: there is no such mode.
        """
        check_mode(mode)
        if mode != "auto":
            return mode
        return "hybrid" if len(self) <= LEXICAL_LIMIT else "dense"

    def close(self) -> None:
        """Let go of files and memory, after a write that is under way; the index cannot be used any more."""
        with self._writing:
            self._serving.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same index: a copy of what holds one shares it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the index again, from where it is."""
        manifest = self._current().manifest
        settings = {"encoder": self._encoder, "lock_timeout": self._lock_timeout, "auto_refresh": self.auto_refresh}
        return reopen, (type(self), self.path, manifest, settings)

    # -- inside ------------------------------------------------------------------------------------------------

    def _search(
        self,
        queries: Sequence[str],
        vectors: np.ndarray | None,
        parts: Parts,
        *,
        k: int,
        filter: Filter | None,
        mode: Mode,
    ) -> list[list[Hit]]:
        check_k(k)
        condition = parse_filter(filter)
        mode = self.resolve_mode(mode)
        if not len(queries) or not self._current().manifest.count:
            return [[] for _ in queries]
        if mode == "lexical" and parts.refiner is not None:
            raise IndexingError("feedback moves a query's vector, and lexical search has none; use another mode.")
        given = self.encoder.encode_queries(queries) if vectors is None and mode != "lexical" else vectors
        units = np.empty(0) if given is None else unit_queries(given, self.manifest.query_dimension, self.path)

        def shown(snapshot: Snapshot) -> list[list[Hit]]:
            found = snapshot.find(mode, queries, units, parts.depth(k), condition, parts.refiner)
            pairs = zip(queries, found, strict=True)
            return [parts.applied(query, hits, k, snapshot.vectors_of) for query, hits in pairs]

        return self._read(shown)

    def _current(self) -> Snapshot:
        return self._serving.current()

    def _read(self, search: Callable[[Snapshot], Result]) -> Result:
        return self._serving.read(search, follow=self.auto_refresh)

    def _check_model(self, manifest: Manifest) -> None:
        if self._encoder is not None and self._encoder.fingerprint != manifest.model.fingerprint:
            raise mismatch(self.path, manifest, self._encoder)

    def _merge(
        self,
        chunks: Iterable[Chunk],
        scope: writer.Scope,
        *,
        vectors: np.ndarray | None = None,
        keep: Callable[[str], bool] | None = None,
        show_progress: bool,
    ) -> SyncReport:
        self.refresh()
        before, encoder = self._current(), self.encoder
        given: dict[str, Any] = {"vectors": vectors, "show_progress": show_progress}
        with writer.stage(self.path, chunks, before=before, encoder=encoder, **given) as staged, self._writing:
            opened = self._current().manifest
            options: dict[str, Any] = {"keep": keep, "timeout": self._lock_timeout, "opened": opened}
            report = writer.merge(self.path, staged, encoder=encoder, scope=scope, **options)
            self._serving.take_up(warm=True)
        return report
