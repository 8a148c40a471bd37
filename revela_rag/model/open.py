"""The one way a model is opened, to serve and to be trained: as a SentenceTransformer that has passed the door."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from revela_rag.errors import ModelError
from revela_rag.model.find import fetch_model, resolve_model
from revela_rag.model.raw import is_raw, is_raw_decoder, positions, stage
from revela_rag.model.safety import checked, model_errors
from revela_rag.model.st_format import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "Dtype",
    "check_device",
    "input_module",
    "open_model",
    "read_dimension",
    "read_length",
    "resolve_dtype",
    "set_length",
]

#: ``"auto"`` is bfloat16 on a GPU that has it, else float32.
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
_NO_LIMIT = 10**6  # tokens; what libraries write where there is none is larger


def open_model(
    name_or_path: str | Path,
    *,
    device: str | None = None,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load a model, from safetensors and without code of its own.

    A sentence-transformers directory keeps its modules, prompts and lengths; a raw transformers directory becomes a
    retriever as :mod:`revela_rag.model.raw` says.

    Args:
        name_or_path: anything :func:`revela_rag.model.find.resolve_model` takes.
        device: as torch names it; None picks the best there is.
        max_length: tokens kept of a text; None keeps the model's own setting.
        dtype: type of the weights, see :data:`Dtype`.
        trust_remote_code: let the model bring Python code of its own.

    Raises:
        ModelError: it does not exist, is unsafe or cannot be loaded.
    """
    name = resolve_model(name_or_path, trust_remote_code=trust_remote_code)
    check_device(device)
    directory = fetch_model(name)
    options: dict[str, Any] = {
        "device": device,
        "trust_remote_code": trust_remote_code,
        "local_files_only": True,
        "model_kwargs": {"use_safetensors": True, "dtype": resolve_dtype(dtype, device)},
    }
    with checked(directory, trust_remote_code=trust_remote_code) as held, model_errors(name):
        model = _open_raw(held, options) if is_raw(held) else _open(held, options)
    for module in _input_modules(model):
        tokenizer: Any = getattr(module, "tokenizer", None)
        if getattr(tokenizer, "pad_token", "") is None:
            tokenizer.pad_token = tokenizer.eos_token
        _keep_to_positions(module)
    if max_length is not None:
        set_length(model, max_length)
    return model.eval()


def _open(directory: str | Path, options: dict[str, Any]) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), **options)


def _open_raw(directory: Path, options: dict[str, Any]) -> SentenceTransformer:
    with tempfile.TemporaryDirectory() as staged:
        stage(directory, Path(staged), trust_remote_code=options["trust_remote_code"])
        model = _open(staged, options)
    ends = model.tokenizer("a")["input_ids"][-1:]
    if is_raw_decoder(directory) and ends != [model.tokenizer.eos_token_id]:
        raise ModelError(f"The tokenizer of {directory} cannot be made to end texts with its end-of-sequence token.")
    return model


def _keep_to_positions(module: Any) -> None:
    """Cut texts where a table of positions ends, should the settings promise more: a longer text would be an error."""
    table = getattr(getattr(getattr(module, "auto_model", None), "embeddings", None), "position_embeddings", None)
    rows = getattr(table, "num_embeddings", None)
    if rows is not None and module.max_seq_length:
        module.max_seq_length = min(module.max_seq_length, positions(module.auto_model.config, rows))


def input_module(model: SentenceTransformer, role: Role) -> Any:
    """The module that reads the texts of a role: the first, or inside of a router the first on the role's way."""
    ways = getattr(model[0], "sub_modules", None)
    if ways is None:
        return model[0]
    names = (role, getattr(model[0], "default_route", None), *ways)
    return ways[next(name for name in names if name in ways)][0]


def read_length(model: SentenceTransformer, role: Role) -> int:
    """Tokens kept of a text of a role; 0 for all."""
    length = getattr(input_module(model, role), "max_seq_length", None)
    return int(length) if length and length < _NO_LIMIT else 0


def read_dimension(model: SentenceTransformer) -> int | None:
    """Length of the vectors; None when only a forward pass can tell."""
    read = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return model.truncate_dim or read()


def set_length(model: SentenceTransformer, length: int) -> None:
    """Cut texts to so many tokens, wherever the model cuts at all: static embeddings do not."""
    for module in _input_modules(model):
        if (getattr(module, "max_seq_length", None) or 0) < math.inf:
            module.max_seq_length = length


def _input_modules(model: SentenceTransformer) -> list[Any]:
    query, document = input_module(model, "query"), input_module(model, "document")
    return [query] if query is document else [query, document]


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
