"""What a reader sees while others write, die, or run out of disk."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from revela_rag.errors import DiskError, IndexingError
from revela_rag.index import Index
from revela_rag.index.writing import generations
from revela_rag.index.writing.generations import LOCK_FILE

from .support import FakeEncoder, chunk, chunks, contents, numbers

HERE = Path(__file__).parent.parent


def run(code: str, *arguments: object, wait: bool = True) -> subprocess.Popen:
    """Run code in another process, with this package's support module."""
    head = f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
    head += "from index.support import *\nfrom revela_rag.index import Index\n"
    process = subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if wait:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        process.output = output  # type: ignore[attr-defined]
    return process


def test_a_generation_is_replaced_whole(plain):
    assert contents(plain.path) == {"manifest.json", "generation-000001"}
    plain.sync(chunks(50))
    assert contents(plain.path) == {"manifest.json", "generation-000002"}


def test_building_over_an_index_needs_to_be_asked_for(plain, encoder):
    with pytest.raises(IndexingError, match=r"sync.*overwrite=True"):
        Index.build(chunks(3), encoder=encoder, path=plain.path)
    assert len(Index.open(plain.path)) == 40
    other = FakeEncoder("0" * 64, dimension=8)
    with Index.build(chunks(3), encoder=other, path=plain.path, overwrite=True) as fresh:
        assert len(fresh) == 3 and fresh.dimension == 8
        assert len(plain.search("q", k=99)) == 40  # who had it open still sees the old one
        with pytest.raises(IndexingError, match="/models/0000"):
            plain.refresh()
        with pytest.raises(IndexingError, match="/models/0000"):
            plain.sync(chunks(40))
    assert contents(plain.path) == {"manifest.json", "generation-000002"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "manifest.json", "generation-1"])
def test_other_peoples_directories_are_left_alone(tmp_path, encoder, name, overwrite):
    (tmp_path / name).write_text('{"name": "a web application"}')
    with pytest.raises(IndexingError, match="not an index"):
        Index.build(chunks(3), encoder=encoder, path=tmp_path, overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_file_in_the_way(tmp_path, encoder):
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexingError, match="is a file"):
        Index.build(chunks(3), encoder=encoder, path=tmp_path / "file")


def test_an_empty_directory_will_do(tmp_path, encoder):
    assert len(Index.build(chunks(3), encoder=encoder, path=tmp_path)) == 3


def test_leftovers_of_a_killed_build_are_no_obstacle(path, encoder):
    (path / "generation-000001").mkdir(parents=True)
    (path / "generation-000001" / "texts.sqlite").write_bytes(b"half")
    (path / ".lock").touch()
    with pytest.raises(IndexingError, match="not an index"):
        Index.open(path)
    with Index.build(chunks(3), encoder=encoder, path=path) as index:
        assert len(index) == 3 and len(contents(path)) == 2


def test_a_second_writer_is_told_which_lock_to_look_at(plain, encoder):
    with FileLock(plain.path / LOCK_FILE), Index.open(plain.path, encoder=encoder, lock_timeout=0.05) as index:
        with pytest.raises(IndexingError, match=r"\.lock.*0\.05 s"):
            index.add([chunk(50)])
        with pytest.raises(IndexingError, match=r"\.lock"):
            Index.build([], encoder=encoder, path=plain.path, overwrite=True, lock_timeout=0.05)
        assert len(index.search("q", k=99)) == 40  # readers need no lock
    plain.add([chunk(50)])


def test_searches_do_not_wait_for_a_write(plain, encoder):
    class Slow(type(encoder)):
        def encode_documents(self, texts, **options):
            writing.set()
            assert searched.wait(30), "the search waits for the write"
            return super().encode_documents(texts, **options)

    writing, searched = threading.Event(), threading.Event()
    with Index.open(plain.path, encoder=Slow()) as index:
        writer = threading.Thread(target=index.sync, args=(chunks(60),))
        writer.start()
        assert writing.wait(30)
        for mode in ("dense", "hybrid", "lexical"):
            assert len(index.search("text 3", k=99, mode=mode)) in (1, 40)
        assert len(index.get([chunk(3).id])) == 1
        searched.set()
        writer.join()
        assert len(index.search("text 3", k=99, mode="dense")) == 60


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interruption_after_the_swap_leaves_the_new_index(plain, encoder, monkeypatch, error):
    def interrupted(root, current):
        if current is not None and current.count == 50:
            raise error

    monkeypatch.setattr(generations, "_sweep", interrupted)
    with suppress(KeyboardInterrupt, SystemExit):
        plain.sync(chunks(50))
    monkeypatch.undo()
    with Index.open(plain.path, encoder=encoder, verify=True) as index:
        assert len(index) == len(index.search("q", k=99)) == 50
        index.sync(chunks(10))
        assert len(contents(plain.path)) == 2


def test_a_generation_that_vanishes_while_it_is_checked_is_left_for_the_next(plain, encoder, monkeypatch):
    """Folders may go between two calls of the system; the reader then has the generation that came after."""
    seen = []

    def vanishes(folder, pattern):
        seen.append(folder)
        if len(seen) == 1:
            plain.add([chunk(900)])
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return iter(())

    monkeypatch.setattr(Path, "rglob", vanishes)
    with Index.open(plain.path, encoder=encoder) as reader:
        assert len(reader) == 41 and len(seen) >= 2


def test_two_processes_take_turns(plain, encoder):
    code = """
        with Index.open(sys.argv[1], encoder=FakeEncoder(), lock_timeout=60) as index:
            for number in range(5):
                index.add([chunk(int(sys.argv[2]) + number)])
    """
    writers = [run(code, plain.path, start, wait=False) for start in (100, 200)]
    while any(writer.poll() is None for writer in writers):
        with Index.open(plain.path, encoder=encoder, auto_refresh=False) as reader:  # opened at any moment
            assert len(reader) >= 40 and len(reader.search("q", k=99)) == len(reader)
    assert [writer.returncode for writer in writers] == [0, 0], writers[0].stderr.read()
    plain.refresh()
    assert len(plain) == 50


@pytest.mark.parametrize("store", ["faiss", pytest.param("chroma", marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_the_old_index(tmp_path, encoder, store):
    root = tmp_path / "index"
    Index.build(chunks(60), encoder=encoder, path=root, store=store).close()
    code = """
        print("ready", flush=True)
        with Index.open(sys.argv[1], encoder=FakeEncoder()) as index:
            while True:  # between two states, for as long as it lives
                index.sync(chunks(300, 60))
                index.sync(chunks(60))
    """
    random.seed(4)
    leftovers = 0
    for _ in range(6):
        process = run(code, root, wait=False)
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0.3, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        leftovers += len(contents(root)) > 2
        with Index.open(root, encoder=encoder, verify=True) as index:
            found = set(numbers(index.search("q", k=999)))
            assert found in (set(range(60)), set(range(60, 300)))
            assert numbers(index.search(f"getUser{min(found)}Name", k=1, mode="lexical")) == [min(found)]
    with Index.open(root, encoder=encoder) as index:
        index.add([chunk(1000)])  # the lock is free, and what was left is removed
        assert contents(root) == {"manifest.json", index.manifest.generation}
    if store == "faiss":
        assert leftovers, "no kill fell into a write; the test has lost its point"


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITERS = [
    "revela_rag.index.writing.writer.shutil.copyfile",
    "revela_rag.index.stores.faiss_store.FaissStore.save",
    "revela_rag.postings.np.save",
    "revela_rag.index.writing.writer.describe_files",
    "revela_rag.index.writing.generations._sync",
    "revela_rag.index.manifest.Manifest.to_json",
]


@pytest.mark.parametrize("target", WRITERS)
def test_a_full_disk_leaves_nothing_half_written(plain, encoder, target, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise FULL

    fresh = tmp_path / "fresh"
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(DiskError, match="disk is full"):
            plain.sync(chunks(80))
        if "copyfile" not in target:
            with pytest.raises(DiskError, match="disk is full"):
                Index.build(chunks(5), encoder=encoder, path=fresh)
    assert not fresh.exists()
    assert contents(plain.path) == {"manifest.json", "generation-000001"}
    assert len(Index.open(plain.path).get([c.id for c in chunks(80)])) == 40
    assert plain.sync(chunks(80)).added == 40


def test_a_real_limit_on_file_sizes(plain):
    """SQLite, FAISS and NumPy each meet a write that fails, at whatever byte it comes."""
    code = """
        import resource
        from revela_rag.errors import DiskError
        with Index.open(sys.argv[1], encoder=FakeEncoder()) as index:
            for limit in (1_000, 20_000, 40_000, 60_000, 80_000, 120_000, 160_000):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    index.sync(chunks(900))
                except DiskError as error:
                    print(limit, error)
                else:
                    raise SystemExit(f"{limit} was enough")
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print("done", index.sync(chunks(900)).added)
    """
    output = run(code, plain.path).output
    assert output.endswith("done 860\n") and output.count("\n") == 8
    plain.refresh()
    assert len(plain) == 900 and contents(plain.path) == {"manifest.json", "generation-000002"}


@pytest.mark.skipif(os.geteuid() == 0 or os.name == "nt", reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(tmp_path, encoder):
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="permission"):
        Index.build(chunks(3), encoder=encoder, path=tmp_path / "index")


def test_errors_of_the_source_are_not_taken_for_ours(path, encoder):
    def source():
        yield chunk(1)
        raise FileNotFoundError("a document vanished")

    with pytest.raises(FileNotFoundError, match="a document vanished"):
        Index.build(source(), encoder=encoder, path=path)
    assert not path.exists()


def test_an_interrupt_cleans_up(plain):
    def source():
        yield from chunks(3000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain.sync(source())
    assert contents(plain.path) == {"manifest.json", "generation-000001"} and len(plain.search("q", k=99)) == 40


def test_the_manifest_says_what_is_there(plain):
    manifest = json.loads((plain.path / "manifest.json").read_text())
    assert manifest["format"] == "revela-index" and manifest["metric"] == "cosine"
    assert manifest["count"] == 40 and manifest["model"]["fingerprint"] == "f" * 64
    assert set(manifest["files"]) >= {"vectors-000001.faiss", "texts.sqlite"}
    assert sum(name.startswith("lexical/000001-") for name in manifest["files"]) == 7
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"].values())
