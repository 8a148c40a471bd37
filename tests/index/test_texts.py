"""The texts of an index: what filters compare, what ids find, and indexes of earlier versions."""

import json
import sqlite3
import unicodedata
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import numpy as np
import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index, SyncReport

from .support import FakeEncoder, chunk, chunks, numbers


def spelled(**metadata):
    return [chunk(0, **metadata), chunk(1, name="other", names=["x"])]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (unicodedata.normalize("NFD", "Résumé.md"), "Résumé.md"),
        ("Résumé.md", unicodedata.normalize("NFD", "Résumé.md")),
        ("Straße", "STRASSE"),
        ("ＡＢＣ", "abc"),
        ("İstanbul", "istanbul"),
        ("istanbul", "İSTANBUL"),
        ("ﬁle", "FILE"),
    ],
)
def test_filters_find_what_reads_alike(path, encoder, store, stored, asked):
    given = [replace(each, document_id=each.metadata["name"]) for each in spelled(name=stored, names=["y", stored])]
    with Index.build(given, encoder=encoder, path=path, store=store) as index:
        for filter in ({"name": asked}, {"names": asked}, {"name": [asked, "z"]}, {"document_id": asked}):
            (hit,) = index.search("q", k=9, filter=filter)
            assert hit.chunk.metadata["name"] == hit.chunk.document_id == stored  # shown as it was written
        assert index.search("q", filter={"name": asked + "x"}) == []


def as_version_0(path):
    """Take an index back to what was written before there were origins and folded values."""
    manifest = json.loads((path / "manifest.json").read_text())
    with sqlite3.connect(path / manifest["generation"] / "texts.sqlite") as connection:
        connection.execute("ALTER TABLE chunks DROP COLUMN origin")
        for row, metadata in connection.execute("SELECT row, metadata FROM chunks").fetchall():
            connection.execute("DELETE FROM attributes WHERE row = ? AND key = 'name'", (row,))
            name = json.loads(metadata)["name"]
            connection.execute("INSERT INTO attributes VALUES ('name', 's', ?, ?)", (name, row))
        connection.execute("PRAGMA user_version = 0")
    connection.close()
    manifest["files"] = {}
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_an_index_of_an_earlier_version_is_read_and_brought_up_to_date_by_a_write(path, encoder):
    Index.build(spelled(name="Straße"), encoder=encoder, path=path).close()
    as_version_0(path)
    with Index.open(path, encoder=FakeEncoder()) as index:
        for _ in range(2):
            assert numbers(index.search("q", k=9, filter={"name": "STRASSE"})) == [0]
            assert numbers(index.search("q", k=9, filter={"name": "other"})) == [1]
            assert [found.origin for found in index.get([chunk(0).id])] == [{}]
            index.add([replace(chunk(2, name="new"), origin={"id": "mine"})])
        assert [found.origin for found in index.get(["mine"])] == [{"id": "mine"}]
        assert index.add(spelled(name="Straße")).unchanged == 2


def test_ids_that_were_given_find_and_delete(plain):
    named = [replace(each, origin={"id": f"own-{place % 2}"}) for place, each in enumerate(chunks(54, 50))]
    plain.add(named)
    assert numbers_of(plain.get(["own-1", chunk(3).id, "own-0", "own-9"])) == [51, 53, 3, 50, 52]
    assert plain.delete(["own-0"]) == 2
    assert plain.get(["own-0"]) == []
    changed = replace(named[1], origin={"id": "own-2"})
    assert plain.add([changed]).updated == 1
    assert numbers_of(plain.get(["own-2", "own-1"])) == [51, 53]


def test_odd_values_are_kept_where_json_can_hold_them(path, encoder, store, caplog):
    kept = {"price": Decimal("19.90"), "when": datetime(2024, 1, 2), "count": np.int64(3), "share": np.float32(0.5)}
    kept |= {"flag": np.bool_(True), "day": np.datetime64("2024-01-02"), "many": [1.5, 2.5], "few": np.array([1, 2])}
    lost = {"nan": float("nan"), "inf": float("-inf"), "none": Decimal("NaN"), "list": [1.0, float("nan")]}
    lost |= {"nat": np.datetime64("NaT"), "array": np.array([np.nan])}
    given = [chunk(0, **kept, **lost), chunk(1, nan=float("nan"))]
    with caplog.at_level("WARNING"), Index.build(given, encoder=encoder, path=path, store=store) as index:
        assert "'nan' of 2 chunks" in caplog.text and "'array' of 1 chunks" in caplog.text
        (hit,) = index.search("q", filter={"number": 0})
        found = dict(hit.chunk.metadata)
        assert found == {"number": 0, "language": "python", "even": True} | {
            "price": 19.9, "when": "2024-01-02T00:00:00", "count": 3, "share": 0.5, "flag": True, "day": "2024-01-02",
            "many": [1.5, 2.5], "few": [1, 2],
        }  # fmt: skip
        json.dumps(found, allow_nan=False)
        for name, value in kept.items():
            assert len(index.search("q", filter={name: value})) == 1, name
        assert index.sync(given) == SyncReport(unchanged=2)
    with pytest.raises(IndexingError, match="a bytes is no JSON"):
        Index.build([chunk(0, raw=b"x")], encoder=encoder, path=path.parent / "other")


def test_metadata_cannot_pose_as_an_id(plain):
    plain.add([chunk(50, **{"\0id": "own"})])
    assert plain.get(["own"]) == []


def numbers_of(found):
    return [each.metadata["number"] for each in found]
