"""Whether an index is whole: every byte of its files, and whether its texts, vectors and words belong together."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from revela_rag.checks import Check
from revela_rag.errors import IndexingError, IndexMismatchError, ModelError, RevelaError
from revela_rag.index.checks.sizes import index_parts
from revela_rag.index.manifest import MANIFEST_FILE, Manifest
from revela_rag.index.queries import find_encoder
from revela_rag.index.rotation import Rotation
from revela_rag.index.snapshot import LEXICAL_FOLDER, Snapshot
from revela_rag.index.stores import store_class
from revela_rag.index.stores.chroma_file import DATABASE, JOURNAL, check_integrity
from revela_rag.index.texts import TEXTS_FILE, TextStore
from revela_rag.index.words import LEXICAL_LIMIT, WordIndex, are_current
from revela_rag.index.writing.generations import LOCK_FILE, QUEUE_FILE
from revela_rag.model.find import is_here

__all__ = ["open_index", "verify_index"]

_BATCH = 4096
_LISTED = 10  # faults of one kind that are told one by one
_FROM_UNIT = 1e-3  # a vector of unit length in float32 is within 1e-6; those of low precision are rounded


def verify_index(path: str | Path) -> Iterator[Check]:
    """Check the current generation of an index, part by part; what is damaged is not looked into further.

    Args:
        path: its directory.

    Yields:
        One check for each part, and one for each fault of a file. No fault raises.
    """
    root = Path(path).expanduser().absolute()
    build = f"revela index SOURCE --model MODEL --output {shlex.quote(str(root))} --overwrite"
    remedy = f"restore it from a copy of the whole directory, or build the index again: {build}"
    try:
        manifest = Manifest.read(root, full=True)
    except IndexingError as error:
        yield Check("manifest", "failed", str(error), remedy)
        return
    build = build.replace("MODEL", shlex.quote(manifest.model.name or "MODEL"))
    remedy = f"restore it from a copy of the whole directory, or build the index again: {build}"
    yield Check(
        "manifest", "ok", f"{manifest.generation}: {_described(manifest)}; by {manifest.library}, {manifest.created}"
    )
    yield from _leftovers(root, manifest)
    damaged = set()
    for name, check in _files(root / manifest.generation, manifest, remedy):
        damaged.add(_part(name) if check.status == "failed" else "")
        yield check
    yield from _contents(root / manifest.generation, manifest, damaged, remedy)
    yield _model(root, manifest)


def open_index(path: str | Path) -> Iterator[Check]:
    """What opening an index finds (sizes, and hashes of files up to 64 MiB), and what its parts take."""
    root = Path(path).expanduser().absolute()
    try:
        snapshot = Snapshot.open(root)
    except RevelaError as error:
        yield Check("index", "failed", str(error), "find every fault: revela doctor INDEX --verify")
        return
    manifest = snapshot.manifest
    snapshot.close()
    yield Check("index", "ok", f"{manifest.generation}: {_described(manifest)}")
    for part in index_parts(root):
        yield Check(part.name, "ok", part.summary())


def _described(manifest: Manifest) -> str:
    whole = f" of {manifest.model_dimension}" if manifest.model_dimension else ""
    return f"{manifest.store}, {manifest.kind}, {manifest.count:,} chunks, {manifest.dimension}{whole} dimensions"


def _leftovers(root: Path, manifest: Manifest) -> Iterator[Check]:
    ours = {MANIFEST_FILE, LOCK_FILE, QUEUE_FILE, manifest.generation}
    others = sorted(entry.name for entry in root.iterdir() if entry.name not in ours)
    if others:
        said = ", ".join(others[:_LISTED])
        yield Check("leftovers", "warning", said, "nothing, if a write is under way; else the next one removes them")


def _files(folder: Path, manifest: Manifest, remedy: str) -> Iterator[tuple[str, Check]]:
    """The checks of the files, each with the name of one in ``folder``."""
    faults: list[tuple[str, str]] = []
    for name, entry in manifest.files.items():
        try:
            entry.check(folder / name, full=True)
        except IndexingError as error:
            faults.append((name, str(error)))
    strange = []
    for path in sorted(folder.rglob("*")) if manifest.files else ():
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in manifest.files and path.name != JOURNAL:
            strange.append(name)
    faults += [(name, f"{str(folder / name)!r} is not of this index, or not a regular file") for name in strange]
    for name, said in faults[:_LISTED]:
        yield name, Check("file", "failed", said, remedy)
    for name, _ in faults[_LISTED:]:
        yield name, Check("file", "failed", f"{str(folder / name)!r} is damaged, missing or strange, too", remedy)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    unhashed = [name for name, entry in manifest.files.items() if entry.sha256 is None]
    held = f"{len(manifest.files)} files, {size / 1e6:,.1f} MB"
    if unhashed or not manifest.files:
        said = ", ".join(unhashed) or "any"
        yield (
            "",
            Check("files", "warning", f"{held}; there is no hash of {said}", "the next write to the index adds it"),
        )
    elif not faults:
        yield "", Check("files", "ok", f"{held}, as they were written")


def _part(name: str) -> str:
    return "texts" if name == TEXTS_FILE else "words" if name.startswith(f"{LEXICAL_FOLDER}/") else "vectors"


def _contents(folder: Path, manifest: Manifest, damaged: set[str], remedy: str) -> Iterator[Check]:
    """Texts, vectors and words, and that they are of the same rows."""
    if "texts" in damaged:
        yield Check("contents", "missing", "not looked at, as the texts are damaged")
        return
    try:
        texts = TextStore.open(folder / TEXTS_FILE)
    except IndexingError as error:
        yield Check("texts", "failed", str(error), remedy)
        return
    with closing(texts):
        for name, look in (("texts", _texts), ("vectors", _vectors), ("words", _words)):
            if name in damaged:
                yield Check(name, "missing", "not looked at, as their files are damaged")
                continue
            try:
                yield look(folder, manifest, texts)
            except RevelaError as error:
                yield Check(name, "failed", str(error), remedy)
            except Exception as error:  # of damage that nothing above foresaw
                yield Check(name, "failed", f"{type(error).__name__}: {error}", remedy)


def _texts(folder: Path, manifest: Manifest, texts: TextStore) -> Check:
    texts.check_integrity()
    rows = texts.rows()
    if len(rows) != manifest.count:
        raise IndexingError(f"There are {len(rows):,} texts, the manifest says {manifest.count:,}.")
    for start in range(0, len(rows), _BATCH):
        texts.chunks(rows[start : start + _BATCH].tolist())
    return Check("texts", "ok", f"{len(rows):,} chunks of {len(set(texts.documents())):,} documents")


def _vectors(folder: Path, manifest: Manifest, texts: TextStore) -> Check:
    for file in folder.glob(f"*/{DATABASE}"):
        check_integrity(file)
    if manifest.model_dimension is not None:
        Rotation.read(folder, (manifest.model_dimension, manifest.dimension))
    store = store_class(manifest.store).open(
        folder, dimension=manifest.dimension, count=manifest.count, kind=manifest.kind
    )
    with closing(store):
        rows, held = texts.rows(), np.sort(store.rows())
        if not np.array_equal(rows, held):
            without = len(np.setdiff1d(rows, held))
            raise IndexingError(f"{without:,} texts have no vector, {len(np.setdiff1d(held, rows)):,} vectors no text.")
        zeros = 0
        for start in range(0, len(rows), _BATCH):
            some = store.vectors(rows[start : start + _BATCH])
            lengths = np.linalg.norm(some, axis=1)
            bad = ~np.isfinite(lengths) | ((np.abs(lengths - 1) > _FROM_UNIT) & (lengths != 0))
            if bad.any():
                row = int(rows[start + int(np.flatnonzero(bad)[0])])
                raise IndexingError(f"The vector of row {row} has the length {lengths[bad][0]:g} instead of 1.")
            zeros += int((lengths == 0).sum())
    if zeros:
        return Check(
            "vectors", "warning", f"{len(rows):,}, of which {zeros:,} are zero and near nothing", "none needed"
        )
    return Check("vectors", "ok", f"{len(rows):,} of unit length, one for each text")


def _words(folder: Path, manifest: Manifest, texts: TextStore) -> Check:
    rows, place = texts.rows(), folder / LEXICAL_FOLDER
    if not are_current(place, rows):
        if len(rows) > LEXICAL_LIMIT:
            return Check("words", "ok", f"none are kept of more than {LEXICAL_LIMIT:,} chunks")
        return Check("words", "warning", "none of this version; searches read them from the texts", "sync the index")
    words = WordIndex.load(place, rows, texts.documents())
    return Check("words", "ok", f"of {len(words.rows):,} texts")


def _model(root: Path, manifest: Manifest) -> Check:
    name = manifest.model.name
    try:
        if name and not is_here(name):
            raise ModelError(f"{name!r} is not on this machine.")
        find_encoder(root, manifest)
    except IndexMismatchError as error:
        return Check("model", "failed", str(error), "open the index with the model it was built by, or build it again")
    except RevelaError as error:
        return Check("model", "missing", str(error), "give its directory where you search: --model DIRECTORY")
    return Check("model", "ok", f"{name}, fingerprint {manifest.model.fingerprint[:12]} as recorded")
