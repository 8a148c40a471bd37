"""No file takes more than its budget of time and memory, whatever its parser does with it."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revela_rag.corpus import Document, chunk_document, load_corpus
from revela_rag.corpus.formats import guard, worker
from revela_rag.corpus.formats.guard import guarded
from revela_rag.corpus.formats.readers import read_bytes
from revela_rag.corpus.formats.unreadable import Unreadable
from tests.corpus.test_prose import pdf_bytes

PAGES = {
    "less-than signs": "<" * 3_000_000,
    "tags": "<a " * 1_000_000,
    "tags with values": '<a b=">" ' * 500_000,
    "comments": "<!-- " * 600_000,
    "sections": "<![CDATA[" * 400_000,
    "breaks": "<br>" * 300_000 + "</b>" * 300_000,
    "nested blocks": "<div>" * 100_000 + "deep words",
    "nested words": "<b><i>" * 80_000 + "deep words",
    "nested tables": "<table><tr><td>" * 50_000 + "deep words",
    "nested forms": "<form><p>" * 50_000 + "words",
    "links in a heading": "<h1>" + "<a class=anchor>#</a>" * 100_000 + "deep words</h1>",
}


@pytest.fixture
def reader(monkeypatch):
    """A process of its own, so that what a test does to it is not felt by others."""
    made = guard._Reader()
    monkeypatch.setattr(guard, "_current", made)
    yield made
    made.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_made_parsers_quadratic_are_read(tmp_path, name):
    (tmp_path / "a.html").write_text(f"<body><p>These words are kept.</p>{PAGES[name]}")
    started = time.process_time()
    corpus = load_corpus(tmp_path)
    assert time.process_time() - started < 10
    text = " ".join(chunk.text for chunk in corpus)
    assert "These words are kept." in text and corpus.report.skipped == {}
    assert "deep words" not in PAGES[name] or "deep words" in text


def test_a_table_of_megabytes_is_read(tmp_path):
    rows = "".join(f"<tr><td>part {n}</td><td>shelf {n % 97}</td></tr>" for n in range(40_000))
    (tmp_path / "a.html").write_text(f"<table><tr><th>Part</th><th>Shelf</th></tr>{rows}</table>")
    chunks = load_corpus(tmp_path, deduplicate=False).chunks
    assert "| part 39999 | shelf 35 |" in chunks[-1].text
    assert all(chunk.text.startswith("| Part | Shelf |\n|---|---|\n| part") for chunk in chunks)


def test_what_exceeds_its_time_is_skipped_with_its_name_and_the_rest_is_read(tmp_path, reader, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.3)
    monkeypatch.setattr(guard, "SECONDS_PER_MB", 0)
    (tmp_path / "a.md").write_text("The first document of this folder.")
    (tmp_path / "b.pdf").write_bytes(pdf_bytes(*["some words of a page. " * 300] * 300))
    (tmp_path / "c.pdf").write_bytes(pdf_bytes("The last document of this folder."))
    corpus = load_corpus(tmp_path)
    assert [chunk.document_id for chunk in corpus] == ["a.md", "c.pdf"]
    assert corpus.report.skipped == {guard.OUT_OF_TIME: ["b.pdf"]}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no limit on memory")
def test_what_exceeds_its_memory_is_skipped(reader, monkeypatch):
    monkeypatch.setattr(guard, "MEMORY", 20_000_000)
    with pytest.raises(Unreadable, match="more than its memory"):
        guarded("html", b"<p>" + b"<b>words</b> " * 700_000)
    assert guarded("pdf", pdf_bytes("Read afterwards."))[0] == "Read afterwards."


def test_the_process_is_started_once_and_again_after_its_death(reader):
    data = pdf_bytes("The same words.")
    first = [guarded("pdf", data) for _ in range(3)]
    process = reader._process
    assert first == [["The same words.", "Annual report of the year", [], {}, []]] * 3 and reader._process is process
    process.kill()
    process.wait()
    assert guarded("pdf", data) == first[0] and reader._process.pid != process.pid


def test_reasons_travel(reader):
    with pytest.raises(Unreadable, match="broken PDF"):
        guarded("pdf", b"%PDF-1.4 nonsense")


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi", "/nowhere/python3"])
def test_without_a_process_files_are_read_here(reader, monkeypatch, caplog, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert guarded("pdf", pdf_bytes("Read right here."))[0] == "Read right here."
    assert guarded("html", b"<title>T</title><p>Read here, too.")["text"] == "Read here, too."
    assert caplog.text.count("No process for reading files") == 1
    monkeypatch.setattr(guard, "SECONDS", -1.0)
    with pytest.raises(Unreadable, match="more than its time"):
        guarded("pdf", pdf_bytes("One page.", "Two pages."))


@pytest.mark.parametrize("language", ["java", "c", "csharp"])
def test_code_that_ends_its_parser_is_cut_into_lines(language, reader):
    text = ("if (a) " * 8 + "\n") * 4000
    chunks = chunk_document(Document("a", text, format=language))
    assert " ".join(chunk.text for chunk in chunks).split() == text.split()


def test_large_code_is_cut_alike_in_either_process(monkeypatch):
    functions = (
        f'def work_{n}(a):\n    """Count the words of {n} texts."""\n    return a + {n}\n\n\n' for n in range(900)
    )
    document = Document("a.py", "".join(functions), "A title of it", "python")
    assert len(document.text) > 50_000
    elsewhere = chunk_document(document)
    monkeypatch.setattr("revela_rag.corpus.chunking._SMALL_CODE", 10**9)
    assert chunk_document(document) == elsewhere and len(elsewhere) == 900


def _read_in_a_daemon(answers):
    answers.put(read_bytes(pdf_bytes("Read by a daemon."), "a.pdf").text)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_of_every_kind_read(method, reader):
    guarded("pdf", pdf_bytes("The parent has a process already."))
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_read_in_a_daemon, args=(answers,), daemon=True)
    process.start()
    assert answers.get(timeout=120) == "Read by a daemon."
    process.join(60)
    assert process.exitcode == 0


def test_a_script_without_a_main_guard_reads(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf_bytes("Words of a page."))
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nfrom revela_rag.corpus import load_corpus\n"
        f"print(load_corpus({str(tmp_path / 'a.pdf')!r}).chunks[0].text)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "once\nWords of a page.\n", done.stderr


def test_what_ends_the_process_is_told_apart(reader, monkeypatch):
    guarded("pdf", pdf_bytes("Words."))
    with pytest.raises(Unreadable, match="the parser breaks down"):
        guarded("html", b"<p>words", no_such_option=1)
    monkeypatch.setattr(guard, "_PATIENCE", 0.0)
    with pytest.raises(Unreadable, match="more than its time"):
        guarded("pdf", pdf_bytes(*["some words of a page. " * 300] * 100))


def test_frames(tmp_path):
    with (tmp_path / "frames").open("w+b") as stream:
        worker.write_frame(stream, b"one")
        worker.write_frame(stream, json.dumps({"a": 1}).encode())
        stream.write(b"\0\0\0\0\0\0\0\x09cut")
        stream.seek(0)
        assert worker.read_frame(stream) == b"one" and worker.read_frame(stream) == b'{"a": 1}'
        with pytest.raises(EOFError):
            worker.read_frame(stream)
