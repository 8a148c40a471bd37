"""Whatever lies in a folder: a clear error or a counted skip, and never slow."""

import json
import os
import time
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest

from revela_rag.corpus import Document, chunk_document, load_corpus
from revela_rag.corpus.code.comments import clean_comment
from revela_rag.corpus.code.detect import detect_format
from revela_rag.corpus.formats.encodings import decode
from revela_rag.corpus.sources import folder as walk
from revela_rag.errors import CorpusError

GOOD = "A perfectly good sentence about retrieval.\n"


def load(folder, **options):
    return load_corpus(folder, deduplicate=False, **options)


def skipped(folder, **options):
    """Reasons for what is not read beside one good file."""
    (folder / "good.md").write_text(GOOD)
    corpus = load(folder, **options)
    assert "good.md" in {chunk.document_id for chunk in corpus}
    return {source: reason for reason, sources in corpus.report.skipped.items() for source in sources}


def test_missing_path_is_named(tmp_path):
    with pytest.raises(CorpusError, match="nowhere does not exist"):
        load_corpus(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"nowhere\.md does not exist"):
        load_corpus(str(tmp_path / "nowhere.md"))


def test_empty_folder(tmp_path):
    with pytest.raises(CorpusError, match="empty"):
        load_corpus(tmp_path)
    with pytest.raises(CorpusError, match="empty"):
        load_corpus([])


def test_only_binary_files(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "b.txt").write_bytes(b"\0\1\2\3" * 1000)
    with pytest.raises(CorpusError, match=r"unsupported type \.png.*a\.png") as error:
        load_corpus(tmp_path)
    assert "binary" in str(error.value)


def test_unsupported_single_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(CorpusError, match="unsupported type"):
        load_corpus(tmp_path / "a.png")


def test_invalid_utf8_is_replaced_when_rare_and_skipped_when_not(tmp_path):
    (tmp_path / "rare.txt").write_bytes(b"A long enough sentence with one bad byte \xff in the middle of it.")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfb\xc0abc" * 50)
    assert skipped(tmp_path) == {"bad.txt": "encoding that cannot be told; save it as UTF-8"}
    (chunk,) = load(tmp_path / "rare.txt")
    assert "byte \ufffd in" in chunk.text


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffhéllo wörld".encode(),
        "héllo wörld".encode("utf-16"),
        b"\xfe\xff" + "héllo wörld".encode("utf-16-be"),
        b"\xff\xfe\0\0" + "héllo wörld".encode("utf-32-le"),
        "héllo\0 wörld".encode() + b"",
    ],
    ids=["utf-8 bom", "utf-16 le", "utf-16 be", "utf-32", "nul"],
)
def test_byte_order_marks_and_nul(data):
    padding = b"" if data[:1] != b"h" else b" x" * 200
    assert decode(data + padding).startswith("héllo wörld")


def test_declared_encoding_is_believed():
    text = "# -*- coding: latin-1 -*-\n# Größe, Länge, Höhe\n"
    assert decode(text.encode("latin-1")) == text
    assert decode(b"# coding: nonsense-8\n" + b"ok " * 20 + b"\xff") is not None


@pytest.mark.parametrize(
    "text",
    [
        "Größe, Länge, Höhe",
        "Été comme à Noël, la «\xa0QUALITÉ\xa0» a été créée – l’œuvre achevée coûte près de 5\xa0€, dit le maître…\n"
        * 9
        + "\f\tréglé à L'Haÿ",
        "Übersicht der Maße ¯°¯\n§§§§§§§§\nein Café in der Nähe",
        "one café in a long English text " + "and so on " * 100,
    ],
)
def test_windows_text_keeps_its_accents(text):
    assert decode(text.encode("cp1252")) == text


@pytest.mark.parametrize(
    "data",
    [
        "Быстрая лиса прыгает".encode("cp1251"),
        ("def f(): pass  # быстрая\n" * 2).encode("cp1251"),
        "素早い茶色の狐".encode("shift-jis"),
        "敏捷的棕色狐狸跳过了懒狗".encode("gbk"),
        b"caf\xe9 " * 20 + b"\x1b",
        b"caf\xe9 " * 20 + b"\x81",
        b"caf\xe9 " * 200 + b"\0",
    ],
    ids=["cyrillic", "cyrillic comments", "japanese", "chinese", "control", "undefined", "nul"],
)
def test_what_is_not_windows_text_is_still_refused(data):
    assert decode(data) is None


def test_damaged_utf8_stays_utf8():
    text = "Größe, Länge und Höhe stehen im Blatt. " * 5
    assert decode(text.encode() + b"\xe9 caf\xe9") == text + "\ufffd caf\ufffd"


def test_line_ends_are_normalised():
    assert decode(b"a\r\nb\rc\n") == "a\nb\nc\n"


def test_lone_surrogates_never_reach_a_tokenizer():
    (chunk,) = load_corpus([json.loads('"broken \\ud800 emoji here"')])
    chunk.text.encode("utf-8")


def test_huge_line_is_skipped_by_size_at_once(tmp_path):
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(50_000_000)
    started = time.process_time()
    assert skipped(tmp_path) == {"huge.txt": "larger than 10,000,000 bytes"}
    assert time.process_time() - started < 2
    with pytest.raises(CorpusError, match="larger than"):
        load_corpus(tmp_path / "huge.txt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "size"),
    [("lorem ipsum dolor sit amet. ", 9_000_000), ("x", 9_000_000), ("汉字。", 1_000_000), ("`a.b? ", 3_000_000)],
)
def test_megabytes_on_one_line_are_read_in_linear_time(tmp_path, line, size):
    seconds = []
    for part in (size // 5, size):
        (tmp_path / "a.md").write_text(line * (part // len(line.encode())))
        started = time.process_time()
        corpus = load(tmp_path)
        seconds.append(time.process_time() - started)
    assert seconds[1] < 10 * seconds[0] + 1
    assert max(len(chunk.text.split()) for chunk in corpus) <= 120


def test_a_megabyte_on_one_line_is_quick_in_every_format(tmp_path):
    for name in ("a.txt", "b.md", "c.html", "d.rst", "e.sh"):
        (tmp_path / name).write_text("lorem ipsum dolor sit amet " * 8_000)
    started = time.process_time()
    chunks = load(tmp_path).chunks
    assert time.process_time() - started < 10
    assert {chunk.document_id for chunk in chunks} == {"a.txt", "b.md", "c.html", "d.rst"}  # e.sh is minified


RUNS = {
    "dots": ("md", "." * 20_000 + "x"),
    "dots in a log": ("log", "." * 20_000 + "x"),
    "marks": ("txt", "wow" + "!?" * 10_000 + "x"),
    "image in a reference": ("md", f"[image1]: <data:image/png;base64,{'A' * 20_000}>\nfigure"),
    "colons in a target": ("rst", f".. _{':' * 20_000}\ntail"),
    "spaces in a target": ("rst", f".. _a:\n{' ' * 20_000}x\ntail"),
    "unindented end of a directive": ("rst", ".. only:: html\n" + "   text\n" * 25 + "tail"),
    "spaces in a heading": ("md", f"# a{' ' * 20_000}b\n\ntext"),
    "underscores in a heading": ("md", f"# a{'_' * 20_000}b\n\ntext"),
    "colons in a heading": ("md", f"# a{':a' * 20_000}b\n\ntext"),
    "spaces in a role": ("md", f"# :a:`{' ' * 20_000}b\n\ntext"),
    "spaces in a title": ("md", f"---\ntitle: a{' ' * 60_000}b\n---\ntext"),
    "tags without an end": ("html", "<a " * 6_000),
    "tags without an end but with values": ("html", '<a b=">" ' * 4_000),
    "sections without an end": ("html", "<![CDATA[" * 60_000),
    "breaks": ("html", "<br>" * 20_000 + "</b>" * 20_000),
    "spaces in a block": ("html", f"<pre>{' ' * 100_000}x</pre>"),
    "blank lines": ("h", "\n" * 60_000 + "int a;"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_one_character_are_quick(tmp_path, name):
    ending, text = RUNS[name]
    (tmp_path / f"a.{ending}").write_text(text)
    (tmp_path / "good.md").write_text(GOOD)
    started = time.process_time()
    load(tmp_path)
    assert time.process_time() - started < 4


@pytest.mark.parametrize("text", ["{@link " * 12_000, ":a" * 30_000, " " * 40_000 + "y", "<p " * 40_000])
def test_runs_in_a_comment_are_quick(text):
    code = f"/** x {text} foo */\nclass A {{ int f() {{ return 1 + 1; }} }}\n"
    started = time.process_time()
    assert load([Document("a", code, format="java")])
    assert time.process_time() - started < 4


@pytest.mark.parametrize("text", ["@alice\n\n\n" * 25 + "x", "@a" + "\n" * 19_000 + "x"])
def test_mentions_are_no_decorators(text):
    started = time.process_time()
    assert detect_format(text) == "text"
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text",
    [
        "# Retry failed uploads three times,\n# because the server drops connections.\nretries: 3\nbackoff: slow\n",
        "#!/bin/sh\n# Rotate the access tokens of all accounts\nset -e\nrotate --all\n",
        "#\n# Licensed under the terms of the licence\n#\nproject(demo)\nadd_library(a)\n",
        "It says:\n# uname -a\nLinux box 6.1\nand stops\n",
    ],
)
def test_comments_of_other_languages_are_no_headings(text):
    assert detect_format(text) == "text"
    (piece,) = load([{"_id": "deploy", "text": text}]).chunks
    assert piece.text.split() == text.split()


@pytest.mark.parametrize(
    "text",
    ["# Title\ntext\nmore\n", "Some text\n\n## Install\n\nRun it.\n", "# A\n## B\ntext\nmore\n", "a\nb\nc\n\n# End"],
)
def test_headings_still_make_markdown(text):
    assert detect_format(text) == "markdown"


def test_a_name_with_a_dot_is_no_code_by_itself():
    prose = "The shop sells books in Poland.\nIt ships abroad, too."
    assert detect_format(prose, ("allegro.pl",)) == detect_format(prose, ("mail.php",)) == "text"
    assert detect_format("#!/usr/bin/perl\nuse strict;\nprint 1;\n", ("shop.pl",)) == "perl"
    assert detect_format("<?php\necho mail($to);\n", ("mail.php",)) == "php"


def test_text_under_the_name_of_a_page_is_not_read_as_html_again():
    text = "The <video> element plays.\n\nUse List<String> and std::hash<Key>."
    for name in ("docs/video.html", "https://example.org/video.html"):
        (piece,) = load([{"_id": name, "text": text}]).chunks
        assert piece.text == text
    (page,) = load([{"_id": "a.html", "text": "<p>The <b>video</b> plays.</p>"}]).chunks
    assert page.text == "The video plays."


def test_comments_without_an_end_leave_the_tags_of_a_short_page_alone():
    (chunk,) = chunk_document(Document("a", "<p>" + "<!-- note <b>word</b> " * 40, format="html"))
    assert chunk.text.count("word") == 40 and "</b>" not in chunk.text


def test_elements_without_an_end_are_read_with_and_without_a_slash():
    text = '<p>one<br>two<BR/>three<img alt="a > b" src=x> four<hr class=x>five</br>six<input value="<"> seven</p>'
    (chunk,) = chunk_document(Document("a", text, format="html"))
    assert chunk.text == "one\ntwo\nthree four\n\nfivesix seven"


def test_unreadable_file(tmp_path, monkeypatch):
    (tmp_path / "locked.md").write_text("secret")
    original = Path.read_bytes

    def read(self):
        if self.name == "locked.md":
            raise PermissionError(13, "Permission denied")
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert skipped(tmp_path) == {"locked.md": "unreadable (Permission denied)"}
    report = load(tmp_path).report
    assert report.unreadable == report.as_dict()["unreadable"] == {"locked.md": "Permission denied"}
    assert report.is_unreadable("locked.md") and not report.is_unreadable("good.md")


def test_what_the_system_cannot_read_does_not_count_as_gone(tmp_path, monkeypatch):
    for name in ("sub/a.md", "sub/deep/b.md", "subs/c.md", "odd.md", "link.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(GOOD)
    (tmp_path / "link.md").unlink()
    (tmp_path / "link.md").symlink_to("good.md")
    scan, kind, resolve = os.scandir, walk._kind, Path.resolve

    def broken_scan(path):
        if str(path).endswith("/sub"):
            raise OSError(5, "Input/output error")
        return scan(path)

    def broken_kind(entry, root):
        if entry.name == "odd.md":
            raise OSError(116, "Stale file handle")
        return kind(entry, root)

    def broken_resolve(path, strict=False):
        if path.name == "link.md":
            raise PermissionError(13, "Permission denied")
        return resolve(path, strict)

    monkeypatch.setattr(os, "scandir", broken_scan)
    monkeypatch.setattr(walk, "_kind", broken_kind)
    monkeypatch.setattr(Path, "resolve", broken_resolve)
    assert skipped(tmp_path) == {
        "link.md": "unreadable (Permission denied)",
        "odd.md": "unreadable (Stale file handle)",
        "sub": "unreadable folder (Input/output error)",
    }
    report = load(tmp_path).report
    assert list(report.unreadable) == ["link.md", "odd.md", "sub"]
    names = ("link.md", "odd.md", "sub", "sub/a.md", "sub/deep/b.md", "subs/c.md", "good.md", "b.md", "deep")
    assert [name for name in names if report.is_unreadable(name)] == list(names[:5])


def test_broken_jsonl_lines_are_counted_with_their_number(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "good text"}\n{"text": \n\n[1]\n{"other": 1}\n"just a string"\n{"text": "more text"}\n')
    corpus = load_corpus(path)
    assert len(corpus) == 2
    assert corpus.report.skipped["broken JSON line"] == ["d.jsonl:2"]
    assert sorted(chain.from_iterable(corpus.report.skipped.values())) == [f"d.jsonl:{n}" for n in (2, 4, 5, 6)]


def test_jsonl_without_a_single_good_line(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("{broken\nalso broken\n")
    with pytest.raises(CorpusError, match=r"None of the 2 lines.*d\.jsonl:1"):
        load_corpus(path)
    path.write_text("")
    with pytest.raises(CorpusError, match="empty"):
        load_corpus(path)


def test_deeply_nested_json_and_huge_records_are_skipped(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "fine text"}\n' + "[" * 100_000 + "\n" + json.dumps({"text": "x" * 2000}) + "\n")
    report = load_corpus(path, max_file_bytes=200_000).report
    assert report.skipped == {"broken JSON line": ["d.jsonl:2"]}
    report = load_corpus(path, max_file_bytes=1000).report
    assert report.skipped == {"record larger than 1,000 bytes": ["d.jsonl:2", "d.jsonl:3"]}


@pytest.mark.parametrize("limit", [1000, 3_000_000])
def test_a_huge_line_of_a_jsonl_file_is_never_in_memory(tmp_path, limit):
    path = tmp_path / "d.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "first text"}\n' + b" " * 2000 + b'{"text": "')
        file.seek(60_000_000)
        file.write(b'"}\n\n{broken\n{"text": "last text"}')
    tracemalloc.start()
    corpus = load_corpus(path, max_file_bytes=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    assert [chunk.document_id for chunk in corpus] == ["d.jsonl:1", "d.jsonl:5"]
    skipped = corpus.report.skipped
    assert skipped == {f"record larger than {limit:,} bytes": ["d.jsonl:2"], "broken JSON line": ["d.jsonl:4"]}


@pytest.mark.parametrize("spare", [0, 1])
def test_a_record_of_the_largest_size_is_read(tmp_path, spare):
    path, line = tmp_path / "d.jsonl", b'{"text": "some text"}\n'
    path.write_bytes(line * 3)
    assert len(load(path, max_file_bytes=len(line) + spare)) == 3
    with pytest.raises(CorpusError, match="None of the 3 lines"):
        load(path, max_file_bytes=len(line) - 1)


def test_broken_and_empty_files_are_skipped_with_their_reason(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    (tmp_path / "b.ipynb").write_text('{"cells": [{"cell_type": "code", "source": []}]}')
    (tmp_path / "c.ipynb").write_text('{"cells": 3}')
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4 nonsense")
    (tmp_path / "e.md").write_text(" \n\t\n")
    (tmp_path / "f.min.js").write_text("var a=1;" * 10_000)
    (tmp_path / "g.html").write_text("<html><script>var a = 1</script></html>")
    assert skipped(tmp_path) == {
        "a.ipynb": "broken notebook",
        "b.ipynb": "empty notebook",
        "c.ipynb": "broken notebook",
        "d.pdf": "broken PDF",
        "e.md": "empty file",
        "f.min.js": "minified or generated code",
        "g.html": "no text",
    }


ODD_SECTIONS = [
    "<p>kept</p><![foo[ bar",
    "<p>kept</p><![CDATA",
    "<![CDAT\n<p>kept</p>",
    "<p>kept</p><![",
    "<![ 1<p>kept</p>",
]


@pytest.mark.parametrize("text", ODD_SECTIONS)
def test_odd_marked_sections_of_html_are_text(tmp_path, text):
    from langchain_core.documents import Document as LangChainDocument

    (tmp_path / "odd.html").write_text(text)
    assert skipped(tmp_path) == {}
    for source in (tmp_path, [LangChainDocument(page_content=f"<html>{text}", metadata={})]):
        assert any("kept" in chunk.text for chunk in load(source))


@pytest.mark.parametrize("text", ["<p>kept &#{};</p>", "<p title='&#{};'>kept</p>"])
def test_character_references_of_many_digits_are_replaced(text):
    (chunk,) = chunk_document(Document("a", text.format("9" * 5000), format="html"))
    assert chunk.text.startswith("kept") and "9" not in chunk.text


def test_character_references_of_many_digits_in_comments_are_replaced():
    assert clean_comment(f"/** At most &#{'9' * 5000}; elements. */") == "At most \ufffd elements."


def test_html_that_no_parser_takes_is_skipped(tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no")

    monkeypatch.setattr("lxml.etree.fromstring", refuse)
    (tmp_path / "a.html").write_text("<p>text</p>")
    assert skipped(tmp_path) == {"a.html": "broken HTML"}


def test_encrypted_pdf_is_skipped(tmp_path):
    from pypdf import PdfWriter

    writer = PdfWriter()
    writer.add_blank_page(72, 72)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    assert skipped(tmp_path) == {"a.pdf": "encrypted PDF"}


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "x = " + "(" * 20_000 + ")" * 20_000),
        ("python", "".join("  " * n + f"if a{n}:\n" for n in range(300)) + "  " * 300 + "pass\n"),
        ("javascript", "f(" * 20_000 + ")" * 20_000),
        ("java", "class A { " * 3_000 + "}" * 3_000),
        ("cpp", "namespace a {\n" * 3_000 + "}\n" * 3_000),
        ("c", "{" * 20_000),
        ("rust", "mod a {\n" * 3_000 + "}\n" * 3_000),
    ],
)
def test_deep_nesting_does_not_exhaust_the_stack(language, source):
    assert chunk_document(Document("a", source, format=language))


def test_deeply_nested_html_does_not_exhaust_the_stack():
    text = "<div>" * 3_000 + "deep text in here" + "</div>" * 3_000
    (chunk,) = chunk_document(Document("a", text, format="html"))
    assert chunk.text == "deep text in here"


@pytest.mark.parametrize("option", [{"max_words": 3}, {"near_duplicate_threshold": 0}, {"max_file_bytes": 0}])
def test_numbers_out_of_range_are_named(option):
    name, value = next(iter(option.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        load_corpus(["some text"], **option)
