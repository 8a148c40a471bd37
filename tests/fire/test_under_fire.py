"""Small doses of benchmarks/fire; the scripts there take a count."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from index.support import FakeEncoder, chunks, numbers

from revela_rag.index import Index

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "fire"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the scripts fork")


def run(script: str, *arguments: str) -> str:
    pytest.importorskip("chromadb")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPTS / script), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_writers_that_are_killed(store):
    """Nothing lost, nothing left after the next write; also where a power cut drops what was not synced."""
    power = ("--power", "4") if store == "faiss" else ()
    assert "build" in run("kills.py", "--count", "8", "--store", store, *power)


@pytest.mark.slow
def test_a_kill_at_calls_that_touch_files():
    out = run("kills.py", "--count", "0", "--calls", "25", "--store", "faiss", "--what", "sync", "delete")
    assert "calls" in out


@pytest.mark.slow
@pytest.mark.parametrize("limit", [(), ("--limit",)])
def test_a_disk_that_is_full(limit):
    assert "file" in run("disk.py", "--step", "400", "--store", "faiss", *limit)


@pytest.mark.slow
def test_searches_beside_writes_give_what_they_give_alone():
    sizes = ("--threads", "8", "--queries", "40", "--tasks", "64", "--writes", "6", "--memory", "0")
    assert "faiss" in run("traffic.py", "--store", "faiss", *sizes)


def test_memory_stays_as_it_is(tmp_path):
    """Each search that kept a kilobyte would show."""
    resident = partial(Path("/proc/self/statm").read_text)
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here")
    with Index.build(chunks(200), encoder=FakeEncoder(), path=tmp_path / "index") as index:
        sizes = []
        for number in range(2400):
            index.search(f"getUser{number}Name", mode=("dense", "lexical", "hybrid")[number % 3])
            if number % 600 == 599:
                sizes.append(int(resident().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert sizes[-1] - sizes[0] < 1_800_000


def found(index: Index) -> list[int]:
    return numbers(index.search("text 3", k=7, mode="dense"))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_workers_that_are_spawned(tmp_path, store):
    """An index travels to them as its path; each opens it anew."""
    if store == "chroma":
        pytest.importorskip("chromadb")
    with Index.build(chunks(50), encoder=FakeEncoder(), path=tmp_path / "index", store=store) as index:
        expected = found(index)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(found, [index] * 4) == [expected] * 4
