"""What passed the door is what is loaded, even if somebody writes to the directory meanwhile."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from revela_rag.errors import ModelError
from revela_rag.model.safety.door import check_model
from revela_rag.model.safety.files import json_object

__all__ = ["checked"]

logger = logging.getLogger(__name__)

_WEIGHTS = ".safetensors"
_LEFT = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".gguf", ".py", ".so")
_DEEPEST, _MOST = 4, 256 * 2**20  # levels of folders; bytes of a file that is copied


@contextmanager
def checked(path: str | Path, *, trust_remote_code: bool = False, plain: bool = False) -> Iterator[Path]:
    """A directory with the model in ``path``, which has passed :func:`check_model` and which nobody else writes to.

    Settings and vocabularies are copied, weights are linked: they are safetensors whatever becomes of them. A model
    that may bring its own code is used where it is.

    Args:
        path: an existing directory.
        trust_remote_code: see :func:`check_model`.
        plain: likewise.

    Raises:
        ModelError: as :func:`check_model`.
    """
    root = Path(path)
    check_model(root, trust_remote_code=trust_remote_code, plain=plain)
    if trust_remote_code:
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="revela-model-") as folder:
        held = Path(folder) / root.name
        try:
            _copy(root, held, 0)
            _move_paths(root, held)
        except OSError as error:
            if not root.is_dir():
                raise ModelError(f"The model directory {str(root)!r} is gone ({error}).") from error
            logger.info("The model is loaded from %r as it is: it cannot be copied (%s).", str(root), error)
            held = root
        try:
            check_model(held, plain=plain)
        except ModelError as error:
            raise ModelError(str(error).replace(str(held), str(root))) from error
        yield held


def _copy(source: Path, target: Path, level: int) -> None:
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            if level < _DEEPEST and not entry.name.startswith("."):
                _copy(entry, target / entry.name, level + 1)
        elif entry.name.endswith(_WEIGHTS):
            (target / entry.name).symlink_to(entry.resolve())
        elif not entry.name.endswith(_LEFT):
            _copy_file(entry, target / entry.name)


def _move_paths(source: Path, target: Path) -> None:
    """Let a tokenizer's settings that name files of the model by their paths name the copies."""
    root = os.path.abspath(source)  # noqa: PTH100
    for file in target.rglob("tokenizer_config.json"):
        settings = json_object(file)
        moved = {}
        for key, value in settings.items():
            if key.endswith("_file") and isinstance(value, str) and value:
                place = Path(os.path.abspath(value))  # noqa: PTH100
                if place.is_relative_to(root):
                    moved[key] = str(target / place.relative_to(root))
        if moved:
            file.write_text(json.dumps({**settings, **moved}), encoding="utf-8")


def _copy_file(source: Path, target: Path) -> None:
    """Copy a regular file of bounded size; a pipe that took its place is not waited for."""
    handle = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        about = os.fstat(handle)
        if stat.S_ISREG(about.st_mode) and about.st_size <= _MOST:
            with target.open("wb") as copied:
                shutil.copyfileobj(stream, copied)
