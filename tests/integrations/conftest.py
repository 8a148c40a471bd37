"""Indexes of a tiny model in both stores, and guards against the network and against pickle."""

from __future__ import annotations

import socket

import pytest
from integration_data import build_model, make_chunks


@pytest.fixture(scope="session")
def model_path(tmp_path_factory) -> str:
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def other_model_path(tmp_path_factory) -> str:
    return build_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def plain(model_path):
    """The same model in plain sentence-transformers, with no prompt applied unless the test writes one."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_path, device="cpu")
    model.default_prompt_name = None
    return model


@pytest.fixture(scope="session")
def encoder(model_path):
    from revela_rag.model.encoder import Encoder

    return Encoder(model_path, device="cpu")


def _build(encoder, folder, store: str):
    from revela_rag.index import Index

    return Index.build(make_chunks(), encoder=encoder, path=folder / store, store=store)


@pytest.fixture(scope="session")
def faiss_index(encoder, tmp_path_factory):
    with _build(encoder, tmp_path_factory.mktemp("faiss"), "faiss") as index:
        yield index


@pytest.fixture(scope="session")
def chroma_index(encoder, tmp_path_factory):
    with _build(encoder, tmp_path_factory.mktemp("chroma"), "chroma") as index:
        yield index


@pytest.fixture(params=["faiss", "chroma"])
def index(request):
    """One index per store over the same chunks."""
    return request.getfixturevalue(f"{request.param}_index")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to reach another machine fails the test, also when the library swallows the error."""
    attempts: list[object] = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not attempts


@pytest.fixture
def no_pickle(monkeypatch):
    """Reading a pickle fails the test."""
    import pickle

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
