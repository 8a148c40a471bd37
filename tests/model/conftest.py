"""Tiny random models on disk."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PROSE = "query : document how do i open a file def f ( x ) return one two three four five"
WORDS = PROSE.split()


def save_tokenizer(path: Path, *, wrap: bool) -> int:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[NL]"]
    vocabulary = {word: index for index, word in enumerate([*special, *dict.fromkeys(WORDS)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    # newlines become a token of their own, so that a test can tell whether they were kept
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("\n", " [NL] ")])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if wrap:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        model_max_length=32,
    )
    tokenizer.save_pretrained(path)
    return len(vocabulary)


def bert(path: Path, *, seed: int = 0, safe: bool = True) -> Path:
    """A plain Hugging Face encoder."""
    size = save_tokenizer(path, wrap=True)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    model = BertModel(config, add_pooling_layer=False)
    if safe:
        model.save_pretrained(path)
    else:
        config.save_pretrained(path)
        torch.save(model.state_dict(), path / "pytorch_model.bin")
    return path


def llama(path: Path) -> Path:
    """A plain Hugging Face decoder whose tokenizer adds no special tokens."""
    size = save_tokenizer(path, wrap=False)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def sentence_transformer(path: Path, *, seed: int = 0, prompts: dict[str, str] | None = None) -> Path:
    """A sentence-transformers directory in the layout this project writes."""
    bert(path, seed=seed)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listing = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for index, (folder, kind) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listing))
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    prompts = {"query": "query : ", "document": "document : "} if prompts is None else prompts
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return path


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return sentence_transformer(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory) -> Path:
    return bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))
