"""Files of an attacker are checked before FAISS or SQLite parses them."""

import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from index.support import DIMENSION, FakeEncoder, chunks

from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.stores.segments import read_faiss

from .support import change

OTHER_KINDS = ["Flat", "IDMap2,Flat", "PQ4x4", "SQ8", "IDMap,SQ6", "IDMap,HNSW8,SQ8", "IVF4,Flat", "IVF4,PQ4x4"]
OTHER_KINDS += ["PCA8,Flat", "IDMap,NSG8", "IVF4,SQ4"]


@pytest.fixture(scope="module")
def vectors():
    found = np.random.default_rng(0).normal(size=(700, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def written(path: Path, spec: str, vectors, metric=faiss.METRIC_INNER_PRODUCT) -> Path:
    index = faiss.index_factory(vectors.shape[1], spec, metric)
    index.train(vectors)
    if spec.startswith(("ID", "IVF")):
        index.add_with_ids(vectors, np.arange(len(vectors)))
    else:
        index.add(vectors)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("spec", ["IDMap,Flat", "IDMap,HNSW32,Flat", "IVF20,SQ8"])
@pytest.mark.parametrize("count", [700, 2, 1])
def test_the_kinds_of_an_index_are_read(tmp_path, vectors, spec, count):
    if spec == "IVF20,SQ8":
        index = faiss.index_factory(DIMENSION, spec, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add_with_ids(vectors[:count], np.arange(count))  # few vectors: lists are written in another form
        faiss.write_index(index, str(tmp_path / "file"))
    else:
        written(tmp_path / "file", spec, vectors[:count])
    assert read_faiss(tmp_path / "file", DIMENSION).ntotal == count


@pytest.mark.parametrize("spec", OTHER_KINDS)
def test_no_other_kind_reaches_faiss(tmp_path, vectors, spec, monkeypatch):
    file = written(tmp_path / "file", spec, vectors)
    monkeypatch.setattr(faiss, "read_index", lambda *args: pytest.fail("FAISS was asked"))
    with pytest.raises(IndexingError, match="missing or damaged"):
        read_faiss(file, DIMENSION)


@pytest.mark.parametrize("dimension", [DIMENSION - 1, DIMENSION + 1, 2])
def test_vectors_of_another_length_or_metric(tmp_path, vectors, dimension):
    with pytest.raises(IndexingError, match="of length"):
        read_faiss(written(tmp_path / "file", "IDMap,Flat", vectors), dimension)
    with pytest.raises(IndexingError, match="of another metric"):
        read_faiss(written(tmp_path / "file", "IDMap,Flat", vectors, faiss.METRIC_L2), DIMENSION)


def test_rows_are_of_a_text_store(tmp_path, vectors):
    index = faiss.index_factory(DIMENSION, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(vectors[:3], np.array([1, -7, 2**60]))
    faiss.write_index(index, str(tmp_path / "file"))
    with pytest.raises(IndexingError, match="a row is out of range"):
        read_faiss(tmp_path / "file", DIMENSION)


SEARCH = """
    import random, shutil, sys
    from pathlib import Path
    import numpy as np
    from index.support import DIMENSION
    from revela_rag.errors import IndexingError
    from revela_rag.index.stores.faiss_store import FaissStore
    source, folder, kind, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    drawn, queries, refused, read = random.Random(seed), np.eye(DIMENSION, dtype=np.float32)[:4], 0, 0
    names = ["vectors-000001.faiss", "approximate.faiss"]
    files = [file for name in names if (file := folder / name).exists()]
    for round in range(250):
        file = files[round % len(files)]
        data = bytearray((source / file.name).read_bytes())
        for _ in range(drawn.choice([1, 1, 2, 5])):
            place = drawn.choice([drawn.randrange(min(len(data), 700)), drawn.randrange(len(data))]) & ~3
            value = drawn.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**24, drawn.randrange(2**32)])
            data[place : place + 4] = value.to_bytes(4, "little")
        file.write_bytes(data[: drawn.choice([len(data)] * 3 + [drawn.randrange(len(data))])])
        try:
            store = FaissStore.open(folder, dimension=DIMENSION, count=700, kind=kind)
            store.search(queries, 5)
            store.search(queries, 5, np.arange(0, 700, 3))
            read += 1
        except (IndexingError, MemoryError):
            refused += 1
        shutil.copyfile(source / file.name, file)
    print(refused, read)
"""


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-sq8", "rabitq", "int4"])
def test_damaged_files_end_no_process(tmp_path, vectors, kind, monkeypatch):
    """In a process of its own: a wild pointer would end it."""
    for module in ("approximate", "faiss_store"):
        monkeypatch.setattr(f"revela_rag.index.stores.{module}.LEAST", 100)
    from revela_rag.index.stores.faiss_store import FaissStore

    source = tmp_path / "source"
    source.mkdir()
    store = FaissStore.create(source, dimension=DIMENSION, kind=kind)
    store.add(np.arange(700), vectors)
    store.save()
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
    code = head + textwrap.dedent(SEARCH)
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(folder), kind, "3"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr[-2000:]}"
    refused, read = map(int, done.stdout.split())
    assert refused > 50 and read > 20


HOSTILE_SQL = [
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN SELECT 1; END",
    "ALTER TABLE {table} RENAME TO hidden; CREATE VIEW {table} AS SELECT * FROM hidden",
]
OURS_TOO = [
    "CREATE TABLE extra (a)",
    "CREATE INDEX extra ON chunks (length(text))",
    "ALTER TABLE chunks ADD COLUMN more AS (length(text))",
    "CREATE VIRTUAL TABLE extra USING fts5(a)",
    "DROP INDEX attributes_row; CREATE INDEX attributes_row ON attributes (row) WHERE row > 5",
    "ALTER TABLE chunks RENAME TO x; CREATE TABLE chunks (row, id, text, title, document_id, position, kind, parts, "
    "metadata, origin)",
]


@pytest.mark.parametrize("sql", [*HOSTILE_SQL, *OURS_TOO])
def test_texts_have_the_schema_that_was_written(tmp_path, sql):
    Index.build(chunks(9), encoder=FakeEncoder(), path=tmp_path / "index").close()
    change(tmp_path / "index" / "manifest.json", files={}, sha256=None)
    (file,) = tmp_path.glob("index/generation-*/texts.sqlite")
    with closing(sqlite3.connect(file)) as database:
        database.executescript(sql.format(table="chunks"))
    with pytest.raises(IndexingError, match=r"texts\.sqlite.*its schema has the"):
        Index.open(tmp_path / "index", encoder=FakeEncoder())


@pytest.mark.parametrize("sql", HOSTILE_SQL)
def test_chromas_database_has_no_view_or_trigger(tmp_path, sql):
    pytest.importorskip("chromadb")
    Index.build(chunks(9), encoder=FakeEncoder(), path=tmp_path / "index", store="chroma").close()
    change(tmp_path / "index" / "manifest.json", files={}, sha256=None)
    (file,) = tmp_path.glob("index/generation-*/chroma-*/chroma.sqlite3")
    with closing(sqlite3.connect(file)) as database:
        database.executescript(sql.format(table="embeddings"))
    with pytest.raises(IndexingError, match=r"chroma\.sqlite3' has the (view|trigger)"):
        Index.open(tmp_path / "index", encoder=FakeEncoder())


@pytest.mark.parametrize("value", ["[" * 100_000, "{", "3", '[["a"]]', '{"a": 1}', ""])
@pytest.mark.parametrize("column", ["parts", "metadata", "origin"])
def test_a_text_that_cannot_be_read_is_an_error_of_ours(tmp_path, column, value):
    Index.build(chunks(9), encoder=FakeEncoder(), path=tmp_path / "index").close()
    change(tmp_path / "index" / "manifest.json", files={}, sha256=None)
    (file,) = tmp_path.glob("index/generation-*/texts.sqlite")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"UPDATE chunks SET {column} = ?", (value,))
    sound = column != "parts" and value == '{"a": 1}'
    with Index.open(tmp_path / "index", encoder=FakeEncoder()) as index:
        try:
            assert index.search("text") and sound
        except IndexingError as error:
            assert not sound and "damaged" in str(error)


def test_damaged_databases_end_no_process(tmp_path):
    """SQLite's own checks, on the pages that a search reads."""
    Index.build(chunks(60), encoder=FakeEncoder(), path=tmp_path / "index").close()
    change(tmp_path / "index" / "manifest.json", files={}, sha256=None)
    (file,) = tmp_path.glob("index/generation-*/texts.sqlite")
    whole, drawn = file.read_bytes(), random.Random(5)
    refused = 0
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(3):
            place = drawn.randrange(len(data))
            data[place : place + 4] = drawn.randbytes(4)
        file.write_bytes(data)
        try:
            with Index.open(tmp_path / "index", encoder=FakeEncoder()) as index:
                index.search("text", k=60, filter={"even": True}, mode="hybrid")
        except IndexingError:
            refused += 1
    assert refused > 10
