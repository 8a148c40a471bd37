"""Layouts of a model's directory, tiny and random."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Router, StaticEmbedding, Transformer
from tokenizers import Tokenizer

from .conftest import bert, llama, save_tokenizer, sentence_transformer

Q, D, P = "query : ", "document : ", "def : "


def with_dense(path: Path) -> Path:
    base = SentenceTransformer(str(sentence_transformer(path / "base")), device="cpu")
    torch.manual_seed(3)
    parts = [base[0], base[1], Dense(24, 8, activation_function=torch.nn.Tanh())]
    return saved(path, parts)


def truncated(path: Path) -> Path:
    sentence_transformer(path / "model")
    edit(path / "model" / "config_sentence_transformers.json", truncate_dim=10)
    return path / "model"


def cut_by_an_older_name(path: Path) -> Path:
    sentence_transformer(path / "model")
    (path / "model" / "sentence_bert_config.json").unlink()
    edit(path / "model" / "sentence_roberta_config.json", max_seq_length=7, do_lower_case=False)
    return path / "model"


def prompt_left_out(path: Path) -> Path:
    sentence_transformer(path / "model")
    edit(path / "model" / "1_Pooling" / "config.json", include_prompt=False)
    return path / "model"


def two_poolings(path: Path) -> Path:
    sentence_transformer(path / "model")
    edit(path / "model" / "1_Pooling" / "config.json", pooling_mode_max_tokens=True, pooling_mode_cls_token=True)
    return path / "model"


def weighted(path: Path) -> Path:
    sentence_transformer(path / "model")
    edit(
        path / "model" / "1_Pooling" / "config.json",
        pooling_mode_mean_tokens=False,
        pooling_mode_weightedmean_tokens=True,
    )
    return path / "model"


def lower_case(path: Path) -> Path:
    sentence_transformer(path / "model")
    said = json.loads((path / "model" / "tokenizer.json").read_text())
    said["normalizer"]["normalizers"] = said["normalizer"]["normalizers"][1:]
    (path / "model" / "tokenizer.json").write_text(json.dumps(said))
    edit(path / "model" / "sentence_bert_config.json", do_lower_case=True)
    return path / "model"


def padded_left(path: Path) -> Path:
    return saved_decoder(path, padding_side="left")


def saved_decoder(path: Path, **tokenizer: str) -> Path:
    llama(path / "base")
    part = Transformer(str(path / "base"), max_seq_length=20)
    for key, value in tokenizer.items():
        setattr(part.tokenizer, key, value)
    return saved(path, [part, Pooling(16, pooling_mode="lasttoken")])


def in_a_folder(path: Path) -> Path:
    """The transformer in a folder of its own, as older versions wrote it."""
    sentence_transformer(path / "model")
    (path / "model" / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (path / "model" / name).rename(path / "model" / "0_Transformer" / name)
    (path / "model" / "sentence_bert_config.json").rename(
        path / "model" / "0_Transformer" / "sentence_bert_config.json"
    )
    listing = json.loads((path / "model" / "modules.json").read_text())
    listing[0]["path"] = "0_Transformer"
    (path / "model" / "modules.json").write_text(json.dumps(listing))
    return path / "model"


def promising_more_than_there_is(path: Path) -> Path:
    sentence_transformer(path / "model")
    edit(path / "model" / "sentence_bert_config.json", max_seq_length=64)  # of 32 positions
    return path / "model"


def router(path: Path, *, static: bool) -> Path:
    sides = [Transformer(str(bert(path / str(seed), seed=seed)), max_seq_length=16) for seed in (0, 1)]
    documents = [sides[0], Pooling(24)]
    queries = [embeddings(path)] if static else [sides[1], Pooling(24)]
    return saved(path, [Router.for_query_document(query_modules=queries, document_modules=documents)])


def static(path: Path) -> Path:
    return saved(path, [embeddings(path), Normalize()])


def embeddings(path: Path) -> StaticEmbedding:
    torch.manual_seed(4)
    save_tokenizer(path / "words", wrap=True)
    return StaticEmbedding(Tokenizer.from_file(str(path / "words" / "tokenizer.json")), embedding_dim=24)


def saved(path: Path, modules: list) -> Path:
    model = SentenceTransformer(modules=modules, prompts={"query": Q, "passage": P}, device="cpu")
    model.save(str(path / "model"))
    return path / "model"


def edit(file: Path, **changes: object) -> None:
    said = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**said, **changes}))
