"""One directory is one model: served, trained, or opened by sentence-transformers, it gives the same vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from revela_rag.errors import ModelError
from revela_rag.model.bert import BertModel
from revela_rag.model.encoder import Encoder
from revela_training.retriever.backbone import TrainableRetriever

from . import layouts
from .conftest import bert, llama, sentence_transformer
from .layouts import D, P, Q, edit, promising_more_than_there_is, router, static

TEXTS = [
    "how do i open a file",
    "OPEN the File",
    "def f ( x )\nreturn x",
    "one",
    "two three four five one two three",
    "one " * 40,
]

#: What is stored, and what stands before queries and documents.
PROMPTS = {
    "document": ({"query": Q, "document": D}, Q, D),
    "passage": ({"query": Q, "passage": P}, Q, P),
    "corpus": ({"query": Q, "corpus": P}, Q, P),
    "empty document, filled passage": ({"query": Q, "document": "", "passage": P}, Q, P),
    "null document, filled corpus": ({"query": Q, "document": None, "passage": "", "corpus": P}, Q, P),
    "document before passage": ({"query": Q, "passage": P, "document": D}, Q, D),
    "all empty": ({"query": "", "document": "", "passage": ""}, "", ""),
    "none": ({}, "", ""),
    "others": ({"one": Q, "two": D}, "", ""),
}


def served(path: Path) -> dict[str, np.ndarray]:
    encoder = Encoder(path, device="cpu")
    return {"query": encoder.encode_queries(TEXTS), "document": encoder.encode_documents(TEXTS)}


def trained(path: Path) -> dict[str, np.ndarray]:
    retriever = TrainableRetriever(path, adapter="linear", device="cpu")
    return {role: retriever.embed_base(TEXTS, role).numpy() for role in ("query", "document")}


def plain(path: Path, query: str, document: str) -> dict[str, np.ndarray]:
    model = SentenceTransformer(str(path), device="cpu")
    found = {
        "query": model.encode_query(TEXTS, prompt=query),
        "document": model.encode_document(TEXTS, prompt=document),
    }
    return {role: vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for role, vectors in found.items()}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for role, vectors in expected.items():
        np.testing.assert_allclose(found[role], vectors, atol=1e-5, err_msg=role)


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_under_every_name_they_go_by(tmp_path, name):
    stored, query, document = PROMPTS[name]
    path = sentence_transformer(tmp_path, prompts=stored)
    fast = Encoder(path, device="cpu")
    assert isinstance(fast._ready, BertModel)
    assert (fast.query_prompt, fast.document_prompt) == (query, document)
    expected = plain(path, query, document)
    same(served(path), expected)
    same(trained(path), expected)
    slow = Encoder(path, device="cpu")
    slow.model  # noqa: B018  # sentence-transformers computes from now on
    same({"query": slow.encode_queries(TEXTS), "document": slow.encode_documents(TEXTS)}, expected)
    handed = Encoder(SentenceTransformer(str(path), device="cpu"))
    same({"query": handed.encode_queries(TEXTS), "document": handed.encode_documents(TEXTS)}, expected)


ADAPTABLE = (
    layouts.with_dense,
    layouts.truncated,
    layouts.cut_by_an_older_name,
    layouts.prompt_left_out,
    layouts.two_poolings,
    layouts.weighted,
    layouts.lower_case,
    layouts.padded_left,
    layouts.in_a_folder,
)


@pytest.mark.parametrize("make", ADAPTABLE, ids=lambda make: make.__name__)
def test_layouts_that_can_be_adapted(tmp_path, make):
    path = make(tmp_path)
    stored = json.loads((path / "config_sentence_transformers.json").read_text())["prompts"]
    expected = plain(path, Q, stored.get("document") or P)
    same(served(path), expected)
    same(trained(path), expected)


LAYOUTS = {
    "router": lambda path: router(path, static=False),
    "router with static queries": lambda path: router(path, static=True),
    "static": static,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_that_only_serve(tmp_path, name):
    path = LAYOUTS[name](tmp_path)
    same(served(path), plain(path, Q, P))
    with pytest.raises(ModelError, match="only one Transformer for both roles can be adapted"):
        TrainableRetriever(path, adapter="linear", device="cpu")


def test_a_length_beyond_the_positions(tmp_path):
    path = promising_more_than_there_is(tmp_path)
    slow = Encoder(path, device="cpu")
    slow.model  # noqa: B018
    assert slow.max_length == Encoder(path, device="cpu").max_length == 32
    same({"query": slow.encode_queries(TEXTS), "document": slow.encode_documents(TEXTS)}, served(path))
    same(trained(path), served(path))


def test_lengths_of_two_sides(tmp_path):
    path = router(tmp_path, static=True)
    assert Encoder(path, device="cpu").max_length == 16  # of documents; static embeddings have no limit
    short = Encoder(path, device="cpu", max_length=6)
    one, two = short.encode_documents(["one two three", "one two four five"])
    assert short.max_length == 6 and np.abs(one - two).max() < 1e-6


def test_a_raw_encoder_is_pooled_by_the_mean_without_prompts(tmp_path):
    path = bert(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    with torch.no_grad():
        states = [model(**tokenizer(t, return_tensors="pt", truncation=True)).last_hidden_state[0] for t in TEXTS]
    expected = torch.nn.functional.normalize(torch.stack([state.mean(0) for state in states]), dim=1).numpy()
    for found in (served(path), trained(path)):
        same(found, {"query": expected, "document": expected})


def test_a_raw_decoder_is_pooled_at_the_end_token_behind_prompts(tmp_path):
    path = llama(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    expected = {}
    for role, prompt in (("query", "Query: "), ("document", "Passage: ")):
        found = []
        for text in TEXTS:
            ids = [*tokenizer(prompt + text)["input_ids"][:31], tokenizer.eos_token_id]
            with torch.no_grad():
                found.append(model(torch.tensor([ids])).last_hidden_state[0, -1])
        expected[role] = torch.nn.functional.normalize(torch.stack(found), dim=1).numpy()
    same(served(path), expected)
    same(trained(path), expected)
    encoder = Encoder(path, device="cpu")
    assert (encoder.query_prompt, encoder.document_prompt) == ("Query: ", "Passage: ")


def test_a_decoder_that_reads_both_ways_is_an_encoder(tmp_path):
    path = llama(tmp_path)
    edit(path / "config.json", is_causal=False)
    assert Encoder(path, device="cpu").document_prompt == ""
    same(trained(path), served(path))


def test_a_chosen_document_prompt_survives_an_export(tmp_path):
    from revela_training.retriever.export import export_model

    path = sentence_transformer(tmp_path / "base", prompts={"query": Q, "passage": P})
    retriever = TrainableRetriever(path, adapter="linear", device="cpu")
    retriever.prompts["document"] = ""
    written = export_model(retriever, tmp_path / "out", revela_json={})
    assert Encoder(written).document_prompt == ""
    kept = export_model(TrainableRetriever(path, adapter="linear", device="cpu"), tmp_path / "kept", revela_json={})
    same(served(kept), served(path))


@pytest.mark.parametrize("make", [bert, llama, *ADAPTABLE], ids=lambda make: make.__name__)
def test_a_base_that_was_kept_is_the_base(tmp_path, make):
    from revela_training.retriever.export import export_model

    path = make(tmp_path / "base")
    retriever = TrainableRetriever(path, adapter="linear", device="cpu")
    written = export_model(retriever, tmp_path / "kept", strength=0.0, revela_json={})
    same(served(written), served(path))
