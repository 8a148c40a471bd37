"""Servers that fail: a clear error, and nothing that was paid for is lost."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revela_rag.api.known import PROBES
from revela_rag.api.vectors import ApiVectors
from revela_rag.errors import DiskError, EmbeddingError

from .support import HttpError, Server, raising

TEXTS = [f"text {number} of many" for number in range(10)]  # three batches behind the probes


def nan(vectors: np.ndarray) -> Any:
    vectors[0, 3] = np.nan
    return vectors.tolist()


def ragged(vectors: np.ndarray) -> Any:
    return [[*vectors[0], 1.0], *vectors[1:].tolist()]


CASES: dict[str, tuple[Callable[[np.ndarray], Any], list[str]]] = {
    "fails": (raising(HttpError(500, "boom")), ["500", "boom", "See whether it is up"]),
    "throttles": (raising(HttpError(429, "slow down")), ["429", "requests_per_minute"]),
    "has no quota": (raising(HttpError(429, "insufficient_quota")), ["insufficient_quota"]),
    "refuses the key": (raising(HttpError(401, "bad key")), ["401", "Check the key"]),
    "refuses a long text": (raising(HttpError(400, "too long")), ["longest of 14 characters", "max_tokens"]),
    "times out": (raising(TimeoutError("too slow")), ["TimeoutError", "timeout"]),
    "loses the connection": (raising(ConnectionResetError("gone")), ["ConnectionResetError"]),
    "has a bug": (raising(KeyError("embedding")), ["KeyError"]),
    "gives NaN": (nan, ["not finite", "first of 14 characters", "'text 4 of many"]),
    "gives zeros": (lambda v: (v * 0).tolist(), ["is zero", "4 of 4 texts"]),
    "gives fewer": (lambda v: v[:-1].tolist(), ["3 vectors for 4 texts", "batch_size"]),
    "gives more": (lambda v: [*v.tolist(), v[0]], ["5 vectors for 4 texts"]),
    "gives other lengths": (lambda v: np.tile(v, 2), ["length 32 instead of 16", "name"]),
    "gives several lengths": (ragged, ["lengths 16, 17"]),
    "gives one vector": (lambda v: v[0], ["16 vectors for 4 texts"]),
    "gives words": (lambda v: ["a"] * len(v), ["'words' gave list"]),
    "gives nothing": (lambda v: None, ["NoneType"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_named_and_what_was_embedded_stays(case: str, server: Server, cache: Path, waits: list) -> None:
    fault, words = CASES[case]
    vectors = ApiVectors(server.embeddings(retries=2), cache=cache)
    for call in range(3, 20):  # the first batch succeeds, after the probes; nothing else does
        server.faults[call] = fault
    with pytest.raises(EmbeddingError) as caught:
        vectors.embed(TEXTS, "document")
    message = str(caught.value)
    for word in ["'words'", *words, "4 of 10 texts were embedded", str(cache), "run again"]:
        assert word in message, message
    assert "RetryError" not in message

    server.faults.clear()
    before = len(server.texts)
    made = ApiVectors(server.embeddings(), cache=cache).embed(TEXTS, "document")
    assert sorted(server.texts[before:]) == sorted([*PROBES, *(set(TEXTS) - set(server.calls[1]))])
    assert np.allclose(made, ApiVectors(Server().embeddings(), cache=False).embed(TEXTS, "document"), atol=1e-6)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (HttpError(500), 4),
        (HttpError(503), 4),
        (HttpError(429), 4),
        (TimeoutError(), 4),
        (ConnectionError(), 4),
        (json.JSONDecodeError("no", "<html>", 0), 4),
        (RuntimeError("of its own kind"), 4),
        (HttpError(400), 1),
        (HttpError(401), 1),
        (HttpError(404), 1),
        (HttpError(429, "insufficient_quota"), 1),
        (ValueError("wrong"), 1),
        (TypeError("wrong"), 1),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again(error: Exception, attempts: int, server: Server, waits: list) -> None:
    for call in range(1, 20):
        server.faults[call] = raising(error)
    with pytest.raises(EmbeddingError):
        ApiVectors(server.embeddings(retries=3), cache=False).embed(["a"], "document")
    assert len(server.calls) == attempts
    assert len(waits) == attempts - 1
    for number, waited in enumerate(waits):
        assert 2**number <= waited <= 2**number + 1, "twice as long each time, and a random part of a second"


def test_the_time_that_a_server_asks_for_is_waited(server: Server, waits: list) -> None:
    server.faults[1] = raising(HttpError(429, headers={"retry-after": "17"}))
    assert ApiVectors(server.embeddings(), cache=False).embed(["a"], "document").shape == (1, 16)
    assert waits == [17.0]


def test_a_server_that_never_answers_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    server.faults[1] = lambda vectors: never.wait(20)
    with pytest.raises(EmbeddingError, match=r"no answer within 0\.2 seconds"):
        ApiVectors(server.embeddings(timeout=0.2, retries=0), cache=False).embed(["a"], "document")
    never.set()


def test_another_model_under_the_name_is_found_out_and_nothing_is_lost(cache: Path) -> None:
    old, new = Server(), Server(seed=1)
    ApiVectors(old.embeddings(), cache=cache).embed(TEXTS, "document")
    with pytest.raises(EmbeddingError, match="another model answers under that name") as caught:
        ApiVectors(new.embeddings(), cache=cache).embed(["something new"], "document")
    assert "name=" in str(caught.value) and "cosine" in str(caught.value)
    assert set(new.texts) == set(PROBES), "no text of the user's was sent to it"
    calls = len(old.calls)
    ApiVectors(old.embeddings(), cache=cache).embed(TEXTS, "document")
    assert len(old.calls) == calls, "the old model's vectors are still there"
    renamed = ApiVectors(new.embeddings(name="words-2"), cache=cache)
    assert not np.allclose(
        renamed.embed(TEXTS[:1], "document"), ApiVectors(old.embeddings(), cache=cache).embed(TEXTS[:1], "document")
    )


def test_another_length_under_the_name_is_found_out(cache: Path) -> None:
    ApiVectors(Server().embeddings(), cache=cache).embed(TEXTS, "document")
    with pytest.raises(EmbeddingError, match=r"length 24.* has 16"):
        ApiVectors(Server(24).embeddings(), cache=cache).embed(["something new"], "document")


def test_a_length_that_is_not_the_cached_one_is_found_out(cache: Path) -> None:
    ApiVectors(Server().embeddings(), cache=cache).embed(TEXTS, "document")
    with pytest.raises(EmbeddingError, match="length 16 instead of 8"):
        ApiVectors(Server().embeddings(dimension=8), cache=cache).embed(TEXTS, "document")


def test_a_length_that_was_promised_is_held(server: Server) -> None:
    with pytest.raises(EmbeddingError, match="length 16 instead of 8"):
        ApiVectors(server.embeddings(dimension=8), cache=False).embed(["a"], "document")


def test_vectors_that_are_not_quite_repeatable_are_the_same_model(server: Server, cache: Path) -> None:
    rng = np.random.default_rng(0)

    def noisy(texts: list[str]) -> np.ndarray:
        made = np.array(server(texts))
        return made + rng.standard_normal(made.shape) * 1e-3

    ApiVectors(server.embeddings(embed_documents=noisy), cache=cache).embed(TEXTS[:2], "document")
    ApiVectors(server.embeddings(embed_documents=noisy), cache=cache).embed(TEXTS, "document")


def test_several_requests_at_a_time_keep_what_they_got(server: Server, cache: Path) -> None:
    def refuses_one(texts: list[str]) -> Any:
        if "text 4 of many" in texts:
            raise HttpError(400)
        return server(texts)

    settings = {"workers": 3, "batch_size": 1}
    with pytest.raises(EmbeddingError):
        ApiVectors(server.embeddings(embed_documents=refuses_one, **settings), cache=cache).embed(TEXTS, "document")
    calls = len(server.calls)
    ApiVectors(server.embeddings(**settings), cache=cache).embed(TEXTS, "document")
    assert sorted(server.texts) == sorted([*PROBES, *PROBES, *TEXTS]), "none was sent twice"
    assert len(server.calls) > calls and {len(call) for call in server.calls} == {1}


def test_a_damaged_cache_is_named(server: Server, cache: Path) -> None:
    cache.write_bytes(b"no database" * 1000)
    with pytest.raises(DiskError, match=r"vectors\.sqlite.*cache="):
        ApiVectors(server.embeddings(), cache=cache).embed(TEXTS, "document")


def test_a_killed_run_keeps_every_whole_batch(server: Server, cache: Path) -> None:
    server.faults[3] = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ApiVectors(server.embeddings(), cache=cache).embed(TEXTS, "document")
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT COUNT(*) FROM vectors").fetchone() == (4,)
