from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from revela_rag.corpus.types import Chunk
from revela_rag.corpus.window import Window
from revela_rag.errors import CorpusError, ModelError
from revela_rag.evaluation import RetrievalData, evaluate, load_beir
from revela_rag.evaluation.vectors import cached_vectors, passages

from .conftest import WordEncoder


@pytest.fixture(autouse=True)
def _encoder_is_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revela_rag.model.encoder.Encoder", WordEncoder)


def test_bm25(beir: Path) -> None:
    result = evaluate("bm25", beir)
    assert result.name == "bm25" and result.mean("nDCG@10") == pytest.approx(1.0)
    assert result.details["data"] == "tiny/test" and result.details["documents"] == 4


def test_encoder(beir: Path, encoder: WordEncoder) -> None:
    result = evaluate(encoder, load_beir(beir))
    assert result.mean("MRR@10") == 1.0
    assert result.name == "words" and result.details["vectors"] == 4
    assert "apples\nred apples grow on trees" in encoder.encoded, "the title is read too"


def test_hybrid_differs_from_both(beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(WordEncoder, "__init__", lambda self, model: seen.append(model) or _init(self))
    result = evaluate("hybrid:some/model", beir)
    assert seen == ["some/model"] and result.name == "hybrid:some/model"
    assert result.mean("nDCG@10") == pytest.approx(1.0)


def _init(self: WordEncoder) -> None:
    self.max_length, self.encoded = 256, []


def test_a_document_with_the_querys_own_id_is_not_found_unless_it_is_judged() -> None:
    corpus = {"a": ("", "red apples grow"), "b": ("", "owls hunt mice"), "q1": ("", "what owls hunt"), "q2": ("", "x")}
    queries = {"q1": "what owls hunt", "q2": "red apples"}
    data = RetrievalData(corpus, queries, {"q1": {"b": 1, "q1": 0}, "q2": {"a": 1}}, "same")
    for model in ("bm25", WordEncoder()):
        found = evaluate(model, data, k=(1, 1))
        assert found.per_query["MRR@1"] == {"q1": 1.0, "q2": 1.0}
        assert found.details["own_ignored"] == 2
    judged = evaluate("bm25", RetrievalData(corpus, queries, {"q1": {"q1": 1}, "q2": {"a": 1}}, "numbered"), k=(1, 1))
    assert judged.per_query["MRR@1"] == {"q1": 1.0, "q2": 1.0} and judged.details["own_ignored"] == 1


def test_long_documents_score_as_their_best_chunk() -> None:
    noise = " ".join(f"Filler{i} words{i} about{i} nothing{i}." for i in range(60))
    corpus = {"long": ("", f"{noise} Owls hunt mice at night. {noise}"), "short": ("", "owls sleep all day")}
    data = RetrievalData(corpus, {"q": "owls hunt mice at night"}, {"q": {"long": 1}}, "x")
    whole = evaluate(WordEncoder(max_length=60), data, chunk=False)
    chunked = evaluate(WordEncoder(max_length=60), data)
    assert whole.details["vectors"] == 2 and chunked.details["vectors"] > 4
    assert whole.mean("MRR@10") == 0.5
    assert chunked.mean("MRR@10") == 1.0


def test_only_documents_that_do_not_fit_are_chunked() -> None:
    corpus = {"a": ("t", "x " * 100), "b": ("", ""), "c": ("", "One two three four. " * 200)}
    texts, ids = passages(corpus, window=64)
    assert ids[:2] == ["a", "b"] and set(ids[2:]) == {"c"} and len(ids) > 4
    assert texts[0] == "t\n" + "x " * 100
    assert passages(corpus, window=None)[1] == ["a", "b", "c"]


def test_a_wide_character_counts_as_a_token() -> None:
    corpus = {"zh": ("", "这是一个关于数据库连接的说明。" * 40), "en": ("", "x" * 600)}
    texts, ids = passages(corpus, window=256)
    assert ids.count("zh") > 2 and ids.count("en") == 1
    assert max(map(len, texts[:-1])) <= 256


@dataclass
class FakeHit:
    chunk: Chunk
    score: float


class FakeIndex:
    """Ten chunks of one document come before one chunk of each other document."""

    path = "fake"

    def __init__(self, documents: list[str]) -> None:
        self.documents = documents
        self.asked: list[int] = []

    def search(self, query: str, *, k: int) -> list[FakeHit]:
        self.asked.append(k)
        ranked = ["many"] * 10 + self.documents
        chunks = [Chunk(id=str(i), text="", document_id=id_) for i, id_ in enumerate(ranked)]
        return [FakeHit(chunk, -float(i)) for i, chunk in enumerate(chunks)][:k]


def test_an_index_is_asked_again_when_chunks_of_one_document_crowd_the_rest_out() -> None:
    corpus = {id_: ("", id_) for id_ in ("many", "a", "b", "c")}
    data = RetrievalData(corpus, {"q": "x"}, {"q": {"c": 1}}, "x")
    index = FakeIndex(["a", "b", "c"])
    result = evaluate(index, data, k=(4, 4))
    assert result.mean("MRR@4") == 0.25
    assert index.asked == [8, 32]


def test_an_index_of_other_documents_is_an_error() -> None:
    data = RetrievalData({"d": ("", "x")}, {"q": "x"}, {"q": {"d": 1}}, "mine")
    with pytest.raises(CorpusError, match="other documents than mine"):
        evaluate(FakeIndex([]), data)


def test_encoder_options_need_a_model_by_name(beir: Path, encoder: WordEncoder) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(encoder, beir, batch_size=4)


def test_missing_model(beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ModelError, match="nowhere"):
        evaluate("./nowhere", beir)


def test_vectors_are_cached_by_model_role_and_texts(tmp_path: Path, encoder: WordEncoder) -> None:
    first = cached_vectors(encoder, "document", ["a b", "c"], cache_dir=tmp_path / "cache")
    again = cached_vectors(encoder, "document", ["a b", "c"], cache_dir=tmp_path / "cache")
    assert len(encoder.encoded) == 2 and np.array_equal(first, again)
    cached_vectors(encoder, "query", ["a b", "c"], cache_dir=tmp_path / "cache")
    cached_vectors(encoder, "document", ["a", "b c"], cache_dir=tmp_path / "cache")
    encoder.fingerprint = "0" * 64
    cached_vectors(encoder, "document", ["a b", "c"], cache_dir=tmp_path / "cache")
    assert len(encoder.encoded) == 8
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_damaged_cache_is_computed_again(tmp_path: Path, encoder: WordEncoder) -> None:
    first = cached_vectors(encoder, "document", ["a b"], cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert np.array_equal(cached_vectors(encoder, "document", ["a b"], cache_dir=tmp_path), first)
    assert np.array_equal(np.load(file), first)


def test_documents_are_cut_for_the_models_tokenizer() -> None:
    window = Window(32, 30, lambda text: 2 * len(text.split()))
    corpus = {"a": ("t", "one two three four. " * 3), "b": ("t", "one two three four. " * 6)}
    texts, ids = passages(corpus, window=window)
    assert ids == ["a", "b", "b"] and all(window.count(text) <= 30 for text in texts)
