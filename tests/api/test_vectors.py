"""What is sent, what is cached, and how fast."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revela_rag.api import ApiEmbeddings
from revela_rag.api.calls import Pace, status_of
from revela_rag.api.known import PROBES
from revela_rag.api.vectors import ApiVectors
from revela_rag.errors import ModelError

from .support import Server


class LangChainLike:
    """Only the two methods; queries may be embedded in another way, as Cohere's are."""

    def __init__(self, server: Server, *, apart: bool, model: str = "m-1") -> None:
        self.server, self.apart, self.model = server, apart, model
        self.queries: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.server(texts)

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        return self.server([f"query {text}" if self.apart else text])[0]


def test_each_text_is_sent_once(server: Server, cache: Path) -> None:
    vectors = ApiVectors(server.embeddings(), cache=cache)
    made = vectors.embed(["b", "a", "b", "a longer one"], "document")
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert (made[0] == made[2]).all()
    assert server.texts == [*PROBES, "a longer one", "b", "a"], "the longest first"
    again = ApiVectors(server.embeddings(), cache=cache)
    assert (again.embed(["a", "b"], "query") == made[[1, 0]]).all(), "queries are embedded as documents are"
    assert len(server.calls) == 2, "not even the probes were sent again"
    again.embed(["c"], "document")
    assert server.texts[6:] == [*PROBES, "c"]


def test_without_a_cache_nothing_is_kept(server: Server) -> None:
    vectors = ApiVectors(server.embeddings(), cache=False)
    assert (vectors.embed(["a"], "document") == vectors.embed(["a"], "document")).all()
    assert server.texts == [*PROBES, "a", "a"]


def test_the_cache_is_the_users_by_default(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ApiVectors(server.embeddings()).embed(["a"], "document")
    assert (tmp_path / "revela-rag" / "embeddings.sqlite").is_file()
    folder = tmp_path / "folder"
    ApiVectors(server.embeddings(), cache=folder).embed(["a"], "document")
    assert (folder / "embeddings.sqlite").is_file()


def test_models_and_roles_do_not_share_vectors(server: Server, cache: Path) -> None:
    other = Server(seed=1)
    first = ApiVectors(server.embeddings(), cache=cache).embed(["a"], "document")
    second = ApiVectors(other.embeddings(name="others"), cache=cache).embed(["a"], "document")
    assert not np.allclose(first, second)
    apart = ApiVectors(ApiEmbeddings.of(LangChainLike(server, apart=True)), cache=cache)
    assert apart.known.roles_differ
    assert not np.allclose(apart.embed(["a"], "document"), apart.embed(["a"], "query"))


def test_a_function_for_queries_is_used_though_documents_are_known(server: Server, cache: Path) -> None:
    ApiVectors(server.embeddings(), cache=cache).embed(["a"], "query")
    apart = server.embeddings(embed_queries=lambda texts: -np.array(server(texts)))
    vectors = ApiVectors(apart, cache=cache)
    assert vectors.known.roles_differ
    np.testing.assert_allclose(vectors.embed(["a"], "query"), -vectors.embed(["a"], "document"), atol=1e-6)
    prompted = ApiVectors(server.embeddings(query_prompt="find: "), cache=cache)
    assert prompted.known.roles_differ, "and probes behind a prompt are no sign of another model"
    assert not np.allclose(prompted.embed(["a"], "query"), prompted.embed(["a"], "document"))


def test_queries_of_a_framework_go_in_batches_where_they_are_documents(server: Server, cache: Path) -> None:
    alike, apart = (LangChainLike(server, apart=apart, model=f"m-{apart}") for apart in (False, True))
    queries = [f"query number {i}" for i in range(9)]
    made = ApiVectors(alike, cache=cache).embed(queries, "query")
    assert alike.queries == list(PROBES)
    assert np.allclose(made, ApiVectors(server.embeddings(), cache=False).embed(queries, "document"), atol=1e-6)
    ApiVectors(apart, cache=cache).embed(queries, "query")
    assert set(apart.queries) == {*PROBES, *queries}


def test_prompts_are_put_before_texts(server: Server) -> None:
    vectors = ApiVectors(server.embeddings(query_prompt="find: ", document_prompt="text: "), cache=False)
    vectors.embed(["a"], "query")
    vectors.embed(["a"], "document")
    assert {"find: a", "text: a"} <= set(server.texts)


def test_what_services_refuse_is_not_sent(server: Server) -> None:
    vectors = ApiVectors(server.embeddings(max_tokens=5), cache=False)
    vectors.embed(["", "  \n", "word " * 100, "\ud800"], "document")
    assert sorted(server.texts[3:]) == [".", "?", "word word word word "]


def test_the_estimate_counts_what_will_be_sent(server: Server, cache: Path) -> None:
    vectors = ApiVectors(server.embeddings(price=2.0), cache=cache)
    vectors.embed(["known"], "document")
    calls = len(server.calls)
    documents = [f"document {i:04}" for i in range(10)]
    estimate = vectors.estimate([*documents, "known", documents[0]], [documents[1], "a question to ask"])
    assert (estimate.texts, estimate.cached, estimate.requests) == (11, 1, 3)
    assert estimate.tokens == round((10 * 13 + 17) / 4)
    assert estimate.cost == pytest.approx(estimate.tokens * 2e-6)
    assert "11 texts (1 more are cached)" in str(estimate) and "2 a million tokens" in str(estimate)
    assert len(server.calls) == calls
    vectors.embed(documents, "document")
    vectors.embed(["a question to ask"], "query")
    assert vectors.estimate(documents, ["a question to ask"]).texts == 0


def test_requests_keep_their_pace(server: Server, waits: list, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    vectors = ApiVectors(server.embeddings(requests_per_minute=30, batch_size=1), cache=False)
    vectors.embed(["a", "b", "c"], "document")
    assert waits == [2.0, 4.0, 6.0, 8.0, 10.0], "the clock stands still: each waits until its place"
    waits.clear()
    pace = Pace(600)
    pace.wait(100)
    pace.wait(1)
    assert waits == [10.0]


def test_several_threads_may_ask(server: Server) -> None:
    texts = [f"text {i}" for i in range(50)]
    many = ApiVectors(server.embeddings(workers=4, batch_size=3), cache=False).embed(texts, "document")
    one = ApiVectors(server.embeddings(), cache=False).embed(texts, "document")
    assert np.allclose(many, one, atol=1e-6)


def test_it_goes_to_another_process(cache: Path) -> None:
    vectors = ApiVectors(Server().embeddings(), cache=cache)
    before = vectors.embed(["a"], "document")
    copy = pickle.loads(pickle.dumps(vectors))  # noqa: S301
    assert (copy.embed(["a"], "document") == before).all()


class OpenAILike(LangChainLike):
    chunk_size = 16
    dimensions = 512


class LlamaIndexLike:
    model_name = "text-embedding-3-small"
    embed_batch_size = 10

    def __init__(self, server: Server) -> None:
        self.get_text_embedding_batch = server

    def get_query_embedding(self, query: str) -> list[float]:
        return self.get_text_embedding_batch([query])[0]


def test_frameworks_embeddings_are_named_by_class_and_model(server: Server) -> None:
    taken = ApiEmbeddings.of(OpenAILike(server, apart=False, model="text-embedding-3-small"), price=0.02)
    assert (taken.name, taken.batch_size, taken.price) == ("OpenAILike:text-embedding-3-small:512", 16, 0.02)
    taken = ApiEmbeddings.of(LlamaIndexLike(server))
    assert (taken.name, taken.batch_size) == ("LlamaIndexLike:text-embedding-3-small", 10)
    assert ApiVectors(taken, cache=False).embed(["a"], "query").shape == (1, 16)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": " "}, "name"),
        ({"embed_documents": None}, "embed_documents"),
        ({"embed_queries": 3}, "embed_queries"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"retries": -1}, "retries=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"price": float("nan")}, "price=nan"),
        ({"requests_per_minute": True and -1}, "requests_per_minute=-1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str, server: Server) -> None:
    with pytest.raises(ModelError, match=words):
        server.embeddings(**settings)


def test_what_cannot_be_called_is_refused(server: Server) -> None:
    with pytest.raises(ModelError, match="type Server cannot be called"):
        ApiEmbeddings.of(server)
    with pytest.raises(ModelError, match="Unknown setting batchsize"):
        ApiEmbeddings.of(server.embeddings(), batchsize=3)


def test_the_status_of_any_clients_error_is_found() -> None:
    aws = Exception("slow")
    aws.response = {"ResponseMetadata": {"HTTPStatusCode": 429}}  # type: ignore[attr-defined]
    assert status_of(aws) == 429
    google = Exception("slow")
    google.code = 503  # type: ignore[attr-defined]
    assert status_of(google) == 503
    assert status_of(OSError(5, "input/output error")) is None
