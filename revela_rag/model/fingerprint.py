"""A model's fingerprint: what an index remembers of the model it was built by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from revela_rag.errors import ModelError
from revela_rag.model.raw import is_raw, raw_recipe
from revela_rag.model.safety import listed_modules, model_errors
from revela_rag.model.safety.files import json_object
from revela_rag.model.st_format import GENERAL, SETTINGS, pooling_modes, read_settings, read_stored
from revela_rag.model.tokenizing import unlike_stored

__all__ = ["file_sha256", "fingerprint", "memory_fingerprint"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_CONFIGS = ("config.json", "router_config.json", GENERAL, *SETTINGS)
_NAMING_CODE = ("config.json", "tokenizer_config.json")
_VOLATILE_CONFIG = {
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "__version__",
}


def fingerprint(path: str | Path) -> str:
    """Hash of everything that decides a model's vectors: 64 hex digits.

    Weights, tokenizer, architecture, prompts, pooling and maximum length of every part go in; reports, cards and
    version stamps do not. Results are kept per process and recomputed when a file changes.

    Raises:
        ModelError: ``path`` is not a model directory.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ModelError(f"The model directory {str(path)!r} does not exist; check the path.")
    digest = hashlib.sha256(b"revela-fingerprint-1")
    modules = list(listed_modules(root))
    folders = {folder.resolve(): class_.rsplit(".", 1)[-1] for folder, class_, _ in modules}
    folders.setdefault(root.resolve(), "")
    for folder, type_ in folders.items():
        _update(digest, type_, b"")
        if not folder.is_dir():  # Normalize needs no folder
            continue
        for file in sorted(folder.iterdir()):
            if file.suffix == ".safetensors" or file.name in _TOKENIZER_FILES:
                _update(digest, file.name, file_sha256(file).encode())
            elif file.name in _CONFIGS:
                _update(digest, file.name, _canonical(file))
            elif file.name == "tokenizer_config.json" and read_settings(folder).get("max_seq_length") is None:
                # texts are cut where the tokenizer says
                _update(digest, file.name, str(json_object(file).get("model_max_length")).encode())
    with model_errors(root, "cannot be read"):
        for name, data in _beyond_files(root, list(folders), [class_ for _, class_, _ in modules]):
            _update(digest, name, data.encode())
    return digest.hexdigest()


def _beyond_files(root: Path, folders: list[Path], classes: list[str]) -> Iterator[tuple[str, str]]:
    """What decides the vectors and was not hashed from the first; nothing for ordinary models, whose indexes stay."""
    if is_raw(root):
        if recipe := raw_recipe(root):
            yield "raw", recipe
    else:
        applied = read_stored(root).prompts["document"]
        if applied != ((json_object(root / GENERAL).get("prompts") or {}).get("document") or ""):
            yield "document prompt", applied
    for folder in folders:
        if odd := unlike_stored(folder):
            yield "tokenizer settings", json.dumps(odd, sort_keys=True)
    named = [json_object(folder / name).get("auto_map") for folder in folders for name in _NAMING_CODE]
    if any(named) or any(not class_.startswith("sentence_transformers.") for class_ in classes):
        for file in sorted(root.rglob("*.py")):
            yield str(file.relative_to(root)), file_sha256(file)


def memory_fingerprint(model: Any) -> str:
    """Fingerprint of a SentenceTransformer in memory: its tensors and words, and how it prompts, pools and cuts."""
    import torch

    digest = hashlib.sha256(b"revela-fingerprint-memory-1")
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    tokenizer = getattr(model, "tokenizer", None)
    read = getattr(tokenizer, "get_vocab", dict)
    modules = [(type(part).__name__, getattr(part, "pooling_mode", pooling_modes(part) or None)) for part in model]
    rest = (
        modules,
        sorted((model.prompts or {}).items()),
        model.max_seq_length,
        model.truncate_dim,
    )
    digest.update(repr((rest, sorted(read().items()))).encode("utf-8", "replace"))
    ways = getattr(model[0], "sub_modules", {})
    for name, parts in ways.items():
        for part in parts:
            read = getattr(getattr(part, "tokenizer", None), "get_vocab", dict)
            said = [pooling_modes(part), getattr(part, "max_seq_length", None)]
            digest.update(repr((name, type(part).__name__, said, sorted(read().items()))).encode("utf-8", "replace"))
    return digest.hexdigest()


def _update(digest: Any, name: str, data: bytes) -> None:
    for part in (name.encode(), data):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)


def _canonical(file: Path) -> bytes:
    kept = {key: value for key, value in json_object(file).items() if key not in _VOLATILE_CONFIG}
    return json.dumps(kept, sort_keys=True).encode()


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits, computed again when its size or time changes.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        about = file.stat()
        return _cached_sha256(str(file), about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{str(file)!r} cannot be read: {error}") from error


@lru_cache(maxsize=64)
def _cached_sha256(file: str, size: int, modified: int) -> str:
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
