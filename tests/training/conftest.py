"""A tiny retriever, a tiny LM and a tiny corpus, all random and on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from revela_rag.corpus import Corpus, load_corpus
from revela_training.loop.model import RevelaModel
from revela_training.losses import ContrastiveLoss

NOUNS = ["apple", "river", "engine", "window", "garden", "letter", "mirror", "bridge", "candle", "forest"]
VERBS = ["opens", "closes", "paints", "carries", "repairs", "sells", "hides", "cleans", "builds", "moves"]


def byte_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    names = list(special.values())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*names, *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if "cls_token" in special:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers and width 32, not trained."""
    path = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def lm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers and width 32, not trained."""
    path = tmp_path_factory.mktemp("models") / "lm"
    torch.manual_seed(1)
    tokenizer = byte_tokenizer(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def function(noun: str, verb: str) -> str:
    return (
        f"def {verb}_{noun}(items):\n"
        f'    """Find the {noun} that {verb} every day and return it."""\n'
        f"    for {noun} in items:\n        if {noun}.{verb}:\n            return {noun}\n    return None\n"
    )


@pytest.fixture(scope="session")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten Python files of ten documented functions each."""
    folder = tmp_path_factory.mktemp("code")
    for noun in NOUNS:
        text = "\n\n".join(function(noun, verb) for verb in VERBS)
        (folder / f"{noun}.py").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def code_corpus(code_folder: Path) -> Corpus:
    return load_corpus(code_folder, deduplicate=False)


@pytest.fixture
def one_graph() -> Callable[[RevelaModel, dict[str, Any]], dict[str, Any]]:
    """A step in one graph, which `Step` cuts into pieces: its ``loss``, and its ``metrics`` by name."""

    def compute(model: RevelaModel, batch: dict[str, Any]) -> dict[str, Any]:
        with torch.set_grad_enabled(model.retriever_learns):
            made = {role: model.embed_role(batch, role) for role in model.roles(batch)}
        loss, metrics = torch.zeros(()), {}
        if model.objective is not None:
            asking = made.get("queries", made["passages"])
            reading = model.read(batch["input_ids"], batch["attention_mask"], asking, made["passages"])
            loss, metrics = reading.loss, {**reading.metrics, "max_weight": reading.max_weight}
        if model.contrasts:
            if model.distils:
                with model.retriever.unadapted():
                    batch |= {f"base_{role}": model.embed_role(batch, role) for role in ("asked", "answers")}
            settings = model.settings
            term = ContrastiveLoss(settings.contrastive_temperature, settings.self_distillation)
            contrastive = term.over_kinds(made["asked"], made["answers"], batch)
            if contrastive is not None:
                loss = loss + settings.contrastive_weight * contrastive
                metrics["contrastive_loss"] = contrastive.detach()
        return {"loss": loss, "metrics": metrics}

    return compute
