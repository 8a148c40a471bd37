"""Prose becomes chunks of whole sentences below their headings."""

import io
import json

import pytest

from revela_rag.corpus import Document, chunk_document, structural_pairs
from revela_rag.corpus.formats.documents.pdf import read_pdf
from revela_rag.corpus.formats.readers import read_bytes
from revela_rag.corpus.prose.sentences import sentence_spans


def chunks_of(text, format="markdown", title="", **options):
    return chunk_document(Document("doc", text, title, format), **options)


def roles(chunk):
    return {part.role: part.text for part in chunk.parts}


def sentences(text):
    return [text[a:b] for a, b in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One here. Two here! Three? Four", 4),
        ("See e.g. this one, i.e. that. Dr. Smith, Fig. 3 and J. Doe agree. Done.", 3),
        ("Version 3.11 of a.b.c is out. Really.", 2),
        ('He said "no." Then left.', 2),
        ("we wait... then go on. Fine.", 2),
        ("第一句。第二句！第三句", 3),
        ("Steps:\n- one\n- two\n1. three", 4),
        ("", 0),
        (" \n ", 0),
        (". . .", 3),
    ],
)
def test_sentences(text, count):
    assert len(sentences(text)) == count
    assert "".join("".join(sentences(text)).split()) == "".join(text.split()), "nothing is lost"


def test_chunks_hold_whole_sentences_up_to_the_limit():
    text = " ".join(f"This is sentence number {n} of a long text." for n in range(100))
    chunks = chunks_of(text, "text", max_words=50)
    assert len(chunks) > 10
    assert all(chunk.text.endswith(".") and chunk.text.startswith("This is") for chunk in chunks)
    assert all(len(chunk.text.split()) <= 50 for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks) == text


def test_a_sentence_beyond_the_limit_is_cut_between_words():
    text = " ".join(f"word{n}" for n in range(1000))
    chunks = chunks_of(text, "text")
    assert [len(chunk.text.split()) for chunk in chunks[:-1]] == [120] * 8
    assert " ".join(chunk.text for chunk in chunks) == text


def test_paragraphs_are_kept_whole_where_they_fit():
    paragraphs = [" ".join([f"p{n}"] * 30) + "." for n in range(10)]
    chunks = chunks_of("\n\n".join(paragraphs), "text", max_words=100)
    assert [chunk.text for chunk in chunks] == [
        "\n\n".join(paragraphs[at : at + 3]) for at in range(0, 10, 3)
    ]  # fmt: skip


def test_text_without_spaces_is_still_bounded():
    chunks = chunks_of("汉字" * 2000, "text")
    assert len(chunks) > 8 and "".join(chunk.text for chunk in chunks) == "汉字" * 2000


MARKDOWN = """---
title: The Guide
---
Before any heading.

# Using the tool #

Intro words.

## How do I [install](x) `it`?

Run the installer and wait for it.

```sh
# not a heading

run
```

Setext heading here
-------------------

<!-- hidden -->

Text below the setext heading.

## Introduction

Says nothing in its heading.
"""


def test_markdown_sections_titles_and_lines():
    chunks = chunks_of(MARKDOWN)
    titles = [chunk.title for chunk in chunks]
    assert titles == [
        "The Guide",
        "The Guide > Using the tool",
        "The Guide > Using the tool > How do I install it?",
        "The Guide > Using the tool > Setext heading here",
        "The Guide > Using the tool > Introduction",
    ]
    assert chunks[2].text == "Run the installer and wait for it.\n\n```sh\n# not a heading\n\nrun\n```"
    assert chunks[3].text == "Text below the setext heading."
    assert (chunks[2].metadata["start_line"], chunks[2].metadata["end_line"]) == (12, 18)
    assert chunks[2].metadata["source"] == "doc" and chunks[2].kind == "prose"


def test_heading_and_section_question_and_answer():
    chunks = chunks_of(MARKDOWN)
    assert roles(chunks[2]) == {"question": "How do I install it?", "answer": chunks[2].text}
    assert roles(chunks[3]) == {"heading": "Setext heading here", "section": chunks[3].text}
    assert chunks[4].parts == (), "a heading that says nothing is no query"


def test_short_headings_borrow_from_the_ones_above():
    (chunk,) = chunks_of("# Installing the tool\n\n## Windows\n\nDouble click on the downloaded file.")
    assert roles(chunk)["heading"] == "Installing the tool: Windows"
    (chunk,) = chunks_of("# Installing the tool\n\n## Overview\n\n### Windows\n\nDouble click on the file.")
    assert roles(chunk)["heading"] == "Installing the tool: Windows"


def test_only_the_first_chunk_of_a_section_answers_its_heading():
    text = "# Some long section heading\n\n" + "This is a sentence with words. " * 60
    chunks = chunks_of(text)
    assert [next(iter(roles(chunk))) for chunk in chunks] == ["heading", "first_half", "first_half"]


def test_titled_documents():
    (chunk,) = chunks_of("It counts the words of a text.", "text", title="A tool that counts")
    assert chunk.title == "A tool that counts"
    assert roles(chunk) == {"title": "A tool that counts", "text": "It counts the words of a text."}
    (chunk,) = chunks_of("It counts the words of a text.", "text", title="org.tools.Counter")
    assert chunk.title == "org.tools.Counter" and chunk.parts == ()
    (chunk,) = chunks_of("It counts the words of a text.", "text", title="org.tools.Counter.countAllWords")
    assert roles(chunk) == {"title": "Counter count all words", "text": "It counts the words of a text."}
    (chunk,) = chunks_of("It counts the words of a text.", "text", title="docs/countAllWords.md")
    assert chunk.parts == ()
    (chunk,) = chunks_of("", "text", title="Only a title here")
    assert chunk.text == "Only a title here"


def test_leading_question():
    (chunk,) = chunks_of(
        "How old is the universe? It is about fourteen billion years old by most measurements.", "text"
    )
    assert roles(chunk)["question"] == "How old is the universe?"
    assert roles(chunk)["answer"].startswith("It is about")
    (chunk,) = chunks_of(
        "Returns (a == 0 ? 1 : 2) for it? It is about fourteen billion years old by most of us.", "text"
    )
    assert chunk.parts == ()


def test_long_untitled_text_is_halved_between_sentences():
    text = "This is one sentence of eight words total. " * 10
    (chunk,) = chunks_of(text, "text")
    halves = roles(chunk)
    assert list(halves) == ["first_half", "second_half"]
    assert f"{halves['first_half']} {halves['second_half']}" == text.strip()
    assert abs(len(halves["first_half"]) - len(halves["second_half"])) < 60
    (chunk,) = chunks_of("This is one sentence of eight words total. " * 3, "text")
    assert chunk.parts == ()


def test_restructured_text():
    text = "=====\nTitle\n=====\n\n.. _label:\n\nIntro.\n\n"
    text += "Second level words\n------------------\n\nBody text.\n\nThird\n~~~~~\nDeep."
    chunks = chunks_of(text, "rst")
    assert [chunk.title for chunk in chunks] == [
        "Title",
        "Title > Second level words",
        "Title > Second level words > Third",
    ]
    assert [chunk.text for chunk in chunks] == ["Intro.", "Body text.", "Deep."]
    centred = chunks_of(text.replace("Title", " Title", 1).replace("Third", " Third"), "rst")
    assert [chunk.title for chunk in centred] == ["Title", "Title > Second level words"], "between two lines alone"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n## B\n## C\nbelow\n## D\n### E\n# F", [("A", "## B"), ("A > C", "below\n## D\n### E\n# F")]),
        ("# A\nbelow\n# B\n## D\n## C\nmore", [("A", "below"), ("B", "## D"), ("B > C", "more")]),
        ("# A\n\n## B\n\n# C\n", [("", "# A\n\n## B\n\n# C")]),
        ("---\ntitle: T\n---\n# A\n# B\ntext", [("T", "# A"), ("T > B", "text")]),
    ],
)
def test_a_heading_above_nothing_is_text(text: str, expected: list[tuple[str, str]]) -> None:
    chunks = chunk_document(Document("notes.md", text, format="markdown"))
    assert [(chunk.title, chunk.text) for chunk in chunks] == expected


def test_html_keeps_headings_and_drops_furniture():
    html = """<!doctype html><html><head><title>Page title here</title><style>p{}</style></head><body>
    <nav>Menu</nav><script>var a = 1</script><h1>Main <em>heading</em> words</h1><p>First
    paragraph<br>of text.</p><ul><li>one</li><li>two</li></ul><pre>code
      here</pre><h2>Second</h2><div>Div <b>text</b> &amp; more.</div><footer>Imprint</footer></body></html>"""
    chunks = chunks_of(html, "html")
    assert [chunk.title for chunk in chunks] == [
        "Page title here > Main heading words",
        "Page title here > Main heading words > Second",
    ]
    assert "First paragraph\nof text." in chunks[0].text and "- one\n- two" in chunks[0].text
    assert "code\n      here" in chunks[0].text and chunks[1].text == "Div text & more."
    everything = " ".join(chunk.embedding_text for chunk in chunks)
    assert not any(word in everything for word in ("Menu", "var a", "p{}", "Imprint"))


def test_notebooks_keep_cells_and_drop_outputs():
    cells = [
        {"cell_type": "markdown", "source": ["# Loading the data\n", "Some words."]},
        {"cell_type": "code", "source": "import a\n\nb = a.load()", "outputs": [{"text": "SECRET"}]},
        {"cell_type": "raw", "source": "raw"},
    ]
    document = read_bytes(json.dumps({"cells": cells, "metadata": {}}).encode(), "x.ipynb")
    (chunk,) = chunk_document(document)
    assert chunk.title == "Loading the data" and "b = a.load()" in chunk.text and "SECRET" not in chunk.text
    assert roles(chunk)["heading"] == "Loading the data"


def pdf_bytes(*pages):
    """A minimal PDF with one line of text per page."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
         NameObject("/BaseFont"): NameObject("/Helvetica")}
    )  # fmt: skip
    for text in pages:
        page = writer.add_blank_page(300, 300)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 10 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.add_metadata({"/Title": "Annual report of the year"})
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_pdf_text_title_and_pages():
    document = read_bytes(pdf_bytes("The first page. " * 12, "The second page. " * 40), "a.pdf")
    chunks = chunk_document(document)
    assert document.title == chunks[0].title == "Annual report of the year"
    assert chunks[0].text.startswith("The first page.") and chunks[0].metadata["page"] == 1
    assert chunks[-1].text.endswith("The second page.") and chunks[-1].metadata["page"] == 2


def test_ligatures_of_a_pdf_are_letters(monkeypatch):
    monkeypatch.setattr(
        "pypdf.PageObject.extract_text", lambda page, **_: "The form is \ufb01lled, o\ufb03cially \ufb02at."
    )
    assert read_pdf(pdf_bytes("x"))[0] == "The form is filled, officially flat."


def test_pairs_are_unambiguous_and_do_not_contain_their_query():
    texts = [
        "# How to open files\n\nUse the open command for this. How to open files is easy.",
        "# The same heading twice\n\nOne text about something.",
        "# The Same Heading  twice\n\nAnother text about something.",
    ]
    chunks = [
        chunk for n, text in enumerate(texts) for chunk in chunk_document(Document(str(n), text, format="markdown"))
    ]
    (pair,) = structural_pairs(chunks)
    assert (pair.query, pair.query_role, pair.document_id, pair.chunk_id) == (
        "How to open files", "heading", "0", chunks[0].id,
    )  # fmt: skip
    assert "How to open files" not in pair.answer_text and "Use the open command" in pair.answer_text


def test_ids_depend_on_source_and_text_only():
    first, second = chunks_of("Some text."), chunk_document(Document("other", "Some text."))
    assert first[0].id != second[0].id
    assert chunks_of("Some text.\r\n")[0].id == first[0].id
