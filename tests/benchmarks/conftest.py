"""A toy set in BEIR layout, two tiny random models, and the bench's scripts as modules."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BENCH = Path(__file__).parents[2] / "benchmarks" / "quality"
NAMES = (
    "cache",
    "sets",
    "backbones",
    "baselines",
    "systems",
    "summary",
    "table",
    "plots",
    "run",
    "hybrid",
    "strengths",
    "several",
)
NOUNS = ["apple", "river", "engine", "window", "garden", "letter", "mirror", "bridge", "candle", "forest"]
VERBS = ["opens", "closes", "paints", "carries", "repairs", "sells", "hides", "cleans"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}


@pytest.fixture
def bench(monkeypatch):
    """The scripts; forgotten afterwards, as their names are common words."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty documented functions, a query for every fourth, judgements in train, dev and test."""
    folder = tmp_path_factory.mktemp("sets") / "toy"
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, judged = [], [], []
    for number, (noun, verb) in enumerate((noun, verb) for noun in NOUNS for verb in VERBS):
        text = (
            f"def {verb}_{noun}(items, {noun}_count):\n"
            f'    """Find the {noun} that {verb} on day {number} and return it."""\n'
            f"    for {noun} in items[{number}:]:\n        if {noun}.{verb}({noun}_count):\n            return {noun}\n"
            f"    raise LookupError('no {noun} {verb}')\n"
        )
        corpus.append({"_id": f"d{number}", "title": "", "text": text})
        if number % 4 == 0:
            queries.append({"_id": f"q{number}", "text": f"unspoken wish number {number}: {noun} which {verb}"})
            judged.append(f"q{number}\td{number}\t1")
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for split, rows in (("train", judged[:4]), ("dev", judged[4:12]), ("test", judged[10:])):
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    tokenizer = _bytes(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    BertModel(BertConfig(vocab_size=len(tokenizer), **SIZES)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-lm"
    torch.manual_seed(1)
    tokenizer = _bytes(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **SIZES, **ids)).save_pretrained(
        path
    )
    tokenizer.save_pretrained(path)
    return path


def _bytes(**special: str) -> PreTrainedTokenizerFast:
    names = list(special.values())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*names, *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if "cls_token" in special:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)
