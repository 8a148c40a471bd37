"""Writing an adapted retriever as a model directory that any sentence-transformers program can load."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revela_rag.errors import ModelError
from revela_rag.model.fingerprint import fingerprint
from revela_rag.model.st_format import (
    pooling_config,
    pooling_modes,
    with_role_prompts,
    write_dense,
    write_json,
    write_modules,
    write_sentence_config,
    write_tokenizer,
)

from .adapters import check_strength, lora_state_dict, merged_state_dict, set_lora_strength
from .atomic import check_output, replace_directory
from .backbone import TrainableRetriever

__all__ = ["as_record", "check_output", "export_model"]


def export_model(
    retriever: TrainableRetriever, path: str | Path, *, strength: float = 1.0, revela_json: Mapping[str, Any]
) -> Path:
    """Write the retriever, its adapter merged at ``strength``, to the directory ``path``.

    The result holds the base's modules, for "linear" followed by Dense and Normalize, in the legacy
    sentence-transformers layout; the base's prompts and longest input; ``adapter/`` with the adapter alone;
    ``revela.json``; and a model card. `SentenceTransformer(path)` gives the vectors of
    `TrainableRetriever.embed` at that strength. The directory appears complete or not at all.

    Args:
        retriever: what was trained; it is left as it was.
        path: where to write. An existing model of this library, or an empty directory, is replaced.
        strength: scale of the adapter; 0 writes exactly the base model.
        revela_json: what to record in ``revela.json`` beside versions, adapter and fingerprint.

    Returns:
        The path written.

    Raises:
        ModelError: something that is not a model of this library is in the way, or ``revela_json`` is not
            JSON.
        DiskError: writing failed; an earlier model at ``path`` is intact and nothing half-written is left.
    """
    strength = check_strength(strength)
    target = Path(path)
    record = as_record(revela_json)
    with replace_directory(target) as directory:
        _write(retriever, directory, strength, record, target.name)
    return target


def as_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``revela.json`` says: plain JSON with the library's versions and without paths of this machine.

    Raises:
        ModelError: it is not JSON.
    """
    try:
        record = json.loads(json.dumps(dict(values)))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"revela_json cannot be written as JSON ({error}); give strings, numbers, lists, dicts."
        ) from error
    portable: dict[str, Any] = _portable(record)
    return {**portable, "versions": _versions()}


def _write(retriever: TrainableRetriever, directory: Path, strength: float, record: dict[str, Any], name: str) -> None:
    modules: list[tuple[str, Any]] = [(type(module).__name__, module) for module in retriever.model]
    if modules[-1][0] != "Normalize":
        modules.append(("Normalize", None))
    adapted = retriever.adapter is not None and strength != 0
    if adapted:
        modules += [("Dense", None), ("Normalize", None)]
    folders = write_modules(directory, [kind for kind, _ in modules])
    for (kind, module), folder in zip(modules[1:], folders[1:], strict=True):
        _write_module(kind, module, folder, retriever, strength)
    _write_backbone(retriever, directory, strength)
    length = retriever.inference_max_length
    write_tokenizer(directory, retriever.model.tokenizer, max_length=length)
    write_sentence_config(
        directory,
        max_length=length,
        prompts=with_role_prompts(retriever.model.prompts, retriever.prompts),
        lower_case=bool(getattr(retriever.model[0], "do_lower_case", False)),
        default_prompt=retriever.model.default_prompt_name,
    )
    adapter = _write_adapter(retriever, directory / "adapter", strength)
    _write_card(directory, retriever, name, adapter)
    details = {"base": retriever.base_name, "adapter": adapter}
    write_json(directory / "revela.json", {**record, **details, "fingerprint": fingerprint(directory)})


def _write_module(kind: str, module: Any, folder: Path, retriever: TrainableRetriever, strength: float) -> None:
    if kind == "Normalize":
        return
    if module is None:
        assert retriever.adapter is not None
        write_dense(folder, *retriever.adapter.dense(strength))
    elif kind == "Pooling":
        dimension = getattr(module, "embedding_dimension", None) or module.word_embedding_dimension
        config = pooling_config(
            dimension, pooling_modes(module), include_prompt=getattr(module, "include_prompt", True)
        )
        write_json(folder / "config.json", config)
    elif kind == "Dense" and not getattr(module, "use_residual", False):
        activation = type(module.activation_function)
        path = f"{activation.__module__}.{activation.__qualname__}"
        write_dense(folder, module.linear.weight, module.linear.bias, activation=path)
    else:
        module.save(str(folder))


def _write_backbone(retriever: TrainableRetriever, directory: Path, strength: float) -> None:
    backbone = retriever.backbone
    if retriever.adapter is not None:
        backbone.save_pretrained(directory)
        return
    try:
        set_lora_strength(backbone, strength)
        backbone.save_pretrained(directory, state_dict=merged_state_dict(backbone))
    finally:
        set_lora_strength(backbone, retriever.strength)


def _write_adapter(retriever: TrainableRetriever, folder: Path, strength: float) -> dict[str, Any]:
    """Write the adapter as trained (not scaled), and return what ``revela.json`` says of it."""
    from safetensors.torch import save_file

    folder.mkdir()
    details: dict[str, Any] = {"kind": retriever.kind, "strength": strength}
    if retriever.adapter is not None:
        state = {key: value.detach().cpu().contiguous() for key, value in retriever.adapter.state_dict().items()}
        write_json(folder / "adapter_config.json", {"kind": "linear", "base": retriever.base_name})
    else:
        from peft import LoraConfig

        state = lora_state_dict(retriever.backbone)
        config: LoraConfig = retriever.lora_config
        config.base_model_name_or_path = retriever.base_name
        config.inference_mode = True
        config.save_pretrained(str(folder))
        details |= {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return details


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("revela-rag", "torch", "transformers", "sentence-transformers", "tokenizers", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _portable(value: Any) -> Any:
    """``value`` with every path of this machine cut down to its last part."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, str) and len(value) < 4096 and "\n" not in value:
        path = Path(value)
        if path.is_absolute() and path.name and (path.exists() or path.parent.exists()):
            return path.name
    return value


def _write_card(directory: Path, retriever: TrainableRetriever, name: str, adapter: Mapping[str, Any]) -> None:
    prompts = retriever.prompts
    what = f"{retriever.base_name}, adapted to one corpus without labels by revela-rag ({adapter['kind']} adapter,\n"
    what += f"strength {adapter['strength']:g})"
    if not adapter["strength"]:
        what = f"{retriever.base_name} as it was: revela-rag tried to adapt it to a corpus, and nothing did better"
    card = f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, retrieval, revela]
---

# {name}

{what}. Embeddings have {retriever.dimension} dimensions and unit length; compare
them by cosine. Inputs are cut at {retriever.inference_max_length} tokens. Queries start with
{prompts["query"]!r}, documents with {prompts["document"]!r}; `encode_query` and `encode_document` see to it.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/directory")
scores = model.encode_query(["how is a file opened?"]) @ model.encode_document(["def open_file(path): ..."]).T
```

`revela.json` holds the configuration, the evaluation before and after, library versions and the fingerprint
that indexes built with this model check. `adapter/` holds the adapter alone. The licence is that of the base.
"""
    (directory / "README.md").write_text(card, encoding="utf-8")
