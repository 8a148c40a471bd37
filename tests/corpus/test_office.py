"""Office documents, books and mails: their text, the place where it stands, and what is refused."""

import time
from email.message import EmailMessage

import pytest

from revela_rag.corpus import load_corpus
from revela_rag.corpus.formats.documents import office
from revela_rag.corpus.place import place_in_file
from revela_rag.errors import CorpusError
from tests.corpus.office_files import docx, docx_table, epub, odt, paragraph, pptx, xlsx


def read(folder, name, data):
    """Title, place and text of every chunk, and the report."""
    (folder / name).write_bytes(data)
    corpus = load_corpus(folder, deduplicate=False)
    return [(chunk.title, place_in_file(chunk), chunk.text) for chunk in corpus], corpus.report


def test_word(tmp_path):
    data = docx(
        paragraph("Pump manual", "Heading1"),
        paragraph("Wear gloves &amp; goggles, a_b."),
        paragraph("Torque", "Heading2"),
        docx_table(("Part", "Torque"), ("bolt", "9 Nm")),
        paragraph("End of the page.", page_break=True),
        paragraph("Repair", "Heading1"),
        paragraph("Call the plant."),
    )
    found, report = read(tmp_path, "manual.docx", data)
    assert found == [
        ("Pump manual", "p. 1", "Wear gloves & goggles, a_b."),
        ("Pump manual > Torque", "p. 1", "| Part | Torque |\n| --- | --- |\n| bolt | 9 Nm |\n\nEnd of the page."),
        ("Repair", "p. 2", "Call the plant."),
    ]
    assert report.skipped == {} and report.documents == 1


def test_slides_with_the_notes_of_their_speaker(tmp_path):
    slides = [("Sales grew", "In every region."), ("Costs", "Fell a little."), ("Outlook", "Bright.")]
    found, _ = read(tmp_path, "review.pptx", pptx(*slides, notes={2: "Say why they fell."}))
    assert found == [
        ("Sales grew", "slide 1", "In every region."),
        ("Costs", "slide 2", "Fell a little.\n\nSay why they fell."),
        ("Outlook", "slide 3", "Bright."),
    ]


def test_slides_are_in_the_order_of_the_show(tmp_path):
    slides = [("One", "First file."), ("Two", "Thrown away."), ("Three", "Third file."), ("Four", "Fourth file.")]
    data = pptx(*slides, notes={1: "Of one.", 4: "Of four."}, order=(4, 1, 3))
    assert read(tmp_path, "review.pptx", data)[0] == [
        ("Four", "slide 1", "Fourth file.\n\nOf four."),
        ("One", "slide 2", "First file.\n\nOf one."),
        ("Three", "slide 3", "Third file."),
    ]


def test_sheets_are_tables_whose_rows_have_the_numbers_that_the_program_shows(tmp_path):
    sheets = {
        "Stock": {4: ["part", "count"], 5: ["bolt", 7], 7: ["washer", 12.5]},
        "Secret": {1: ["word"], 2: ["hidden"]},
        "Faq": {1: ["question", "answer"], 2: ["How long?", "Two years."]},
    }
    (tmp_path / "parts.xlsx").write_bytes(xlsx(sheets, hidden={"Secret"}))
    for source, mark in ((tmp_path, "#"), (tmp_path / "parts.xlsx", ":")):
        chunks = load_corpus(source, deduplicate=False).chunks
        assert [(chunk.document_id, chunk.text, place_in_file(chunk)) for chunk in chunks] == [
            (
                f"parts.xlsx{mark}Stock",
                "Table Stock with the columns:\n- part (text): bolt, washer\n- count (number): 7, 12.5",
                "",
            ),
            (f"parts.xlsx{mark}Stock!5", "part: bolt\ncount: 7", "row 5"),
            (f"parts.xlsx{mark}Stock!7", "part: washer\ncount: 12.5", "row 7"),
            (f"parts.xlsx{mark}Faq!2", "Two years.", ""),
        ]
        row = chunks[2].metadata
        assert (row["table"], row["row"], row["columns"]) == ("Stock", 7, ["part", "count"])
        assert chunks[3].title == "How long?"


def test_open_document_text(tmp_path):
    body = (
        '<text:h text:outline-level="1">Open manual</text:h><text:p>Read me first.</text:p>'
        '<text:h text:outline-level="2">Parts</text:h><text:list><text:list-item><text:p>bolt</text:p></text:list-item>'
        "<text:list-item><text:p>washer</text:p></text:list-item></text:list>"
    )
    found, _ = read(tmp_path, "open.odt", odt(body))
    assert found == [("Open manual", "", "Read me first."), ("Open manual > Parts", "", "- bolt\n- washer")]


def test_rich_text(tmp_path):
    data = (
        rb"{\rtf1\ansi\ansicpg1252{\info{\title Rich letter}}\pard Dear caf\'e9, \u1084?\u1080?\u1088?.\par Bye.\par}"
    )
    found, _ = read(tmp_path, "letter.rtf", data)
    assert found == [("Rich letter", "", "Dear café, мир.\n\nBye.")]


def test_a_book(tmp_path):
    data = epub(
        "Little book",
        "<h1>Chapter one</h1><p>Once <em>upon</em> a time.</p>",
        "<h1>Chapter two</h1><pre>if x:\n    y()</pre>",
    )
    found, _ = read(tmp_path, "book.epub", data)
    assert found == [
        ("Little book > Chapter one", "", "Once *upon* a time."),
        ("Little book > Chapter two", "", "```\nif x:\n    y()\n```"),
    ]


def mail(**fields):
    made = EmailMessage()
    for name, value in fields.items():
        made[name] = value
    return made


def test_a_mail_and_what_is_attached(tmp_path):
    made = mail(Subject="Pumpe überholt", From="Ann <ann@example.org>", Date="Mon, 02 Nov 2026 10:00:00 +0000")
    made.set_content("Dear Bob,\n\nthe café pump\n    is ready.\n# 5 is not.\n", charset="iso-8859-1")
    made.add_alternative("<p>Dear Bob in HTML</p>", subtype="html")
    made.add_attachment("Oil it.", filename="note.txt")
    made.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="pump.png")
    found, _ = read(tmp_path, "a.eml", bytes(made))
    assert found == [
        ("Pumpe überholt", "", "Dear Bob,\n\nthe café pump\n    is ready.\n# 5 is not."),
        ("Pumpe überholt > note.txt", "", "Oil it."),
    ]
    about = load_corpus(tmp_path).chunks[0].metadata
    assert (about["from"], about["date"]) == ("Ann <ann@example.org>", "2026-11-02T10:00:00+00:00")


def test_a_mail_in_html_is_read_as_a_page(tmp_path):
    made = mail(Subject="News")
    made.set_content(
        "<style>p {color: red}</style><h2>Pumps</h2><p>A new one.</p><script>bad()</script>"
        "<p style='display:none'>Unseen.</p>",
        subtype="html",
    )
    assert read(tmp_path, "a.eml", bytes(made))[0] == [("News > Pumps", "", "A new one.")]


def test_without_the_extra_the_report_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.md").write_text("These words are read.")
    for name in ("b.docx", "c.xlsx"):
        (tmp_path / name).write_bytes(b"PK")
    monkeypatch.setattr(office, "find_spec", lambda name: None)
    corpus = load_corpus(tmp_path)
    assert [chunk.text for chunk in corpus] == ["These words are read."]
    assert corpus.report.skipped == {
        ".docx needs the extra documents: pip install 'revela-rag[documents]'": ["b.docx"],
        ".xlsx needs the extra documents: pip install 'revela-rag[documents]'": ["c.xlsx"],
    }
    for name in ("b.docx", "c.xlsx"):
        with pytest.raises(CorpusError, match=r"pip install 'revela-rag\[documents\]'"):
            load_corpus(tmp_path / name)


LAUGHS = "<!DOCTYPE x [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10)
) + "]>"  # fmt: skip
HOSTILE = {
    "bomb.docx": (lambda: docx(paragraph("a" * 4000) * 50_000), "docx file that unpacks to more than it may"),
    "deep.docx": (lambda: docx("<w:tbl><w:tr><w:tc>" * 100_000), "docx file that unpacks to more than it may"),
    "half.docx": (lambda: docx(paragraph("Words."))[:900], "broken docx file"),
    "noise.pptx": (lambda: bytes(n * 7919 % 256 for n in range(5000)), "broken pptx file"),
    "empty.odt": (lambda: b"", "broken odt file"),
    "locked.xlsx": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096), "encrypted xlsx file"),
    "bomb.xlsx": (lambda: xlsx({"A": {1: ["a" * 60_000_000]}}), "xlsx file that unpacks to more than it may"),
    "none.xlsx": (lambda: xlsx({"A": {}}), "spreadsheet without text"),
    "silent.docx": (lambda: docx(paragraph("")), "docx file without text"),
    "laughs.docx": (lambda: docx(paragraph("&a9;"), before=LAUGHS), "docx file without text"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_broken_is_counted(tmp_path, name):
    make, reason = HOSTILE[name]
    (tmp_path / "a.md").write_text("These words are read.")
    (tmp_path / name).write_bytes(make())
    started = time.monotonic()
    corpus = load_corpus(tmp_path)
    assert corpus.report.skipped == {reason: [name]} and len(corpus) == 1
    assert time.monotonic() - started < 60


def test_a_document_names_no_other_file(tmp_path):
    (tmp_path / "secret.txt").write_text("topsecretword")
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path / "secret.txt"}">]>'
    data = docx(paragraph("Start &e; end."), before=entity)
    (tmp_path / "folder").mkdir()
    found, _ = read(tmp_path / "folder", "a.docx", data)
    assert [text for _, _, text in found] == ["Start end."]


def test_a_file_that_is_something_else_than_its_name_says_is_not_read_as_that(tmp_path):
    _, report = read(tmp_path, "a.docx", docx(paragraph("Read this.")))
    assert report.documents == 1
    (tmp_path / "b.docx").write_bytes(b"%PDF-1.4 nonsense")
    assert load_corpus(tmp_path).report.skipped == {"broken docx file": ["b.docx"]}
