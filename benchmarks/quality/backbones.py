"""Backbones by name, the project's own small LM among them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from revela_rag.model.find import resolve_model
from revela_rag.model.fingerprint import fingerprint
from revela_rag.model.st_format import pooling_config, write_json, write_modules, write_sentence_config, write_tokenizer
from revela_training.objective.lm import bundled_lm_path

SMALL_LM = "small-lm"


def resolve_backbone(name: str, cache: Path) -> str:
    """Directory of a backbone, or its hub id.

    ``small-lm`` is the bundled language model as a raw embedding model, never trained to retrieve: the mean of
    its last hidden states. Anything else is what `revela adapt --base` takes.
    """
    if name != SMALL_LM:
        return resolve_model(name)
    source = bundled_lm_path()
    folder = cache / "backbones" / f"{SMALL_LM}-{fingerprint(source)[:12]}"
    if not (folder / "modules.json").is_file():
        _write_mean_pooled(source, folder)
    return str(folder)


def _write_mean_pooled(source: Path, folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, part / name)
    config: Any = AutoConfig.from_pretrained(source)
    folders = write_modules(part, ["Transformer", "Pooling", "Normalize"])
    write_json(folders[1] / "config.json", pooling_config(config.hidden_size, ["mean"]))
    length = config.max_position_embeddings
    write_sentence_config(part, max_length=length, prompts={"query": "", "document": ""})
    write_tokenizer(part, AutoTokenizer.from_pretrained(source), max_length=length)
    part.replace(folder)
