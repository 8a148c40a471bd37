from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from revela_training.data.batching import Group
from revela_training.data.collate import GroupCollator
from revela_training.data.tokens import tokenize_for_lm, tokenize_for_retriever, trim
from revela_training.loop.workspace import Workspace
from revela_training.objective.lm import load_lm
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.embedding import tokenize

TEXTS = ["one two three", "four", "", "five six seven eight nine ten eleven", "four"]
ROWS = np.array([3, 1, 2, 0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_what_the_lm_tokenizer_would_have_made(lm_dir: Path, side: str) -> None:
    _, tokenizer = load_lm(str(lm_dir))
    tokenizer.padding_side = side
    batch = tokenize_for_lm(TEXTS, tokenizer, max_tokens=9).batch(ROWS)
    wanted = tokenizer([TEXTS[i] for i in ROWS], truncation=True, max_length=9, padding=True, return_tensors="pt")
    assert torch.equal(batch["attention_mask"], wanted["attention_mask"])
    assert torch.equal(batch["input_ids"], wanted["input_ids"])


def test_a_batch_is_what_the_retriever_would_have_made_prompt_included(base_dir: Path) -> None:
    retriever = TrainableRetriever(str(base_dir), adapter="lora", lora_rank=2, max_length=12)
    retriever.prompts["query"] = "ask: "
    batch = tokenize_for_retriever(TEXTS, retriever, "query").batch(ROWS)
    wanted = tokenize(retriever.model, [TEXTS[i] for i in ROWS], prompt="ask: ", length=12, device=torch.device("cpu"))
    assert torch.equal(batch["input_ids"], wanted["input_ids"])
    assert torch.equal(batch["attention_mask"], wanted["attention_mask"])
    assert {name for name, value in wanted.items() if not torch.is_tensor(value)} <= batch.keys()
    model = retriever.eval()
    with torch.no_grad():
        direct = model.encode([TEXTS[i] for i in ROWS], "query")
        from revela_training.retriever.embedding import pool

        assert torch.equal(pool(model.model, dict(batch)), direct)


def test_tokens_are_mapped_from_disk_and_made_once(
    lm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tokenizer = load_lm(str(lm_dir))
    work = Workspace(tmp_path / "out", identity={}, resume=False)
    first = tokenize_for_lm(TEXTS, tokenizer, max_tokens=9, keep=work.array)
    assert isinstance(first.tokens, np.memmap) and first.tokens.dtype == np.int32
    work.close()
    monkeypatch.setattr(type(tokenizer), "__call__", lambda *_, **__: pytest.fail("tokenised again"))
    again = Workspace(tmp_path / "out", identity={}, resume=True)
    second = tokenize_for_lm(TEXTS, tokenizer, max_tokens=9, keep=again.array)
    assert np.array_equal(first.tokens, second.tokens) and np.array_equal(first.offsets, second.offsets)


def test_other_texts_or_lengths_are_other_tokens(lm_dir: Path, tmp_path: Path) -> None:
    _, tokenizer = load_lm(str(lm_dir))
    work = Workspace(tmp_path / "out", identity={}, resume=False)
    long = tokenize_for_lm(TEXTS, tokenizer, max_tokens=9, keep=work.array)
    short = tokenize_for_lm(TEXTS, tokenizer, max_tokens=8, keep=work.array)
    other = tokenize_for_lm(["", *TEXTS[1:]], tokenizer, max_tokens=9, keep=work.array)
    assert long.lengths(ROWS).max() == 9 and short.lengths(ROWS).max() == 8
    assert len(other.tokens) < len(long.tokens)


def test_the_collator_slices_and_pads_and_never_tokenises(lm_dir: Path) -> None:
    _, tokenizer = load_lm(str(lm_dir))
    collator = GroupCollator(tokenize_for_lm(TEXTS, tokenizer, max_tokens=9))
    pairs = np.array([[0, 1]])
    batch = collator([Group(np.array([0, 1]), pairs), Group(np.array([1, 3]), pairs)])
    assert batch["text_index"].tolist() == [[0, 1], [1, 3]]
    assert batch["pair_index"].tolist() == [[0, 1]]
    assert batch["input_ids"].shape == (4, 9)
    assert "passages" not in batch


def test_trim_takes_padding_from_both_sides() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]])
    ids, kept = trim(torch.arange(8).view(2, 4), mask)
    assert kept.tolist() == [[1, 1], [0, 1]] and ids.tolist() == [[1, 2], [5, 6]]
    assert trim(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.long))[0].shape == (1, 1)
