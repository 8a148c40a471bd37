"""Embedding by two workers of a local Ray cluster."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from revela_rag.corpus.types import Chunk, chunk_id
from revela_rag.errors import MissingExtraError, ModelError
from revela_rag.index import Index, SyncReport
from revela_rag.model import ray as ray_encoder
from revela_rag.model.encoder import Encoder
from revela_rag.model.ray import RayEncoder

from .conftest import WORDS, sentence_transformer


def texts(count: int) -> list[Chunk]:
    said = [" ".join(WORDS[(number * step) % len(WORDS)] for step in range(2 + number % 9)) for number in range(count)]
    return [
        Chunk(id=chunk_id(f"d{number}", text), text=text, document_id=f"d{number}", position=0, kind="prose")
        for number, text in enumerate(said)
    ]


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"revela-rag\[ray\]"):
        RayEncoder(tmp_path)


def test_the_number_of_workers_is_checked(tmp_path):
    with pytest.raises(ModelError, match="workers=0"):
        RayEncoder(tmp_path, workers=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_make_the_index_of_one_process(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setattr(ray_encoder, "_BLOCK", 50)
    model = sentence_transformer(tmp_path / "model")
    flag, starts = tmp_path / "died", tmp_path / "starts"
    starts.mkdir()

    class Mortal(ray_encoder._Worker):
        """Notes which processes there are; the first that has work to do dies of it."""

        def __call__(self, batch):
            (starts / str(os.getpid())).touch()
            if not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    monkeypatch.setattr(ray_encoder, "_Worker", Mortal)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    try:
        encoder = RayEncoder(model, workers=2, device="cpu")
        with Index.build(texts(400), encoder=encoder, path=tmp_path / "ray") as made:
            assert flag.exists(), "no worker died; the test has lost its point"
            assert len(list(starts.iterdir())) >= 2
            alone = Index.build(texts(400), encoder=Encoder(model, device="cpu"), path=tmp_path / "alone")
            compare(made, alone)
            assert made.sync([*texts(410)[10:]]) == SyncReport(added=10, deleted=10, unchanged=390, embedded=10)
    finally:
        ray.shutdown()
    with Index.open(tmp_path / "ray", encoder=Encoder(model, device="cpu")) as opened:
        assert opened.search(texts(1)[0].text, k=1)


def compare(made: Index, alone: Index) -> None:
    ours, theirs = (json.loads(Path(index.path, "manifest.json").read_text()) for index in (made, alone))
    assert all(ours[key] == theirs[key] for key in ("count", "dimension", "model", "kind"))
    assert ours["files"]["lexical/data.npy"] == theirs["files"]["lexical/data.npy"]
    (mine,), (other,) = made._current().vectors._segments, alone._current().vectors._segments
    np.testing.assert_array_equal(mine.rows, other.rows)
    np.testing.assert_allclose(mine.vectors(), other.vectors(), atol=1e-6)
    chunks = [chunk.id for chunk in texts(400)]
    assert made.get(chunks) == alone.get(chunks)
