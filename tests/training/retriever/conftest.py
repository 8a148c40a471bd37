"""Tiny random backbones on disk, of every kind the retriever accepts."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from revela_training.retriever.backbone import TrainableRetriever

PROSE = "how do i open a file def f x return add one two three four query passage : ( ) the of store disk"
WORDS = PROSE.split()
TEXTS = ["how do i open a file", "def f ( x ) : return x", "disk", " ".join(WORDS * 6), "the store of one file"]


def word_tokenizer(special: list[str], **roles: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    if "cls_token" in roles:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    elif "bos_token" in roles:
        bos = roles["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **roles)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE without a beginning token, padded with its end token, as Qwen 2 has it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([" ".join(WORDS)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def decoder_config(kind: str, vocabulary: int):
    shape = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 2}
    attention = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    if kind == "llama":
        return LlamaConfig(**shape, **attention, max_position_embeddings=256)
    if kind == "qwen2":
        return Qwen2Config(**shape, **attention, max_position_embeddings=256)
    if kind == "lfm2":
        return Lfm2Config(**shape, **attention, layer_types=["conv", "full_attention"], block_ff_dim=48)
    return Mamba2Config(**shape, num_heads=4, head_dim=16, expand=2, n_groups=1, state_size=8, chunk_size=16)


def save_backbone(kind: str, path: Path) -> Path:
    torch.manual_seed(0)
    if kind == "bert":
        roles = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        tokenizer = word_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], **roles)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
        )
        model = BertModel(config)
    else:
        word = {"bos_token": "<s>", "eos_token": "</s>"}
        tokenizer = byte_tokenizer() if kind == "qwen2" else word_tokenizer(["[UNK]", *word.values()], **word)
        model = AutoModelForCausalLM.from_config(decoder_config(kind, len(tokenizer)))
    with torch.no_grad():  # a fresh model hardly mixes tokens, and would hide mistakes in masks and pooling
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "A_log" not in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """Directory of a backbone by kind, written on first use."""
    folder = tmp_path_factory.mktemp("backbones")

    def get(kind: str) -> Path:
        path = folder / kind
        return path if path.exists() else save_backbone(kind, path)

    return get


def perturb(retriever, scale: float = 0.02):
    """Stand in for training: give every adapter parameter that starts at zero a value."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in retriever.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                parameter.normal_(0, scale)
    return retriever


@pytest.fixture(scope="session")
def texts():
    return list(TEXTS)


@pytest.fixture
def retriever(backbones):
    """Build a retriever with an adapter as if trained: kind of backbone, adapter, other arguments."""

    def build(kind: str, adapter: str, **arguments) -> TrainableRetriever:
        arguments = {"lora_rank": 4, "lora_dropout": 0.0, "device": "cpu", **arguments}
        torch.manual_seed(2)
        return perturb(TrainableRetriever(backbones(kind), adapter=adapter, **arguments))

    return build
