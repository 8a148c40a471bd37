from __future__ import annotations

from pathlib import Path

import pytest

from revela_rag.errors import CorpusError
from revela_rag.evaluation import load_beir

from .conftest import write_beir

HEADER = "query-id\tcorpus-id\tscore\n"


def test_reads_the_three_files(beir: Path) -> None:
    data = load_beir(beir)
    assert data.name == "tiny/test"
    assert data.corpus["d1"] == ("apples", "red apples grow on trees")
    assert data.corpus["d2"][0] == ""
    assert data.queries["q3"] == "what owls hunt"
    assert data.qrels == {"q1": {"d1": 1}, "q2": {"d2": 2}, "q3": {"d4": 1}}
    assert (data.unknown_documents, data.unknown_queries) == (0, 0)


@pytest.mark.parametrize(
    "content",
    [
        "q1\td1\t1\nq2\td2\t2\n",
        HEADER + "q1\td1\t1\nq2\td2\t2\n",
        "q1\t0\td1\t1\nq2\t0\td2\t2\n",
        "q1 0 d1 1\nq2 0 d2 2\n",
        "q1\td1\t1\r\n\r\nq2\td2\t2\r\n",
        "q1\td1\t1.0\nq2\td2\t2",
    ],
    ids=["no header", "header", "trec", "trec with spaces", "windows and blank lines", "floats"],
)
def test_qrels_variants(tmp_path: Path, content: str) -> None:
    data = load_beir(write_beir(tmp_path / "x", splits={"dev": content}))
    assert data.qrels == {"q1": {"d1": 1}, "q2": {"d2": 2}}
    assert list(data.queries) == ["q1", "q2"], "queries outside the split are left out"


def test_pairs_judged_twice_and_differently_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twice = "q1\td1\t1\nq1\td2\t1\nq1\td1\t1\nq2\td2\t2\nq2\td2\t0\n"
    data = load_beir(write_beir(tmp_path / "x", splits={"dev": twice}))
    assert data.qrels == {"q1": {"d1": 1, "d2": 1}, "q2": {"d2": 0}} and data.conflicts == 1
    said = (
        "judges 1 pairs more than once and differently, query 'q2' and document 'd2' with 2 and 0 for one: the last one"
    )
    assert said in caplog.text
    caplog.clear()
    assert load_beir(write_beir(tmp_path / "y", splits={"dev": "q1\td1\t1\nq1\td1\t1\n"})).conflicts == 0
    assert not caplog.text


def test_the_header_says_which_column_is_which(beir: Path) -> None:
    file = next((beir / "qrels").iterdir())
    expected = load_beir(beir).qrels
    rows = [line.split("\t") for line in file.read_text().splitlines()[1:]]
    swapped = ["corpus_id\tscore\tquery-id", *(f"{row[1]}\t{row[-1]}\t{row[0]}" for row in rows)]
    file.write_text("\n".join(swapped))
    assert load_beir(beir).qrels == expected


def test_split_is_taken_or_asked_for(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "x", splits={"dev": "q1\td1\t1\n", "test": "q2\td2\t1\n"})
    assert list(load_beir(folder).qrels) == ["q2"]
    with pytest.raises(CorpusError, match="no split 'train', choose one of: dev, test"):
        load_beir(folder, split="train")
    assert list(load_beir(folder, split="dev").qrels) == ["q1"]
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "eval.tsv")
    with pytest.raises(CorpusError, match="several splits, choose one of: dev, eval"):
        load_beir(folder)


@pytest.mark.parametrize("record", ['"title": NaN, "text": "words"', '"title": null, "text": "words"', '"text": NaN'])
def test_what_a_table_left_out_is_empty(beir: Path, record: str) -> None:
    with (beir / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"_id": "d9", {record}}}\n')
    assert load_beir(beir).corpus["d9"] == ("", "words" if "words" in record else "")


def test_a_title_alone_is_a_document(beir: Path) -> None:
    with (beir / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "d9", "title": "Only this"}\n')
    assert load_beir(beir).corpus["d9"] == ("Only this", "")


def test_unknown_ids_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "q1\td1\t1\nq1\tgone\t1\nq2\tgone\t1\nnobody\td1\t1\nnobody\td2\t1\n"
    data = load_beir(write_beir(tmp_path / "x", splits={"test": content}))
    assert data.qrels == {"q1": {"d1": 1}}
    assert (data.unknown_documents, data.unknown_queries) == (2, 2)
    assert "2 judgements of unknown queries and 2 of unknown documents" in caplog.text


def test_nothing_known_is_an_error(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "x", splits={"test": HEADER + "Q1\tD1\t1\n"})
    with pytest.raises(CorpusError, match="no judgement of a known query"):
        load_beir(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_missing_file_is_named(beir: Path, name: str) -> None:
    (beir / name).unlink()
    with pytest.raises(CorpusError, match=name):
        load_beir(beir)


def test_missing_directory_and_qrels(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere is not a directory"):
        load_beir(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"holds no \.tsv"):
        load_beir(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is a list"),
        ('{"text": "no id"}', "line 2 has no usable _id"),
        ('{"_id": "", "text": "x"}', "line 2 has no usable _id"),
        ('{"_id": "d9"}', "line 2: 'text' must be a string"),
        ('{"_id": "d9", "text": ["x"]}', "line 2: 'text' must be a string"),
        ('{"_id": "d9", "text": "x", "title": 3}', "line 2: 'title' must be a string"),
    ],
)
def test_malformed_corpus_names_the_line(beir: Path, line: str, message: str) -> None:
    (beir / "corpus.jsonl").write_text('{"_id": "d1", "text": "x"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        load_beir(beir)


def test_repeated_ids_are_an_error(beir: Path) -> None:
    (beir / "corpus.jsonl").write_text('{"_id": "d1", "text": "x"}\n' * 2, encoding="utf-8")
    with pytest.raises(CorpusError, match="line 2 repeats the _id 'd1'"):
        load_beir(beir)


@pytest.mark.parametrize("line", ["q1\td1", "q1 d1", "q1\td1\tmuch", "q1\td1\t1\t1\t1", "q1\td1\tnan", "q1\td1\t0.5"])
def test_malformed_qrels_name_the_line(tmp_path: Path, line: str) -> None:
    folder = write_beir(tmp_path / "x", splits={"test": f"{HEADER}q1\td1\t1\n{line}\n"})
    with pytest.raises(CorpusError, match="line 3"):
        load_beir(folder)


def test_invalid_utf8_is_an_error(beir: Path) -> None:
    (beir / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "caf\xe9"}\n')
    with pytest.raises(CorpusError, match="not UTF-8"):
        load_beir(beir)


def test_numeric_ids_become_strings_and_a_byte_order_mark_is_skipped(beir: Path) -> None:
    (beir / "queries.jsonl").write_bytes(b'\xef\xbb\xbf{"_id": 7, "text": "boats"}\n')
    (beir / "qrels" / "test.tsv").write_text("7\td2\t1\n", encoding="utf-8")
    assert load_beir(beir).qrels == {"7": {"d2": 1}}


def test_limited_keeps_the_corpus(beir: Path) -> None:
    data = load_beir(beir).limited(2)
    assert list(data.queries) == list(data.qrels) == ["q1", "q2"]
    assert len(data.corpus) == 4
