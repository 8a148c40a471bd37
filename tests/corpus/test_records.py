"""Records of common systems become documents with their text, title and id."""

import json

import pytest

from revela_rag.corpus import CorpusReport, iter_documents, load_corpus
from revela_rag.errors import CorpusError

TEXT = "We compare learned sparse models with BM25 on twelve sets."

SHAPES = {
    "arxiv": ({"id": "2301.1", "title": "Sparse retrieval", "abstract": TEXT}, ("2301.1", "Sparse retrieval", TEXT)),
    "faq": ({"title": "Warranty", "answer": "Two years."}, ("item-0", "Warranty", "Two years.")),
    "question": ({"question": "How long?", "answer": "Two years."}, ("item-0", "How long?", "Two years.")),
    "both": (
        {"title": "Warranty", "question": "How long?", "answer": "Two years."},
        ("item-0", "Warranty", "How long?\n\nTwo years."),
    ),
    "stack exchange": ({"Id": 7, "Title": "Why?", "Body": "Because."}, ("7", "Why?", "Because.")),
    "wordpress": (
        {"id": 3, "title": {"rendered": "News"}, "content": {"rendered": "<p>It is out.</p>"}},
        ("3", "News", "<p>It is out.</p>"),
    ),
    "confluence": (
        {"id": "1", "title": "Restore", "body": {"storage": {"value": "<p>Load it.</p>", "representation": "storage"}}},
        ("1", "Restore", "<p>Load it.</p>"),
    ),
    "zendesk": (
        {"id": 0, "subject": "No print", "description": "Error 49.", "comments": [{"body": "Restart."}, {"id": 3}]},
        ("0", "No print", "Error 49.\n\nRestart."),
    ),
    "jira": (
        {"key": "OPS-1", "fields": {"summary": "Broken link", "description": "It ends at 404."}},
        ("OPS-1", "Broken link", "It ends at 404."),
    ),
    "rich text": (
        {
            "key": "OPS-2",
            "fields": {
                "summary": "Rich",
                "description": {
                    "type": "doc",
                    "content": [
                        {"type": "paragraph", "content": [{"text": "One "}, {"text": "line."}]},
                        {"type": "paragraph", "content": [{"text": "Two."}]},
                    ],
                },
            },
        },
        ("OPS-2", "Rich", "One line.\n\nTwo."),
    ),
    "elasticsearch": ({"_id": "9", "_source": {"title": "T", "body": "B."}}, ("9", "T", "B.")),
    "squad": (
        {"id": "q", "context": TEXT, "question": "Which?", "answers": {"text": ["BM25"]}},
        ("q", "Which?", TEXT),
    ),
    "product": (
        {"id": "p1", "name": "Kettle", "description": "Boils water.", "category": "Kitchen"},
        ("p1", "Kettle", "Boils water."),
    ),
    "paragraphs": ({"TITLE": "T", "TEXT": ["One.", "Two."]}, ("item-0", "T", "One.\n\nTwo.")),
    "odd name": ({"title": "T", "the_words": f"{TEXT}", "n": 3}, ("item-0", "T", TEXT)),
    "own names": ({"title": "T", "text": "Own.", "abstract": "No", "comments": [{"x": 1}]}, ("item-0", "T", "Own.")),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    record, expected = SHAPES[name]
    (document,) = iter_documents([record])
    assert (document.id, document.title, document.text) == expected


def test_a_product_keeps_its_fields_and_a_tool_has_parameters():
    record, _ = SHAPES["product"]
    (document,) = iter_documents([record])
    assert document.metadata == {"category": "Kitchen"}
    (tool,) = iter_documents([{"name": "boil", "description": "Boils.", "category": "x", "parameters": {}}])
    assert tool.metadata == {"tool": "boil"}
    (listed,) = iter_documents([{"tools": [{"name": "boil", "description": "Boils.", "category": "x"}]}])
    assert listed.metadata == {"tool": "boil"}


def test_fields_can_be_named():
    record = {"ref": {"n": 7}, "head": "Head", "a": {"b": "The words."}, "text": "Not this."}
    (document,) = iter_documents([record], text_field="a.b", title_field="head", id_field="ref.n")
    assert (document.id, document.title, document.text) == ("7", "Head", "The words.")
    assert document.metadata == {"text": "Not this."}
    report = CorpusReport()
    assert list(iter_documents([record], text_field="a.c", report=report)) == []
    assert report.skipped == {"record without 'a.c' (its fields: ref, head, a, text)": ["item-0"]}
    assert load_corpus([record], text_field="a.b").chunks[0].text == "The words."


def test_a_record_without_text_is_counted_with_its_fields(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"sku": 1, "price": 2}\n{"sku": 3, "price": 4}\n[1]\n')
    report = CorpusReport()
    assert len(list(iter_documents(path, report=report))) == 1
    assert report.skipped == {
        "record without text (its fields: sku, price; text_field names the one with the text)": [
            "a.jsonl:2",
            "a.jsonl:3",
        ],
        "record that is a list, not an object": ["a.jsonl:4"],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Order the <b>laptop</b>.</p><p>Then wait.</p>", "Order the laptop.\n\nThen wait."),
        ("Hello,<br>it is <br/>broken.", "Hello,\nit is\nbroken."),
        ("Parse '<p>Some <b>x</b></p>' and <p>more</p>.", "Parse '<p>Some <b>x</b></p>' and <p>more</p>."),
        ("An <a href='#x'>a</a> or <a href='#y'>b</a>.", "An <a href='#x'>a</a> or <a href='#y'>b</a>."),
        ("Use <b>bold</b> words", "Use <b>bold</b> words"),
        ("The `</div>` and `</p>` close it.", "The `</div>` and `</p>` close it."),
        ("# Title\n\n<div>\n\nText.\n\n</div>\n<p>x</p>\n", "<div>\n\nText.\n\n</div>\n<p>x</p>"),
        ("if a < b and c > d: stop", "if a < b and c > d: stop"),
    ],
)
def test_html_in_a_field_is_read_as_such(text, expected):
    assert load_corpus([{"text": text}]).chunks[0].text == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"tickets": [{"id": 7, "subject": "No print", "description": "Error 49."}], "next_page": None},
        {"results": [{"id": 7, "title": "No print", "body": {"view": {"value": "Error 49."}}}], "size": 1},
        {"took": 3, "hits": {"total": 1, "hits": [{"_id": 7, "_source": {"title": "No print", "text": "Error 49."}}]}},
        {"message": "ok", "data": [{"id": 7, "title": "No print", "text": "Error 49."}]},
        {"id": 7, "title": "No print", "text": "Error 49.", "items": [{"text": "part of it"}]},
    ],
)
def test_answers_of_services_list_records(tmp_path, answer):
    (tmp_path / "a.json").write_text(json.dumps(answer))
    (document,) = iter_documents(tmp_path / "a.json")
    assert (document.id, document.title, document.text) == ("7", "No print", "Error 49.")


def test_code_of_a_wiki_page_is_code():
    code = (
        "<ac:structured-macro ac:name='code'><ac:plain-text-body><![CDATA[if a < b:\n    run()]]></ac:plain-text-body>"
    )
    record = {"id": "1", "title": "T", "body": {"storage": {"value": f"{code}</ac:structured-macro><p>Wait.</p>"}}}
    assert load_corpus([record]).chunks[0].text == "```\nif a < b:\n    run()\n```\n\nWait."


def test_records_in_a_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "faq.jsonl").write_text(
        '{"id": "w", "question": "How long?", "answer": "Two years."}\n\n{"text": "Second."}'
    )
    (tmp_path / "data" / "bad.jsonl").write_text('{"sku": 1}\n{')
    (tmp_path / "data" / "faq.csv").write_text('question,answer\n"How long, then?","Two years, from\ndelivery."\n')
    (tmp_path / "data" / "parts.tsv").write_text("part\tshelf\nbolt\tA 3\n7\t8\n")
    report = CorpusReport()
    documents = list(iter_documents(tmp_path, report=report))
    assert [(d.id, d.title, d.text) for d in documents] == [
        ("data/faq.csv#1", "How long, then?", "Two years, from\ndelivery."),
        ("data/faq.jsonl#w", "How long?", "Two years."),
        ("data/faq.jsonl#2", "", "Second."),
        (
            "data/parts.tsv#table",
            "parts",
            "Table parts with the columns:\n- part (text): bolt, 7\n- shelf (text): A 3, 8",
        ),
        ("data/parts.tsv#1", "", "part: bolt\nshelf: A 3"),
    ]
    assert all(d.metadata["source"] == d.id.split("#")[0] for d in documents)
    assert list(report.skipped.values()) == [["data/bad.jsonl"], ["data/parts.tsv#2"]]


def test_queries_and_judgements_of_a_set_inside_a_folder_are_not_read(tmp_path):
    folder = tmp_path / "sets" / "one"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "Hold the button."}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "how do I reset"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert [document.id for document in iter_documents(tmp_path)] == ["sets/one/corpus.jsonl#d1"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "\ufeffTitle;Text;Year\nT;Words, here;3\n", ("a.csv:1", "T", "Words, here", {"Year": "3"})),
        ("a.tsv", "id\ttext\nx\tone \"quoted\" word\n", ("x", "", 'one "quoted" word', {})),
        ("a.csv", "id,text\r\nx,one\r\n,\r\n", ("x", "", "one", {})),
    ],
)  # fmt: skip
def test_rows_are_records(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content, encoding="utf-8")
    (document,) = iter_documents(tmp_path / name)
    assert (document.id, document.title, document.text, document.metadata) == expected


def test_a_table_has_a_card_and_its_rows_know_their_place(tmp_path):
    (tmp_path / "stock.csv").write_text(
        'name,since,sold,count,left\nAnna\'s,2024-03-09,yes,"1,200",\n\nKyiv depot,2025-01-02,no,7,\n'
    )
    card, first, second = iter_documents(tmp_path / "stock.csv")
    assert (card.id, card.title, card.text) == (
        "stock.csv:table",
        "stock",
        "Table stock with the columns:\n- name (text): Anna's, Kyiv depot\n- since (date): 2024-03-09, 2025-01-02\n"
        "- sold (yes or no): yes, no\n- count (number): 1,200, 7\n- left (empty)",
    )
    assert card.metadata == {"table": "stock", "columns": ["name", "since", "sold", "count", "left"]}
    assert (first.id, first.title) == ("stock.csv:1", "Anna's")
    assert second.text == "name: Kyiv depot\nsince: 2025-01-02\nsold: no\ncount: 7"
    assert second.metadata == {
        "table": "stock", "row": 4, "columns": ["name", "since", "sold", "count"],
        "since": "2025-01-02", "sold": "no", "count": "7",
    }  # fmt: skip


def test_an_article_with_a_price_is_no_text_and_a_table_of_texts_has_no_card(tmp_path):
    (tmp_path / "prices.csv").write_text("article,price\nwasher,3\n")
    assert [d.text for d in iter_documents(tmp_path / "prices.csv")][1:] == ["article: washer\nprice: 3"]
    (tmp_path / "news.csv").write_text("article,year\nThe pump was mended.,2024\n")
    assert [d.text for d in iter_documents(tmp_path / "news.csv")] == ["The pump was mended."]


@pytest.mark.parametrize("content", ["", "a,b\n", "a,b\n1,2\n"])
def test_a_table_without_text_is_refused(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(CorpusError, match=r"a\.csv"):
        list(iter_documents(tmp_path / "a.csv"))


def test_a_deep_or_wide_record_is_quick():
    deep = "text"
    for _ in range(900):
        deep = {"value": [deep] * 3}
    wide = {f"key{n}": {"value": n} for n in range(20_000)}
    report = CorpusReport()
    assert list(
        iter_documents([{"body": deep}, wide, {"text": "a", "metadata": [{"x": [1] * 1000}] * 10_000}], report=report)
    )
    assert sum(map(len, report.skipped.values())) == 2
    assert len(json.dumps(report.as_dict())) < 2_000
