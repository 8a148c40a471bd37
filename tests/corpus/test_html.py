"""What a reader of a page sees becomes text, and nothing else."""

import pytest

from revela_rag.corpus import Document, chunk_document
from revela_rag.corpus.formats.markup.html import read_html


def text_of(html):
    return read_html(html).text


def chunks_of(html, **options):
    return chunk_document(Document("a", html, format="html"), **options)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<button class='accordion'>How do I pay?</button><div><p>By card.</p></div>", "How do I pay?\n\nBy card."),
        ("<button aria-expanded=false>Costs of a return</button><p>Free.</p>", "Costs of a return\n\nFree."),
        ("<h3><button data-toggle=collapse>Hours</button></h3><p>Nine to five.</p>", "### Hours\n\nNine to five."),
        ("<p>One.</p><button>Copy</button><button aria-expanded=false>Menu</button><p>Two.</p>", "One.\n\nTwo."),
        ("<h2>Install <button>Copy path of item</button></h2>", "## Install"),
    ],
)  # fmt: skip
def test_buttons_that_open_an_answer_are_text_and_controls_are_not(html, expected):
    assert text_of(html) == expected


def test_a_page_inside_a_form_is_read_and_a_form_to_fill_in_is_not():
    words = "The server puts every page into a form. " * 6
    assert text_of(f"<form id=aspnet><div>{words}</div><select><option>Red</select></form>") == words.strip()
    assert text_of("<form><h1>Orders</h1><p>All of them.</p><input value=x></form>") == "# Orders\n\nAll of them."
    assert text_of("<p>Text.</p><form><label>Mail</label><input><button>Send</button></form>") == "Text."


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<a class=anchor href=#a><h2>Limits of use</h2></a><p>Ten.</p>", "## Limits of use\n\nTen."),
        ("<h2><a class=anchor href=#a>Limits of use</a></h2>", "## Limits of use"),
        ("<h2>Limits of use<a class=headerlink href=#a>¶</a></h2>", "## Limits of use"),
        ("<h2><a href=#a>§</a>Limits of use <a class=anchor href=#a>Permalink</a></h2>", "## Limits of use"),
        ("<h2>Use of H<sub>2</sub>O and <code>a_b_c</code>, List&lt;T&gt;</h2>", "## Use of H2O and a_b_c, List<T>"),
    ],
)
def test_headings_keep_their_words_whatever_links_they_hold(html, expected):
    assert text_of(html) == expected


def test_lines_of_code_end_where_breaks_stand():
    assert text_of("<pre><code>mkdir /b<br>tar c /d<br/>  ls</code></pre>") == "```\nmkdir /b\ntar c /d\n  ls\n```"
    assert text_of("<pre><div>one</div><div>  two</div></pre>").split("\n")[1:-1] == ["one", "", "  two"]


def test_cells_are_one_line_a_row_and_layout_is_not_a_table():
    table = "<table><tr><th>Name<th>Use</tr><tr><td><p>-k</p><td><p>keep</p><p>days</p></tr></table>"
    assert text_of(table) == "| Name | Use |\n|---|---|\n| -k | keep days |"
    assert (
        text_of("<table><tr><td><h2>News</h2><p>Text.</p></td><td>Menu</td></tr></table>") == "## News\n\nText.\n\nMenu"
    )
    assert text_of("<table><tr><td><table><tr><td>a</td><td>b</td></tr></table></td></tr></table>") == "| a | b |"
    assert text_of("<ul><li><p>one</p></li><li>two<ul><li>three</li></ul></li></ul>") == "- one\n\n- two\n\n- three"


@pytest.mark.parametrize(
    "html",
    [
        "<div style='display:none'>internal</div>",
        "<div style='color: red; DISPLAY : none'>internal</div>",
        "<span style='visibility:hidden'>internal</span>",
        "<div hidden>internal</div>",
        "<div hidden=hidden><p>internal</p></div>",
        "<template><p>internal</p></template>",
    ],
)
def test_hidden_text_is_not_read(html):
    assert text_of(f"<p>Seen.</p>{html}<p>Seen, too.</p>") == "Seen.\n\nSeen, too."


@pytest.mark.parametrize(
    "html",
    [
        "<button aria-controls=a>How long?</button><div id=a hidden>Two years.</div>",
        "<p>How long?</p><div class=panel style='display:none'>Two years.</div>",
        "<p>How long?</p><div role=tabpanel hidden>Two years.</div>",
        "<p>How long?</p><div hidden=until-found>Two years.</div>",
    ],
)
def test_what_a_click_shows_is_read(html):
    assert text_of(html) == "How long?\n\nTwo years."


def test_signs_of_markdown_in_a_page_are_text():
    html = "<h1>Backup</h1><p># of copies kept: 7</p><pre>\n```\ninside\n\n```\n# not a heading\n</pre>"
    html += "<h2>After</h2><p>Text.</p>"
    chunks = chunks_of(html)
    assert [(chunk.title, chunk.text) for chunk in chunks] == [
        ("Backup", "# of copies kept: 7\n\n````\n```\ninside\n\n```\n# not a heading\n````"),
        ("Backup > After", "Text."),
    ]
    (chunk,) = chunks_of("<p>```pip install a```</p><p>Second.</p><p>---</p><p>Third line</p>")
    assert chunk.text == "```pip install a```\n\nSecond.\n\nThird line"


def test_large_and_small_pages_are_read_alike(monkeypatch):
    html = "<title>T</title><h1>One</h1><p>First text.</p><pre>a\n\nb</pre><h2>Two</h2><p>Second text.</p>"
    small = chunks_of(html)
    monkeypatch.setattr("revela_rag.corpus.formats.readers._SMALL_PAGE", 0)
    assert chunks_of(html) == small and len(small) == 2


def test_a_page_that_names_another_encoding_is_read_as_it_was_decoded():
    page = "<?xml version='1.0' encoding='latin-1'?><html><meta charset=utf-16><title>Größe</title><p>Füße</p></html>"
    assert (read_html(page).title, text_of(page)) == ("Größe", "Füße")
