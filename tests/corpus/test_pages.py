"""PDFs and notebooks: the page or cell where a text stands, and what cannot be read of a page is told."""

import io
import json

from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, NumberObject

from revela_rag.corpus import load_corpus
from revela_rag.corpus.formats.documents.pdf import INTERLEAVED, SCANNED, read_pdf
from revela_rag.corpus.place import place_in_file

LEFT = [f"left words number {n} go on" for n in range(10)]
RIGHT = [f"other words number {n} go on" for n in range(10)]


def pdf(*pages, bookmarks=()):
    """Pages of (x, y, text), or None for one that is a picture; bookmarks as (name, page, level)."""
    writer = PdfWriter()
    names = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in names.items()})
    for texts in pages:
        page = writer.add_blank_page(600, 800)
        stream = DecodedStreamObject()
        if texts is None:
            picture = DecodedStreamObject()
            picture.set_data(b"\xff")
            picture.update({NameObject("/Type"): NameObject("/XObject"), NameObject("/Subtype"): NameObject("/Image")})
            for key in ("/Width", "/Height"):
                picture[NameObject(key)] = NumberObject(1)
            inside = DictionaryObject({NameObject("/P1"): writer._add_object(picture)})
            page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): inside})
            stream.set_data(b"/P1 Do")
        else:
            fonts = DictionaryObject({NameObject("/F1"): font})
            page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
            said = "\n".join(f"BT /F1 10 Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET" for x, y, text in texts)
            stream.set_data(said.encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    above = {}
    for name, number, level in bookmarks:
        above[level] = writer.add_outline_item(name, number, parent=above.get(level - 1))
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_bookmarks_are_headings(tmp_path):
    data = pdf(
        [(50, 700, "A word before."), (50, 650, "1.2  Safety  first"), (50, 600, "Wear gloves.")],
        [(50, 700, "Torque is 9 Nm."), (50, 650, "# 5 is no heading.")],
        bookmarks=[("Safety first", 0, 1), ("Bolts", 1, 2), ("Nowhere", 1, 1)],
    )
    (tmp_path / "manual.pdf").write_bytes(data)
    chunks = load_corpus(tmp_path).chunks
    assert [(chunk.title, place_in_file(chunk), chunk.text) for chunk in chunks] == [
        ("", "p. 1", "A word before."),
        ("Safety first", "p. 1", "Wear gloves."),
        ("Nowhere", "p. 2", "Torque is 9 Nm.\n# 5 is no heading."),
    ]
    assert all("start_line" not in chunk.metadata for chunk in chunks)


def test_a_picture_of_a_page_is_told(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf([(50, 700, "Words of the first page.")], None, [], [(50, 700, "The last.")]))
    corpus = load_corpus(tmp_path)
    assert corpus.report.notes == {SCANNED: ["a.pdf p. 2"]} == corpus.report.as_dict()["notes"]
    assert [chunk.metadata["page"] for chunk in corpus] == [1]
    assert corpus.report.summary() == (
        "1 chunks from 1 documents; not read in full or in order: 1 × page that is a picture without text "
        "(e.g. a.pdf p. 2)"
    )


def test_columns_that_are_read_across_are_told():
    rows = [(x, 700 - 12 * n, text[n]) for n in range(10) for x, text in ((50, LEFT), (320, RIGHT))]
    assert read_pdf(pdf([(50, 700, "Words.")], rows)).notes == [(INTERLEAVED, "p. 2")]


def test_columns_one_after_the_other_and_tables_are_in_order():
    columns = [(x, 700 - 12 * n, text[n]) for x, text in ((50, LEFT), (320, RIGHT)) for n in range(10)]
    found = read_pdf(pdf(columns))
    assert found.notes == [] and found.text.index(LEFT[9]) < found.text.index(RIGHT[0])
    table = [(x, 700 - 12 * n, text) for n in range(10) for x, text in ((50, f"Bolt of size {n}"), (320, f"{n} Nm"))]
    assert read_pdf(pdf(table)).notes == []


def notebook(*cells):
    made = [{"cell_type": kind, "metadata": {}, "source": source} for kind, source in cells]
    return json.dumps({"cells": made, "metadata": {"kernelspec": {"language": "python"}}, "nbformat": 4})


def test_a_cell_with_a_fence_ends_where_it_ends(tmp_path):
    cells = [
        ("markdown", "# Help\n\nSome words."),
        ("code", "text = '''\n```\n# no heading\n```\n````\n'''"),
        ("raw", "raw"),
        ("markdown", "# Open\n\n~~~\nnever closed"),
        ("markdown", "# Next\n\nMore words."),
    ]
    (tmp_path / "a.ipynb").write_text(notebook(*cells))
    chunks = load_corpus(tmp_path).chunks
    assert [(chunk.title, place_in_file(chunk), chunk.text) for chunk in chunks] == [
        ("Help", "cell 1", "Some words.\n\n`````python\ntext = '''\n```\n# no heading\n```\n````\n'''\n`````"),
        ("Open", "cell 4", "~~~\nnever closed\n~~~"),
        ("Next", "cell 5", "More words."),
    ]
    assert all("start_line" not in chunk.metadata for chunk in chunks)
