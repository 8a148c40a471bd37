"""The manifest: what an index is, which generation is current, and what its files should look like.

``manifest.json`` is also the pointer: replacing that one file, atomically, is what publishes a generation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from revela_rag.errors import IndexingError
from revela_rag.index.stores import STORES
from revela_rag.index.stores.chroma_file import DATABASE, changed_by_readers, is_cut

__all__ = ["MANIFEST_FILE", "FileEntry", "Manifest", "ModelEntry", "describe_files", "pointer"]

MANIFEST_FILE = "manifest.json"
GENERATION = re.compile(r"generation-[0-9]{6,12}")
_FORMAT, _VERSION = "revela-index", 2
_MAX_BYTES = 16_000_000
_HASHED_ALWAYS = 64 * 2**20  # bytes; larger files are hashed only on request
_TOUCHED_BY_READERS = re.compile(rf"chroma(?:-[0-9a-f]+)?/{re.escape(DATABASE)}")
_MOST_SPANS = 16
_BLOCK = 2**20  # bytes read at once


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The model an index was built by.

    Attributes:
        name: directory, hub id or alias that loads it again; ``""`` for a model that was never on disk.
        fingerprint: see :func:`revela_rag.model.fingerprint.fingerprint`.
        max_length: tokens, when the user chose them; None when the model did.
        query_prompt: for information; the model's own prompt is what is applied.
        document_prompt: likewise.
        trust: how much its cosines count beside BM25, where it was adapted; None where that is measured.
    """

    name: str
    fingerprint: str
    max_length: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    trust: float | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file was when it was written.

    Attributes:
        size: in bytes; None in indexes of earlier versions, for a file that readers may change.
        sha256: of its content, with zeros in place of what is ``changing``; None as for ``size``.
        changing: start and stop of the bytes that readers may change. A file with such may also grow.
    """

    size: int | None
    sha256: str | None
    changing: tuple[tuple[int, int], ...] = ()

    def check(self, file: Path, *, full: bool = False) -> None:
        """Compare a file with what was written: its size, and its hash up to 64 MiB or where ``full``.

        Raises:
            IndexingError: it is missing, truncated or altered.
        """
        try:
            size = file.stat().st_size
            grown = self.changing and self.size is not None and size > self.size
            if self.size is None:
                if is_cut(file):
                    raise IndexingError(f"{str(file)!r} is cut off ({size:,} bytes): it is damaged; build again.")
                return
            if size != self.size and (not grown or is_cut(file)):
                raise IndexingError(
                    f"{str(file)!r} has {size:,} bytes instead of {self.size:,}: it is damaged; build again."
                )
            if (full or self.size <= _HASHED_ALWAYS) and self != FileEntry.of(file, self.changing, size=self.size):
                raise IndexingError(f"{str(file)!r} has changed since it was written (sha256 differs); build again.")
        except OSError as error:
            raise IndexingError(f"{str(file)!r} is missing or unreadable ({error}); build again.") from error

    @classmethod
    def of(cls, file: Path, changing: tuple[tuple[int, int], ...] = (), *, size: int | None = None) -> FileEntry:
        """The entry of a file, or of its first ``size`` bytes."""
        size = file.stat().st_size if size is None else size
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            if not changing:
                return cls(size, hashlib.file_digest(stream, "sha256").hexdigest())
            for start, stop, changes in _spans(changing, size):
                for place in range(start, stop, _BLOCK):
                    block = stream.read(min(_BLOCK, stop - place))
                    digest.update(bytes(len(block)) if changes else block)
        return cls(size, digest.hexdigest(), changing)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything an index says about itself. ``metric`` is always cosine; ``kind`` says how FAISS searches.

    ``identity`` is drawn when an index is built and kept by everything that is written to it, so that another index
    that came to lie in its place is told from it; ``""`` in indexes of earlier versions, until they are written.
    ``window`` is how many tokens of the model its chunks were cut for, as the corpus said that it was built from or
    synced with last; None where they were cut by words alone.

    ``dimension`` is the length of the vectors that are stored, ``model_dimension`` that of the model's where fewer are
    kept (:mod:`revela_rag.index.rotation`), and None where they are stored whole.
    """

    generation: str
    store: str
    kind: str
    dimension: int
    count: int
    model: ModelEntry
    library: str
    created: str
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    identity: str = ""
    window: int | None = None
    model_dimension: int | None = None

    @property
    def query_dimension(self) -> int:
        """Length of the vectors that come in."""
        return self.model_dimension or self.dimension

    def to_json(self) -> str:
        """As stored."""
        said = {"format": _FORMAT, "version": _VERSION, "metric": "cosine", **asdict(self)}
        return _written({**said, "sha256": hashlib.sha256(_written(said).encode()).hexdigest()})

    @classmethod
    def read(cls, root: Path, *, full: bool = False) -> Manifest:
        """Read and check the manifest of the index in ``root``; where ``full``, its own hash too, if it has one.

        Raises:
            IndexingError: there is none, it is damaged, of another version, or names files outside the index.
        """
        file = root / MANIFEST_FILE
        if not file.is_file():
            raise IndexingError(
                f"{str(root)!r} is not an index: it has no {MANIFEST_FILE}. Build one with "
                f"`revela index SOURCE --model MODEL --output {root}` or Index.build(..., path={str(root)!r})."
            )
        try:
            if file.stat().st_size > _MAX_BYTES:
                raise ValueError(f"it is larger than {_MAX_BYTES:,} bytes")
            text = file.read_bytes()
            data = json.loads(text)
            manifest = cls._parse(data)
            if full and "sha256" in data:
                digest = data.pop("sha256")
                whole = hashlib.sha256(_written(data).encode()).hexdigest() == digest
                if not whole or text != _written({**data, "sha256": digest}).encode():
                    raise ValueError("it has changed since it was written (its sha256 differs)")
            return manifest
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            raise IndexingError(f"{str(file)!r} cannot be used: {error}. Build the index again.") from error

    @classmethod
    def _parse(cls, data: Any) -> Manifest:
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ValueError("it is not the manifest of a revela index")
        if data.get("version") != _VERSION:
            raise ValueError(f"it has version {data.get('version')!r}, this library reads version {_VERSION}")
        model, files = _of(data, "model", dict), _of(data, "files", dict)
        longest = model.get("max_length")
        manifest = cls(
            generation=_of(data, "generation", str),
            store=_of(data, "store", str),
            kind=_of(data, "kind", str),
            dimension=_of(data, "dimension", int),
            count=_of(data, "count", int),
            model=ModelEntry(
                name=_of(model, "name", str),
                fingerprint=_of(model, "fingerprint", str),
                max_length=None if longest is None else _of(model, "max_length", int),
                query_prompt=_of(model, "query_prompt", str),
                document_prompt=_of(model, "document_prompt", str),
                trust=None if model.get("trust") is None else _of(model, "trust", float),
            ),
            library=_of(data, "library", str),
            created=_of(data, "created", str),
            files={_safe(name): _file(entry) for name, entry in files.items()},
            identity=_of(data, "identity", str) if "identity" in data else "",
            model_dimension=None if data.get("model_dimension") is None else _of(data, "model_dimension", int),
            window=None if data.get("window") is None else _of(data, "window", int),
        )
        if not GENERATION.fullmatch(manifest.generation):
            raise ValueError(f"generation {manifest.generation!r} is not the name of a generation")
        if manifest.store not in STORES:
            raise ValueError(f"store {manifest.store!r} is not one of {', '.join(STORES)}")
        if manifest.kind not in (kinds := STORES[manifest.store].kinds):
            raise ValueError(f"kind {manifest.kind!r} is not one of {', '.join(kinds)}")
        if not 1 <= manifest.dimension <= 1_000_000 or manifest.count < 0:
            raise ValueError(f"dimension {manifest.dimension} or count {manifest.count} is out of range")
        if manifest.model.trust is not None and not 0 < manifest.model.trust < 1:
            raise ValueError(f"trust {manifest.model.trust} is not between 0 and 1")
        if manifest.model_dimension is not None and not manifest.dimension < manifest.model_dimension <= 1_000_000:
            raise ValueError(f"model_dimension {manifest.model_dimension} does not fit dimension {manifest.dimension}")
        return manifest

    def is_same_index(self, later: Manifest) -> bool:
        """Whether ``later``, read from the same place, belongs to the same index."""
        return self.identity in ("", later.identity)

    def verify(self, folder: Path, *, full: bool = False) -> None:
        """Compare the files of the generation in ``folder`` with what was written.

        Sizes are always compared, hashes for files up to 64 MiB; ``full`` hashes every file.

        Raises:
            IndexingError: a file is missing, truncated or altered, or no file at all but a pipe or a device.
        """
        try:
            for file in folder.rglob("*"):
                if not file.is_file() and not file.is_dir():
                    raise IndexingError(f"{str(file)!r} is not a regular file, or is gone; build the index again.")
        except OSError as error:  # a writer has replaced the generation, perhaps
            raise IndexingError(f"{str(folder)!r} is missing or unreadable ({error}); build again.") from error
        for name, entry in self.files.items():
            entry.check(folder / name, full=full)


def pointer(root: Path) -> tuple[int, int, int] | None:
    """What changes whenever another generation is published in ``root``, by one ``stat``; None without a manifest."""
    try:
        stat = (root / MANIFEST_FILE).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def describe_files(
    folder: Path, *, known: Path | None = None, entries: Mapping[str, FileEntry] | None = None
) -> dict[str, FileEntry]:
    """Size and hash of every file below ``folder``.

    Args:
        folder: a generation.
        known: the generation before it.
        entries: what is known of its files; those that were linked are not hashed again.
    """
    described = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        entry = (entries or {}).get(name)
        if _TOUCHED_BY_READERS.fullmatch(name):
            described[name] = FileEntry.of(file, changed_by_readers(file))
        elif entry is not None and known is not None and (known / name).exists() and file.samefile(known / name):
            described[name] = entry
        else:
            described[name] = FileEntry.of(file)
    return described


def _of(data: Mapping[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key!r} is {value!r} instead of {kind.__name__}")
    return value


def _file(entry: Any) -> FileEntry:
    if not isinstance(entry, dict):
        raise ValueError(f"a file entry is {entry!r}")
    if entry.get("size") is None and entry.get("sha256") is None:
        return FileEntry(None, None)
    changing = tuple(map(tuple, entry.get("changing") or ()))
    size = _of(entry, "size", int)
    places = [place for span in changing for place in span]
    known = all(type(place) is int for place in places) and all(len(span) == 2 for span in changing)
    if not known or len(changing) > _MOST_SPANS or places != sorted(places) or not all(0 <= p <= size for p in places):
        raise ValueError(f"a file has {entry.get('changing')!r} as what changes in it")
    return FileEntry(size, _of(entry, "sha256", str), changing)


def _spans(changing: tuple[tuple[int, int], ...], size: int) -> Iterator[tuple[int, int, bool]]:
    """Start and stop of all parts of a file, in turn, and whether what is there changes."""
    place = 0
    for start, stop in changing:
        yield place, start, False
        yield start, stop, True
        place = stop
    yield place, size, False


def _safe(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name or not path.parts:
        raise ValueError(f"it names the file {name!r}, outside the index")
    return name


def _written(said: Mapping[str, Any]) -> str:
    return json.dumps(said, indent=2, sort_keys=True) + "\n"
