"""Every byte of an index counts: what changes in its files is found, and a sound index is not accused."""

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from index.support import DIMENSION, FakeEncoder, chunk, chunks, numbers
from typer.testing import CliRunner

from revela_rag.cli.app import app
from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.checks.verify import open_index, verify_index
from revela_rag.index.manifest import Manifest

from .support import change

KINDS = [("faiss", "flat"), ("faiss", "hnsw"), ("faiss", "ivf-sq8"), ("faiss", "rabitq"), ("chroma", "flat")]
COUNT = 220


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def whole(request, tmp_path_factory) -> Path:
    """An index after an add and a delete, and one of other texts beside it."""
    store, kind = request.param
    if store == "chroma":
        pytest.importorskip("chromadb")
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("approximate", "faiss_store"):
            patch.setattr(f"revela_rag.index.stores.{module}.LEAST", 100)
        for name, start in (("index", 0), ("other", 5000)):
            with Index.build(
                chunks(start + COUNT - 20, start), encoder=FakeEncoder(), path=folder / name, store=store, kind=kind
            ) as index:
                index.add(chunks(start + COUNT, start + COUNT - 20))
                index.delete([chunk(start + 3).id])
    return folder / "index"


def files(path: Path) -> list[Path]:
    return [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]


def failed(path: Path) -> list:
    return [check for check in verify_index(path) if check.status == "failed"]


def twin(path: Path, file: Path) -> Path:
    """The file of the other index that lies in the same place."""
    number = [other.name for other in files(path) if other.suffix == file.suffix].index(file.name)
    return [other for other in files(path.with_name("other")) if other.suffix == file.suffix][number]


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << (place % 8)
    file.write_bytes(data)


@pytest.fixture
def copy(whole, tmp_path):
    def make() -> Path:
        return Path(shutil.copytree(whole, tmp_path / "copy"))

    return make


def each_file(copy, whole):
    """One copy of the index for each of its files."""
    for name in [file.relative_to(whole) for file in files(whole)]:
        path = copy()
        yield path, path / name
        shutil.rmtree(path)


def test_a_sound_index(whole):
    checks = list(verify_index(whole))
    assert [check.name for check in checks] == ["manifest", "files", "texts", "vectors", "words", "model"]
    assert {check.status for check in checks[:-1]} == {"ok"}
    assert checks[-1].status == "missing" and "/models/ffff" in checks[-1].detail
    opened = list(open_index(whole))
    assert {check.status for check in opened} == {"ok"} and [check.name for check in opened][:2] == ["index", "texts"]


def test_a_flipped_bit(whole, copy):
    drawn = random.Random(0)
    for path, file in each_file(copy, whole):
        entry = Manifest.read(path).files.get(file.relative_to(path).as_posix().partition("/")[2])
        size = file.stat().st_size
        places = {0, size // 2, size - 1, *(drawn.randrange(size) for _ in range(4))}
        for place in places:
            if entry and any(start <= place < stop for start, stop in entry.changing):
                continue
            flip(file, place)
            with pytest.raises(IndexingError):
                Index.open(path, verify=True)
                pytest.fail(f"{file.name} at {place}")
            if place == size - 1:
                assert failed(path), file.name
            flip(file, place)
        assert not failed(path)


@pytest.mark.parametrize("how", ["cut", "emptied", "grown", "removed"])
def test_another_size(whole, copy, how):
    for path, file in each_file(copy, whole):
        if how == "removed":
            file.unlink()
        else:
            data = file.read_bytes()
            file.write_bytes({"cut": data[:-1], "emptied": b"", "grown": data + b" "}[how])
        still_json = file.name == "manifest.json" and how in ("cut", "grown")
        with pytest.raises(IndexingError):
            Index.open(path, verify=still_json)
        found = failed(path)
        assert found and all(check.remedy for check in found)


def test_the_file_of_another_index(whole, copy):
    for path, file in each_file(copy, whole):
        before = file.read_bytes()
        shutil.copyfile(twin(whole, file), file)
        if file.read_bytes() != before:
            assert failed(path), file.name


def test_a_file_that_is_not_of_the_index(whole, copy):
    path = copy()
    (path / Manifest.read(path).generation / "lexical" / "stray.npy").write_bytes(b"x")
    assert "not of this index" in failed(path)[0].detail


def test_all_faults_are_told_and_the_rest_is_looked_at(whole, copy):
    path = copy()
    folder = path / Manifest.read(path).generation
    for file in (folder / "lexical").rglob("*.npy"):
        file.write_bytes(b"")
    checks = {check.name: check for check in verify_index(path)}
    assert len(failed(path)) == len(list((folder / "lexical").rglob("*.npy")))
    assert checks["texts"].status == checks["vectors"].status == "ok" and checks["words"].status == "missing"


def test_what_hashes_do_not_tell(whole, copy):
    """Files as they were written, by somebody who wrote them wrong."""
    path = copy()
    said = Manifest.read(path)
    texts = path / said.generation / "texts.sqlite"
    with closing(sqlite3.connect(texts)) as database, database:
        database.execute("UPDATE chunks SET row = 9000 WHERE row = (SELECT MIN(row) FROM chunks)")
    change(path / "manifest.json", files={}, sha256=None)
    found = {check.name: check for check in failed(path)}
    assert "metadata are of no chunk" in found["texts"].detail
    assert "1 texts have no vector, 1 vectors no text" in found["vectors"].detail
    unhashed = next(check for check in verify_index(path) if check.name == "files")
    assert unhashed.status == "warning" and "there is no hash of any" in unhashed.detail


@pytest.mark.parametrize("value", [np.nan, np.inf, 7.0])
def test_vectors_are_finite_and_of_unit_length(tmp_path, value):
    Index.build(chunks(9), encoder=FakeEncoder(), path=tmp_path / "index").close()
    (file,) = tmp_path.glob("index/generation-*/vectors-000001.faiss")
    index = faiss.read_index(str(file))
    vectors = faiss.vector_to_array(faiss.downcast_index(index.index).codes).view(np.float32).reshape(-1, DIMENSION)
    vectors[4, 2] = value
    other = faiss.index_factory(DIMENSION, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    other.add_with_ids(vectors, faiss.vector_to_array(index.id_map))
    faiss.write_index(other, str(file))
    change(tmp_path / "index" / "manifest.json", files={}, sha256=None)
    (fault,) = failed(tmp_path / "index")
    assert "instead of 1" in fault.detail


def test_the_command(whole, copy):
    path = copy()
    runner = CliRunner()
    sound = runner.invoke(app, ["doctor", str(path), "--verify"])
    assert sound.exit_code == 0 and "The index is whole." in sound.stdout
    assert runner.invoke(app, ["doctor", str(path)]).exit_code == 0
    (path / Manifest.read(path).generation / "texts.sqlite").write_bytes(b"")
    assert runner.invoke(app, ["doctor", str(path)]).exit_code == 1
    damaged = runner.invoke(app, ["doctor", str(path), "--verify", "--json"])
    said = json.loads(damaged.stdout)
    assert damaged.exit_code == 1 and said["ok"] is False
    fault = next(check for check in said["checks"] if check["status"] == "failed")
    assert "texts.sqlite" in fault["detail"] and "--overwrite" in fault["remedy"]
    assert runner.invoke(app, ["doctor", "--verify"]).exit_code == 1
    assert runner.invoke(app, ["doctor", str(path / "nothing"), "--verify"]).exit_code == 1


class TestChroma:
    """What reading changes in Chroma's database, and what it does not."""

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        pytest.importorskip("chromadb")
        Index.build(chunks(40), encoder=FakeEncoder(), path=tmp_path / "index", store="chroma").close()
        return tmp_path / "index"

    @staticmethod
    def database(path: Path) -> Path:
        (file,) = path.glob("generation-*/chroma-*/chroma.sqlite3")
        return file

    def test_readers_do_not_damage_it(self, path):
        """The table that each of them writes into needs another page after some hundred times."""
        import chromadb

        from revela_rag.index.stores.chroma_safety import settings

        size = self.database(path).stat().st_size
        for _ in range(8):
            chromadb.PersistentClient(str(self.database(path).parent), settings=settings()).close()
            with closing(sqlite3.connect(self.database(path))) as connection, connection:  # as many more would
                rows = connection.execute("SELECT COUNT(*) FROM acquire_write").fetchone()[0]
                assert rows > 1
                connection.executemany("INSERT INTO acquire_write (lock_status) VALUES (?)", [(1,)] * 100)
        assert self.database(path).stat().st_size > size
        assert not failed(path)
        with Index.open(path, encoder=FakeEncoder(), verify=True) as index:
            assert len(index.search("q", k=99)) == 40
            index.add(chunks(45))
        assert not failed(path)

    def test_what_readers_may_change_holds_nothing(self, path):
        file = self.database(path)
        entry = Manifest.read(path).files[file.relative_to(path / "generation-000001").as_posix()]
        assert sum(stop - start for start, stop in entry.changing) < 5000
        with Index.open(path, encoder=FakeEncoder()) as index:
            expected = numbers(index.search("q", k=99))
        places = random.Random(1).sample([place for span in entry.changing for place in range(*span)], 25)
        for number, place in enumerate(places):
            copied = Path(shutil.copytree(path, path.with_name(f"copy-{number}")))
            flip(self.database(copied), place)
            try:
                with Index.open(copied, encoder=FakeEncoder()) as index:
                    assert numbers(index.search("q", k=99)) == expected
            except IndexingError:
                assert failed(copied)

    def test_a_database_of_an_earlier_chroma_is_not_migrated_in_place(self, path, tmp_path):
        change(path / "manifest.json", files={}, sha256=None)  # it was like that when it was written
        with closing(sqlite3.connect(self.database(path))) as connection, connection:
            last = connection.execute("SELECT MAX(version) FROM migrations WHERE dir = 'metadb'").fetchone()
            connection.execute("DELETE FROM migrations WHERE dir = 'metadb' AND version = ?", last)
            connection.execute("DROP TABLE IF EXISTS embedding_metadata_array")
            tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
        with Index.open(path, encoder=FakeEncoder()) as index:
            assert len(index.search("q", k=99)) == 40
            with closing(sqlite3.connect(self.database(path))) as connection:
                assert connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == tables
            index.add(chunks(45))
        assert not failed(path)

    def test_an_index_without_hashes_of_it(self, path):
        """As earlier versions wrote them."""
        said = json.loads((path / "manifest.json").read_text())
        name = next(name for name in said["files"] if name.endswith("chroma.sqlite3"))
        said["files"][name] = {"size": None, "sha256": None}
        change(path / "manifest.json", files=said["files"], sha256=None)
        found = next(check for check in verify_index(path) if check.name == "files")
        assert found.status == "warning" and "no hash of chroma" in found.detail and not failed(path)
        data = self.database(path).read_bytes()
        self.database(path).write_bytes(data[:-1])
        with pytest.raises(IndexingError, match="cut off"):
            Index.open(path)
        self.database(path).write_bytes(data)
        with Index.open(path, encoder=FakeEncoder()) as index:
            index.add(chunks(41))
        assert next(check for check in verify_index(path) if check.name == "files").status == "ok"

    @pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
    def test_a_client_that_was_killed_while_it_wrote(self, path):
        """It leaves a journal, from which SQLite restores what was there."""
        file = self.database(path)
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.executescript("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE;")
            connection.execute("INSERT INTO acquire_write (lock_status) VALUES (1)")
            connection.executemany(
                "INSERT INTO acquire_write (lock_status) VALUES (?)", [(number,) for number in range(3000)]
            )
            left = {other.name: other.read_bytes() for other in file.parent.glob("chroma.sqlite3*")}
            connection.execute("ROLLBACK")
        assert len(left) == 2
        for name, data in left.items():
            file.with_name(name).write_bytes(data)
        with Index.open(path, encoder=FakeEncoder()) as index:
            assert len(index.search("q", k=99)) == 40
        assert not failed(path)
