"""The layout of a sentence-transformers directory: read here, and written in the older form that every consumer reads.

Reading needs nothing but the standard library. The layout in the newest form differs in names of classes and keys only,
which are read as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from revela_rag.errors import ModelError
from revela_rag.model.safety.files import json_object

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "GENERAL",
    "MODULES",
    "SETTINGS",
    "Role",
    "Stored",
    "pooling_config",
    "pooling_modes",
    "read_pooling",
    "read_settings",
    "read_stored",
    "role_prompts",
    "with_role_prompts",
    "write_dense",
    "write_json",
    "write_modules",
    "write_sentence_config",
    "write_tokenizer",
]

Role = Literal["query", "document"]

MODULES = "modules.json"
GENERAL = "config_sentence_transformers.json"
#: What may hold a transformer's settings; the first that is there does.
SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_PROMPTS: dict[Role, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
# (boolean key of the file, name of the mode), in the order in which combined modes are concatenated.
_POOLING = (
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
)
IDENTITY = "torch.nn.modules.linear.Identity"


def role_prompts(stored: Mapping[str, str | None] | None) -> dict[Role, str]:
    """What stands before a query and before a document: the first of a role's names that is not empty, else ``""``.

    sentence-transformers itself takes the first name that is there, and always adds an empty ``document``: documents of
    a model that stores ``passage`` would go without.
    """
    known = stored or {}
    return {role: next((said for name in names if (said := known.get(name))), "") for role, names in _PROMPTS.items()}


def with_role_prompts(stored: Mapping[str, str | None] | None, prompts: Mapping[Role, str]) -> dict[str, str]:
    """Stored prompts of which :func:`role_prompts` makes ``prompts``: other names of a role are left out."""
    names = {name for names in _PROMPTS.values() for name in names}
    others = {name: prompt or "" for name, prompt in (stored or {}).items() if name not in names}
    return {"query": prompts["query"], "document": prompts["document"], **others}


@dataclass(frozen=True, slots=True)
class Stored:
    """What ``config_sentence_transformers.json`` says that decides vectors.

    Attributes:
        kind: the class of the whole model, ``"SentenceTransformer"`` if nothing else is said.
        prompts: by role, see :func:`role_prompts`.
        truncate_dim: how many numbers are kept of a vector; None keeps all.
    """

    kind: str
    prompts: Mapping[Role, str]
    truncate_dim: int | None


def read_stored(root: Path) -> Stored:
    """Read what a model's directory says of the model as a whole."""
    said = json_object(root / GENERAL)
    return Stored(
        said.get("model_type", "SentenceTransformer"), role_prompts(said.get("prompts")), said.get("truncate_dim")
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a transformer module, such as ``max_seq_length``; empty where there are none."""
    return next((json_object(folder / name) for name in SETTINGS if (folder / name).exists()), {})


def read_pooling(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The modes of a Pooling module in a folder, from either form of its file, and what else that says."""
    config = json_object(folder / "config.json")
    modes = [name for key, name in _POOLING if config.pop(key, False)]
    if "pooling_mode" in config:
        given = config.pop("pooling_mode")
        modes = [given] if isinstance(given, str) else list(given)
    for width in ("word_embedding_dimension", "embedding_dimension"):
        config.pop(width, None)
    return modes, config


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_modules(directory: Path, names: Sequence[str]) -> list[Path]:
    """Write ``modules.json`` for the module classes ``names``, in order, and return the folder of each.

    The first module's files lie in ``directory`` itself, the others in ``1_Pooling``, ``2_Normalize`` and so
    on.
    """
    folders = ["", *(f"{index}_{name}" for index, name in enumerate(names) if index)]
    entries = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{name}"}
        for index, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    write_json(directory / MODULES, entries)
    for folder in folders:
        (directory / folder).mkdir(parents=True, exist_ok=True)
    return [directory / folder for folder in folders]


def pooling_config(dimension: int, modes: Sequence[str], *, include_prompt: bool = True) -> dict[str, Any]:
    """Content of a Pooling module's ``config.json``: one boolean per mode (cls, mean, ...)."""
    unknown = sorted(set(modes) - {mode for _, mode in _POOLING})
    if unknown or not modes:
        raise ModelError(f"Pooling modes {list(modes)} cannot be written: unknown {unknown or 'empty list'}.")
    flags = {key: mode in modes for key, mode in _POOLING}
    return {"word_embedding_dimension": dimension, **flags, "include_prompt": include_prompt}


def pooling_modes(module: nn.Module) -> list[str]:
    """The modes of a Pooling module, whether it keeps one boolean each or a single ``pooling_mode``."""
    modes = getattr(module, "pooling_mode", None)
    if modes is None:
        return [mode for key, mode in _POOLING if getattr(module, key, False)]
    return [modes] if isinstance(modes, str) else list(modes)


def write_dense(folder: Path, weight: Tensor, bias: Tensor | None, *, activation: str = IDENTITY) -> None:
    """Write a Dense module: ``weight`` (out, in) and ``bias`` (out,) in float32, then ``activation``."""
    from safetensors.torch import save_file

    tensors = {"linear.weight": weight.detach().cpu().contiguous()}
    if bias is not None:
        tensors["linear.bias"] = bias.detach().cpu().contiguous()
    config = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": bias is not None,
        "activation_function": activation,
    }
    write_json(folder / "config.json", config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_sentence_config(
    directory: Path,
    *,
    max_length: int,
    prompts: Mapping[str, str | None],
    lower_case: bool = False,
    default_prompt: str | None = None,
) -> None:
    """Write ``sentence_bert_config.json`` and ``config_sentence_transformers.json``, with cosine similarity."""
    import sentence_transformers
    import torch
    import transformers

    write_json(directory / SETTINGS[0], {"max_seq_length": max_length, "do_lower_case": lower_case})
    versions = {
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "pytorch": torch.__version__,
    }
    config = {
        "__version__": versions,
        "prompts": dict(prompts),
        "default_prompt_name": default_prompt,
        "similarity_fn_name": "cosine",
    }
    write_json(directory / GENERAL, config)


def write_tokenizer(directory: Path, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
    """Save a tokenizer free of what the last call left in it (truncation, padding) and of paths.

    A class name only the newest transformers knows is written as the older name of the same class.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(str(directory))
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    local = (
        "name_or_path",
        "special_tokens_map_file",
        "tokenizer_file",
        "vocab_file",
        "merges_file",
        "is_local",
    )
    config = {key: value for key, value in config.items() if key not in local}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_max_length"] = max_length
    write_json(path, config)
