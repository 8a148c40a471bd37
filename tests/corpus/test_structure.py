"""Blank lines, fences, front matter, tables and lists of lines: where a chunk begins and what it keeps."""

import pytest

from revela_rag.corpus import Document, chunk_document, load_corpus
from revela_rag.corpus.formats.markup.front_matter import front_matter
from revela_rag.corpus.prose.sections import fence_spans
from revela_rag.corpus.prose.sentences import sentence_spans

CODE = "    class Spider:\n        name = 1\n\n        def start(self):\n            yield 2\n\n            return 0"


def chunks_of(text, format="markdown", **options):
    return chunk_document(Document("doc", text, format=format), **options)


@pytest.mark.parametrize("format", ["markdown", "rst", "text"])
def test_code_keeps_its_indentation_after_blank_lines(format):
    (chunk,) = chunks_of(f"Put this into it:\n\n{CODE}\n\nIt runs.", format)
    assert chunk.text == f"Put this into it:\n\n{CODE}\n\nIt runs."


def test_code_keeps_its_indentation_where_a_chunk_begins():
    chunks = chunks_of(f"{'Word ' * 10}end.\n\n{CODE}", "rst", max_words=12)
    assert [chunk.text for chunk in chunks[1:]] == [CODE]


def test_lines_of_a_long_code_block_are_whole():
    rows = [f"        row({n}, 'Ends. Here') and more" for n in range(60)]
    chunks = chunks_of("Text:\n\n    ```python\n" + "\n\n".join(rows) + "\n    ```\n\nAfter.", max_words=40)
    assert [line for chunk in chunks for line in chunk.text.split("\n") if "row" in line] == rows


LIST = "1. Add it:\n\n    ```bash\n    helm add\n    ```\n\n"


def test_a_fence_in_a_list_does_not_turn_what_follows_into_code():
    wrapped = "\n".join(
        ["Fact one of it is told in this sentence of many words\nthat go over the end of its line."] * 9
    )
    chunks = chunks_of(LIST + wrapped + "\n\nLast.", max_words=45)
    assert all(chunk.text.startswith("Fact") and chunk.text.endswith(".") for chunk in chunks[1:])
    assert chunks[0].text.startswith("1. Add it:\n\n    ```bash\n    helm add\n    ```")
    assert len(chunks) == 5


def test_code_inside_a_sentence_opens_no_fence():
    text = "# A\n\n```pip install a``` is all.\n\n## B\n\nText of it.\n\n## C\n\n~~~ `x`\n# no\n~~~\n"
    assert [chunk.title for chunk in chunks_of(text)] == ["A", "A > B", "A > C"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\n```\nb\n```\nc", ["```\nb\n```"]),
        ("````\n```\n````\n", ["````\n```\n````"]),
        ("```\na\n``` b\n```", ["```\na\n``` b\n```"]),
        ("  ~~~ x `y`\na\n~~~", ["  ~~~ x `y`\na\n~~~"]),
        ("```a``` b\n\nc", []),
        ("a\n```\nb", ["```\nb"]),
    ],
)
def test_fences(text, code):
    assert [text[a:b] for a, b in fence_spans(text)] == code


FRONT = {
    "---\ntitle: Queues\ndescription: How to scale.\nkeywords: [a b, c]\n---\n": ("Queues", "How to scale.\na b, c"),
    "---\ntitle: >\n  Queues of\n  workers\nsummary: |\n  One.\n  Two.\n---\n": ("Queues of workers", "One. Two."),
    "---\nname: pdf-forms\ndescription: 'Fill: forms'\n---\n": ("pdf-forms", "Fill: forms"),
    "---\ntitle: A: b\ndescription: No: YAML\n---\n": ("A: b", "No: YAML"),
    '+++\ntitle = "Queues"\ndescription = "How to scale."\n[extra]\nkeywords = ["a", "b"]\n+++\n': (
        "Queues",
        "How to scale.\na, b",
    ),
    "---\ntitle: Queues\nweight: 3\n---\n": ("Queues", ""),
}


@pytest.mark.parametrize("front", FRONT)
def test_front_matter_is_title_first_chunk_and_metadata(front):
    title, lead = FRONT[front]
    chunks = chunks_of(f"{front}Text.\n\n# Steps\n\nThe last.\n")
    assert [chunk.title for chunk in chunks] == [title, f"{title} > Steps"]
    assert chunks[0].text.split() == f"{lead} Text.".split()
    assert chunks[1].metadata["start_line"] == front.count("\n") + 5
    assert all(chunk.metadata.get("description", "") in lead for chunk in chunks)


def test_front_matter_fields_travel_and_a_rule_is_no_front_matter():
    made = front_matter("---\ntags: [a, b]\nauthor: J. Doe\nsource: x\ndraft: true\n---\nText.")
    assert made.metadata == {"tags": ["a", "b"], "author": "J. Doe"}
    (chunk,) = chunks_of("---\n\nA text between rules.\n\n---\n\nMore text.")
    assert chunk.text == "A text between rules.\n\nMore text."


ROWS = [f"| plan-{n} | {n}00 | for teams of {n} people |" for n in range(1, 41)]


@pytest.mark.parametrize(
    "head",
    ["| Plan | Limit | Note |\n|---|:-:|---|", "| Plan | Limit | Note |\n| - | - | - |"],
)
def test_every_chunk_of_a_table_names_its_columns(head):
    chunks = chunks_of("\n".join(["# Limits", "", head, *ROWS]), max_words=60)
    assert len(chunks) > 5
    assert all(chunk.text.startswith(f"{head}\n| plan-") for chunk in chunks)
    assert [line for chunk in chunks for line in chunk.text.split("\n")[2:]] == ROWS


def test_other_tables_name_their_columns_too():
    bare = "Plan | Note\n--- | ---\n" + "\n".join(f"plan {n} | for the {n} of us" for n in range(30))
    assert all(chunk.text.startswith("Plan | Note\n--- | ---\nplan") for chunk in chunks_of(bare, max_words=30))
    rule = "+--------+--------+\n"
    grid = f"{rule}| Plan   | Note   |\n+========+========+\n" + "".join(
        f"| p {n:4} | of {n:3} |\n{rule}" for n in range(30)
    )
    assert all("| Plan   | Note   |" in chunk.text for chunk in chunks_of(grid, "rst", max_words=40))
    simple = (
        "=====  =====\nPlan   Note\n=====  =====\n" + "".join(f"p{n:4}  of {n}\n" for n in range(60)) + "=====  ====="
    )
    assert all(
        chunk.text.startswith("=====  =====\nPlan   Note\n=====") for chunk in chunks_of(simple, "rst", max_words=30)
    )


LINES = {
    "extensions": [f"{n:04}  Department {n}  Room {100 + n}  extension {5000 + n}" for n in range(60)],
    "options": [f"--option-{n} VALUE\tSays what is. Done for {n}" for n in range(60)],
    "log": [f"[2024-03-01 10:{n:02}] INFO Worker started. Port {n} is open" for n in range(60)],
    "names": [f"Surname{n} Name{'x' * (n % 9)}" for n in range(200)],
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_lists_of_lines_are_cut_between_lines(name):
    chunks = chunks_of("\n".join(LINES[name]), "text", max_words=50)
    assert len(chunks) > 3
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == LINES[name]


def test_wrapped_prose_is_cut_between_sentences_still():
    text = "\n".join(
        [
            "It was told in words that go on and on here, as people do",
            "when they write. There is more of it in the next of the",
        ]
        * 20
    )
    assert all(chunk.text.startswith(("It was", "There is")) for chunk in chunks_of(text, "text", max_words=40))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("सर्वर बंद करें। लॉग देखें॥ फिर चालू करें।", 3),
        ("یہ پہلا جملہ ہے۔ یہ دوسرا ہے؟ تیسرا", 3),
        ("ប្រយោគទីមួយ។ ប្រយោគទីពីរ៕", 2),
        ("ပထမ။ ဒုတိယ။", 2),
    ],
)
def test_sentences_of_scripts_with_signs_of_their_own(text, count):
    assert len(list(sentence_spans(text))) == count


def test_a_long_text_in_hindi_is_cut_between_sentences(tmp_path):
    (tmp_path / "a.md").write_text("# शीर्षक\n\n" + "लॉग फ़ाइल में त्रुटियों की जाँच करें। " * 60)
    chunks = load_corpus(tmp_path, deduplicate=False).chunks
    assert len(chunks) > 2 and all(chunk.text.endswith("करें।") for chunk in chunks)
