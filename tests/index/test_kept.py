"""Embeddings outlive the process that made them, and only they, and only until they are in the index."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.writing import kept
from revela_rag.index.writing.kept import KeptVectors, forget

from .support import FakeEncoder, chunk, chunks, contents

HERE = Path(__file__).parent.parent
WORK = """
    import time
    class Slow(FakeEncoder):
        def encode_documents(self, texts, **options):
            print(len(self.embedded), flush=True)
            time.sleep(0.001)
            return super().encode_documents(texts, **options)
    from revela_rag.index.writing import kept
    kept._WORTH_KEEPING, kept._FIRST, kept._QUICK = 0.0, 16, 0.0
    if {build}:
        Index.build(chunks(4000), encoder=Slow(), path=sys.argv[1])
    else:
        with Index.open(sys.argv[1], encoder=Slow()) as index:
            index.{write}(chunks(4000))
"""


@pytest.fixture
def eager(monkeypatch):
    """Everything is worth keeping, block by block of 16 texts."""
    monkeypatch.setattr(kept, "_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(kept, "_FIRST", 16)
    monkeypatch.setattr(kept, "_QUICK", 0.0)


class Interrupted(FakeEncoder):
    """Stops after so many texts."""

    def __init__(self, after: int, *arguments, **options):
        super().__init__(*arguments, **options)
        self.after = after

    def encode_documents(self, texts, *, show_progress=False):
        if len(self.embedded) + len(texts) > self.after:
            raise KeyboardInterrupt
        return super().encode_documents(texts)


def interrupted(path, *, after, count=200, **options):
    with pytest.raises(KeyboardInterrupt):
        Index.build(chunks(count), encoder=Interrupted(after), path=path, **options)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("write", ["build", "sync", "add"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_write_goes_on_from_what_it_embedded(path, encoder, write, number):
    if write != "build":
        Index.build(chunks(10), encoder=encoder, path=path).close()
    code = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom index.support import *\n"
    code += "from revela_rag.index import Index\n" + textwrap.dedent(WORK.format(build=write == "build", write=write))
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    wanted = random.randrange(200, 2500)
    embedded = next(count for count in map(int, process.stdout) if count >= wanted)
    time.sleep(random.uniform(0.0, 0.01))
    process.send_signal(number)
    embedded = max([embedded, *map(int, process.stdout)])
    assert process.wait(timeout=60) == -number and embedded < 3900

    encoder.embedded.clear()
    if write == "build":
        with pytest.raises(IndexingError, match="not an index"):
            Index.open(path)
        index = Index.build(chunks(4000), encoder=encoder, path=path)
    else:
        index = Index.open(path, encoder=encoder)
        assert len(index) == 10
        getattr(index, write)(chunks(4000))
    lost = len(encoder.embedded) - (4000 - embedded - (0 if write == "build" else 10))
    assert -16 <= lost <= 16, "no more than the block that was under way"
    assert len(index) == 4000 and contents(path) == {"manifest.json", index.manifest.generation}
    for some in (chunk(5), chunk(900), chunk(3999)):
        assert index.search("", k=1, mode="dense", vector=encoder.encode_queries([some.text])[0])[0].chunk.id == some.id
    index.close()


def test_a_rerun_says_what_it_found_and_embeds_the_rest(path, encoder, eager, caplog):
    interrupted(path, after=100)
    assert caplog.messages == [f"96 embeddings are kept in {str(path)!r}; the same call again goes on from there."]
    caplog.clear()
    with Index.build(chunks(200), encoder=encoder, path=path) as index:
        assert caplog.messages == [f"Going on from 96 embeddings that an interrupted run left in {str(path)!r}."]
        assert encoder.embedded == [c.text for c in chunks(200, 96)]
        assert len(index) == 200 and contents(path) == {"manifest.json", "generation-000001"}


def test_another_corpus_takes_only_what_it_shares(path, encoder, eager):
    interrupted(path, after=100)
    with Index.build(chunks(300, 90), encoder=encoder, path=path) as index:
        assert encoder.embedded == [c.text for c in chunks(300, 96)] and len(index) == 210
    assert contents(path) == {"manifest.json", "generation-000001"}


def test_another_model_takes_nothing_and_clears_up(path, eager):
    interrupted(path, after=100)
    other = FakeEncoder("0" * 64, dimension=8)
    with Index.build(chunks(100), encoder=other, path=path) as index:
        assert len(other.embedded) == 100 and index.dimension == 8
    assert contents(path) == {"manifest.json", "generation-000001"}


def test_an_interrupted_replacement_goes_on_though_the_old_index_is_written_to(plain, encoder, eager):
    other = Interrupted(40, "0" * 64)
    with pytest.raises(KeyboardInterrupt):
        Index.build(chunks(100), encoder=other, path=plain.path, overwrite=True)
    plain.add([chunk(500)])  # the old model's
    other.after = 1000
    other.embedded.clear()
    with Index.build(chunks(100), encoder=other, path=plain.path, overwrite=True) as index:
        assert len(other.embedded) == 68 and len(index) == 100


def test_what_is_quick_is_not_kept(path, plain, encoder):
    fresh = path.with_name("fresh")
    interrupted(fresh, after=100)
    assert not fresh.exists()
    with Index.open(plain.path, encoder=Interrupted(1000)) as index, pytest.raises(KeyboardInterrupt):
        index.sync(chunks(3000))
    assert contents(plain.path) == {"manifest.json", "generation-000001"}


@pytest.mark.parametrize("damage", ["cut", "garbage", "vectors", "table"])
def test_a_damaged_file_costs_the_embeddings_alone(path, encoder, eager, damage):
    import sqlite3

    interrupted(path, after=100)
    (file,) = path.glob(".embedded-*.sqlite")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "garbage":
        file.write_bytes(b"\xff" * 20_000)
    else:
        sql = "UPDATE vectors SET vector = zeroblob(3)" if damage == "vectors" else "DROP TABLE vectors"
        with sqlite3.connect(file) as connection:
            connection.execute(sql)
        connection.close()
    with Index.build(chunks(200), encoder=encoder, path=path) as index:
        assert len(encoder.embedded) == 200 and len(index) == 200
        found = index.search("", k=1, mode="dense", vector=encoder.encode_queries([chunk(7).text])[0])[0]
        assert found.chunk.id == chunk(7).id and found.score == pytest.approx(1.0, abs=1e-5)
    assert contents(path) == {"manifest.json", "generation-000001"}


def test_vectors_that_are_not_finite_are_made_again(tmp_path, encoder, eager):
    bad = FakeEncoder()
    bad._encode = lambda texts: np.full((len(texts), bad.dimension), np.nan, dtype=np.float32)
    with KeptVectors(tmp_path, bad) as some:
        some.encode(["a", "b"])
    with KeptVectors(tmp_path, encoder) as some:
        assert np.isfinite(some.encode(["a", "b"])).all()
    assert encoder.embedded == ["a", "b"]
    forget(tmp_path)
    assert not list(tmp_path.iterdir())


def test_blocks_grow_where_the_model_is_fast(tmp_path):
    sizes = []

    class Counting(FakeEncoder):
        def encode_documents(self, texts, *, show_progress=False):
            sizes.append(len(texts))
            return super().encode_documents(texts)

    with KeptVectors(tmp_path, Counting()) as some:
        some.encode([str(number) for number in range(4096)])
    assert sizes == [128, 256, 512, 1024, 2048, 128]
    assert not list(tmp_path.iterdir())
