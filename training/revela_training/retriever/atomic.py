"""Directories that appear complete or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from revela_rag.errors import DiskError, ModelError
from revela_rag.model.find import is_map

__all__ = ["check_output", "replace_directory"]

logger = logging.getLogger(__name__)


def check_output(path: str | Path) -> Path:
    """Return ``path`` when a model may be written there; worth asking before hours of training.

    Raises:
        ModelError: it is a file, or a directory with content that is no model of this library.
    """
    target = Path(path)
    if target.is_dir():
        ours = (target / "revela.json").is_file() and ((target / "modules.json").is_file() or is_map(target))
        if not ours and any(target.iterdir()):
            raise ModelError(
                f"{target} exists and is not a model written by revela, so it is not replaced. "
                "Choose another directory or empty this one."
            )
    elif target.exists() or target.is_symlink():
        raise ModelError(f"{target} exists and is not a directory. Choose another path for the model.")
    return target


@contextmanager
def replace_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory beside ``path`` to write to, and move it to ``path`` when the block ends.

    When the block raises, the directory is removed and what was at ``path`` stays.

    Raises:
        ModelError: ``path`` may not be replaced, see `check_output`.
        DiskError: writing or moving failed.
    """
    target = check_output(path)
    written: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        written = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield written
        _usual_permissions(written)
        _swap(written, target)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise  # raised by a library for its own reasons, not by the file system
        raise DiskError(
            f"Writing the model to {target} failed: {error}. Nothing was left behind; free space or check "
            "permissions there, then write it again."
        ) from error
    finally:
        if written is not None and written.exists():
            shutil.rmtree(written, ignore_errors=True)


def _swap(written: Path, target: Path) -> None:
    """Move ``written`` to ``target``; one already there goes away, or comes back if that fails."""
    if not target.exists() or not any(target.iterdir()):
        written.replace(target)  # POSIX replaces an empty directory in one step
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    target.replace(aside)
    try:
        written.replace(target)
    except BaseException:
        aside.replace(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    if aside.exists():
        logger.warning("The replaced model could not be removed entirely; delete %s.", aside)


def _usual_permissions(directory: Path) -> None:
    """Give everything the rights of a new file: temporary directories and safetensors files start private."""
    mask = os.umask(0)
    os.umask(mask)
    directory.chmod(0o777 & ~mask)
    for path in directory.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
