"""Metadata of every source becomes plain values; what a document brought wins, what cannot be kept is counted."""

import json
import logging
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pytest

from revela_rag.corpus import Document, chunk_document, iter_documents, load_corpus
from revela_rag.corpus.metadata import MOST_VALUES, plain
from revela_rag.corpus.report import CorpusReport


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("text", "text"),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, 4, tzinfo=UTC), "2024-01-02T03:04:00+00:00"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=2), 120.0),
        (Decimal("19.90"), 19.9),
        (Decimal("20.00"), 20),
        (Decimal("12345678901234567890.12"), "12345678901234567890.12"),
        (Decimal("1E+5000"), "1E+5000"),
        (Decimal("NaN"), None),
        (Decimal("-Infinity"), None),
        (float("nan"), None),
        (float("-inf"), None),
        (np.float64("nan"), None),
        (np.float32("inf"), None),
        ([1.0, float("nan")], None),
        (np.datetime64("NaT"), None),
        (np.timedelta64("NaT"), None),
        (np.float64(0.5), 0.5),
        (np.str_("a"), "a"),
        (np.timedelta64(90, "s"), 90.0),
        (np.datetime64("2024-01-02T03:04"), "2024-01-02T03:04"),
        (PurePosixPath("a/b.md"), "a/b.md"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(["a", "b"]), ["a", "b"]),
        (["a", 1, None, date(2024, 1, 2)], ["a", 1, "2024-01-02"]),
        (("b", "a"), ["b", "a"]),
        ([], []),
        (["x"] * MOST_VALUES, ["x"] * MOST_VALUES),
        (["x"] * (MOST_VALUES + 1), None),
        (np.zeros(384), None),
        ([["nested"]], None),
        ([{"a": 1}], [{"a": 1}]),
        ({"a": {"b": (date(2024, 1, 2), None)}, "c": None}, {"a": {"b": ["2024-01-02"]}}),
        ({"a": {"b": b"bytes"}}, None),
        ({"a": [[1]]}, None),
        ({f"k{n}": {"v": n} for n in range(MOST_VALUES)}, {f"k{n}": {"v": n} for n in range(MOST_VALUES)}),
        ({f"k{n}": [n, n] for n in range(MOST_VALUES)}, None),
        (b"bytes", None),
        (np.datetime64("2024-01-02"), "2024-01-02"),
        (object(), None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_values(value, kept):
    made = plain(value)
    assert made == kept and type(made) is type(kept)
    assert json.loads(json.dumps(made)) == made


def test_objects_that_name_one_another_end():
    bomb = {"a": "x"}
    for _ in range(9):
        bomb = {f"k{n}": bomb for n in range(50)}
    assert plain(bomb) is None
    deep = {}
    deep["deep"] = deep
    assert plain(deep) is None


def test_sets_have_one_order_in_every_process():
    code = "from revela_rag.corpus.metadata import plain; print(plain({'b', 'a', 'd', 'c'}))"
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert run[0].stdout == run[1].stdout == "['a', 'b', 'c', 'd']\n"


def test_what_a_document_brought_wins_over_what_is_computed():
    own = {"source": "erp", "language": "en", "start_line": 99, "symbol": "x"}
    (chunk,) = chunk_document(Document("f.py", "def f(x):\n    return x + 1\n", format="python", metadata=own))
    assert chunk.metadata == own | {"end_line": 2} and chunk.kind == "code"


def test_what_cannot_be_kept_is_one_counted_warning(tmp_path, caplog):
    deep = {"n": [[0]]}
    lines = [{"text": f"Text number {n} of its own.", "tags": ["a"], "deep": deep, "none": None} for n in range(3)]
    lines[0]["rows"] = [[1]]
    lines[1]["metadata"] = ["not a mapping of names", [1]]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus(tmp_path / "d.jsonl")
    assert [chunk.metadata["tags"] for chunk in corpus] == [["a"]] * 3
    assert not any({"deep", "rows", "none", "metadata"} & chunk.metadata.keys() for chunk in corpus)
    assert corpus.report.left_out == corpus.report.as_dict()["left_out"] == {"deep": 3, "rows": 1, "metadata": 1}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("Metadata left out: 'deep' of 3 documents, 'metadata' of 1 documents, 'rows' of 1")
    caplog.clear()
    load_corpus([Document("a", "Some text.", metadata={"n": 1})])
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_many_keys_that_cannot_be_kept_are_named_in_part():
    report = CorpusReport(left_out={f"key{n}": n for n in range(1, 13)})
    assert report.left_out_summary().startswith("'key12' of 12 documents, ")
    assert report.left_out_summary().endswith("'key3' of 3 documents, and 2 more")


def test_own_documents_are_read_like_those_of_others():
    report = CorpusReport()
    given = Document("a", "Some text.", metadata={"when": date(2024, 1, 2), "raw": b"x", "n": 1})
    (document,) = iter_documents([given], report=report)
    assert document.metadata == {"when": "2024-01-02", "n": 1} and report.left_out == {"raw": 1}


def test_columns_of_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "text": ["Some text."],
        "tags": [["a", "b"]],
        "day": [date(2024, 1, 2)],
        "price": [Decimal("19.90")],
        "zoned": arrow.array([datetime(2024, 1, 2, tzinfo=UTC)], arrow.timestamp("ms", tz="UTC")),
        "nanoseconds": arrow.array([1_700_000_000_123_456_789], arrow.timestamp("ns")),
        "embedding": [[0.5] * 384],
        "struct": [{"a": 1}],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "d.parquet")
    report = CorpusReport()
    (document,) = iter_documents(tmp_path / "d.parquet", report=report)
    assert document.metadata == {
        "tags": ["a", "b"],
        "day": "2024-01-02",
        "price": 19.9,
        "zoned": "2024-01-02T00:00:00+00:00",
        "nanoseconds": "2023-11-14T22:13:20.123456",
        "struct": {"a": 1},
    }
    assert report.left_out == {"embedding": 1}
