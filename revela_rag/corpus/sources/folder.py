"""The files of a folder that belong to a corpus."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from revela_rag.corpus.formats.names import format_of
from revela_rag.corpus.report import CorpusReport

__all__ = ["walk_files"]

#: Files of a folder that may hold tools or records.
RECORD_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv"})

_GENERATION = re.compile(r"generation-\d+")
#: Folders that hold installed packages or caches, never a user's own documents.
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages", "dist-packages", "bower_components"})


def walk_files(root: Path, report: CorpusReport) -> Iterator[Path]:
    """Files of a known kind below ``root``, sorted by name, folder by folder, and those that may hold tools or records.

    Respects ``.gitignore`` files at every level, and those above ``root`` up to the top of its repository unless they
    ignore ``root`` itself. Leaves out without counting: hidden files and folders, virtual environments, models and
    indexes that this library wrote, ``node_modules``, ``site-packages``, ``__pycache__``. Links to folders are never
    followed, links to files only inside ``root``. What else is left out is counted in ``report``.
    """
    root = root.resolve()
    stack: list[tuple[Path, list[tuple[Path, Any]]]] = [(root, _specs_above(root))]
    while stack:
        folder, specs = stack.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            report.fail(error, _name(folder, root), "unreadable folder")
            continue
        names = {entry.name for entry in entries}
        if folder != root and ("pyvenv.cfg" in names or _is_ours(names)):
            continue
        spec = _spec(folder)
        specs = [*specs, (folder, spec)] if spec else specs
        below = []
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
                continue
            try:
                kind = _kind(entry, root)
            except OSError as error:
                report.fail(error, _name(path, root))
                continue
            if kind == "folder":
                if _ignored(path, specs, folder=True):
                    report.skip("ignored by .gitignore", _name(path, root) + "/")
                else:
                    below.append((path, specs))
            elif kind != "file":
                if kind != "linked folder":
                    report.skip(kind, _name(path, root))
            elif _ignored(path, specs, folder=False):
                report.skip("ignored by .gitignore", _name(path, root))
            elif format_of(entry.name) is None and path.suffix.lower() not in RECORD_SUFFIXES:
                report.skip(f"unsupported type {path.suffix.lower() or '(no extension)'}", _name(path, root))
            else:
                yield path
        stack.extend(reversed(below))


def _is_ours(names: Set[str]) -> bool:
    """Whether a folder with files of these names is a model or an index that this library wrote."""
    return {"revela.json", "modules.json"} <= names or (
        "manifest.json" in names and any(_GENERATION.fullmatch(name) for name in names)
    )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _kind(entry: os.DirEntry[str], root: Path) -> str:
    """Whether an entry is a ``"file"``, ``"folder"`` or ``"linked folder"``, or why it is none; OSError if unknown."""
    linked = entry.is_symlink()
    if linked and not _inside(Path(entry.path), root):
        return "link that is broken or leaves the folder"
    if entry.is_dir():
        return "linked folder" if linked else "folder"
    return "file" if entry.is_file() else "not a regular file"


def _inside(link: Path, root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _spec(folder: Path) -> Any:
    """The compiled ``.gitignore`` of a folder, or None."""
    import pathspec

    try:
        lines = (folder / ".gitignore").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError:  # one bad pattern must not hide the others
        good = []
        for line in lines:
            try:
                pathspec.GitIgnoreSpec.from_lines([line])
                good.append(line)
            except ValueError:
                continue
        return pathspec.GitIgnoreSpec.from_lines(good)


def _specs_above(root: Path) -> list[tuple[Path, Any]]:
    top = next((parent for parent in root.parents if (parent / ".git").exists()), None)
    if top is None or (root / ".git").exists():
        return []
    folders = [parent for parent in reversed(root.parents) if parent == top or top in parent.parents]
    specs = [(folder, spec) for folder in folders if (spec := _spec(folder))]
    for folder in (*folders[1:], root):
        if _ignored(folder, [(base, spec) for base, spec in specs if base in folder.parents], folder=True):
            return []  # whoever names an ignored folder wants it
    return specs


def _ignored(path: Path, specs: list[tuple[Path, Any]], *, folder: bool) -> bool:
    """Git's rule: the deepest ``.gitignore`` with an opinion decides."""
    for base, spec in reversed(specs):
        relative = path.relative_to(base).as_posix() + ("/" if folder else "")
        verdict = spec.check_file(relative).include
        if verdict is not None:
            return bool(verdict)
    return False
