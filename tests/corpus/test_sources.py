"""Folders, files, records and foreign objects become documents with stable ids."""

import json
import re
import sys

import pytest

from revela_rag.corpus import Document, iter_documents, load_corpus
from revela_rag.corpus.report import CorpusReport
from revela_rag.errors import CorpusError, MissingExtraError


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def ids(source, **options):
    return [document.id for document in iter_documents(source, **options)]


def jsonl(*records):
    return "\n".join(json.dumps(record) for record in records) + "\n"


def test_folder_ids_are_relative_posix_and_sorted(tmp_path):
    write(tmp_path, {"b.md": "b text", "a/z.py": "x = 1", "a/b/c.txt": "c text", "a.rst": "a text"})
    assert ids(tmp_path) == ["a.rst", "b.md", "a/z.py", "a/b/c.txt"]
    assert ids(str(tmp_path)) == ids(tmp_path)


def test_hidden_installed_and_cached_folders_are_left_out(tmp_path):
    files = {"keep.py": "x = 1", ".env": "SECRET=1", ".hidden/a.md": "a", "node_modules/m/index.js": "let a = 1"}
    files |= {"__pycache__/k.py": "x", "venv/pyvenv.cfg": "", "venv/lib/a.py": "x", "lib/site-packages/p.py": "x"}
    files |= {"model/revela.json": "{}", "model/modules.json": "[]", "model/README.md": "a card"}
    files |= {"index/manifest.json": "{}", "index/generation-000001/notes.md": "x"}
    assert ids(write(tmp_path, files)) == ["keep.py"]


def test_gitignore_holds_at_every_level_and_can_be_negated(tmp_path):
    files = {
        ".gitignore": "*.txt\nbuild/\n/top.md\n",
        "top.md": "x",
        "a.txt": "x",
        "build/b.md": "x",
        "sub/top.md": "kept",
        "sub/.gitignore": "!keep.txt\nlocal.md\n",
        "sub/keep.txt": "kept",
        "sub/local.md": "x",
        "sub/other.txt": "x",
    }
    report = CorpusReport()
    assert ids(write(tmp_path, files), report=report) == ["sub/keep.txt", "sub/top.md"]
    assert "build/" in report.skipped["ignored by .gitignore"]


def test_gitignore_above_the_folder_counts_unless_it_ignores_the_folder_itself(tmp_path):
    write(
        tmp_path,
        {".git/HEAD": "", ".gitignore": "*.log\ndata/\n", "src/a.log": "x", "src/a.md": "x", "data/d.log": "x"},
    )
    assert ids(tmp_path / "src") == ["a.md"]
    assert ids(tmp_path / "data") == ["d.log"]


def test_links_never_leave_the_folder_or_loop(tmp_path):
    root = write(tmp_path / "root", {"a.md": "a text", "sub/b.md": "b text"})
    write(tmp_path, {"outside.md": "secret", "away/c.md": "secret"})
    (root / "link.md").symlink_to(tmp_path / "outside.md")
    (root / "away").symlink_to(tmp_path / "away")
    (root / "sub" / "loop").symlink_to(root)
    (root / "broken.md").symlink_to(root / "missing.md")
    report = CorpusReport()
    assert ids(root, report=report) == ["a.md", "sub/b.md"]
    assert sorted(report.skipped["link that is broken or leaves the folder"]) == ["away", "broken.md", "link.md"]


def test_a_single_file_is_named_by_itself(tmp_path):
    write(tmp_path, {"notes.md": "# T\n\nsome text"})
    assert ids(tmp_path / "notes.md") == ["notes.md"]


@pytest.mark.parametrize("field", ["text", "content", "body", "page_content"])
def test_jsonl_fields(tmp_path, field):
    record = {field: "hello there world", "id": 7, "title": "T", "metadata": {"a": 1, "deep": {"b": 2}}, "lang": "en"}
    write(tmp_path, {"d.jsonl": jsonl(record, {field: "second"})})
    first, second = iter_documents(tmp_path / "d.jsonl")
    assert (first.id, first.title, first.text) == ("7", "T", "hello there world")
    assert first.metadata == {"a": 1, "deep": {"b": 2}, "lang": "en"}
    assert second.id == "d.jsonl:2"


def test_repeated_ids_are_made_unique(tmp_path):
    write(tmp_path, {"d.jsonl": jsonl({"id": "a", "text": "one"}, {"id": "a", "text": "two"})})
    first, second = ids(tmp_path / "d.jsonl")
    assert first == "a" and re.fullmatch("a#[0-9a-f]{8}", second)
    items = [{"id": "a", "text": text, "title": title} for text, title in (("x", ""), ("y", ""), ("y", ""), ("y", "T"))]
    named = ids(items)
    assert named[2] == f"{named[1]}#2" and len(set(named)) == len(named)


def test_pieces_of_one_source_are_one_document_and_named_by_their_text():
    from langchain_core.documents import Document as LangChainDocument

    def pieces(*texts):
        return [LangChainDocument(page_content=text, metadata={"source": "a.pdf", "page": 1}) for text in texts]

    def names(*texts):
        chunks = load_corpus(pieces(*texts), deduplicate=False).chunks
        assert {chunk.document_id for chunk in chunks} == {chunk.metadata["source"] for chunk in chunks} == {"a.pdf"}
        return [chunk.id for chunk in chunks]

    one, two, three, four = names("one", "two", "three", "four")
    assert names("four", "new", "two", "one")[::2] == [four, two] and names("three") == [three]
    assert len({*names("one", "one", "two", "one"), one}) == 4, "equal pieces are counted"
    assert ids(pieces("one", "two")) == ["a.pdf", "a.pdf"]
    other = [Document("a.pdf", "a document of that name"), *pieces("one", "two")]
    assert ids(other)[0] == "a.pdf" and len(set(ids(other))) == 3, "a document of one piece shares its id with none"


def test_beir_reads_the_corpus_and_never_queries_or_judgements(tmp_path):
    write(tmp_path, {"corpus.jsonl": jsonl({"_id": "d1", "title": "", "text": "the answer"})})
    write(tmp_path, {"queries.jsonl": jsonl({"_id": "q1", "text": "the question"}), "qrels/test.tsv": "q1\td1\t1\n"})
    write(tmp_path, {"notes.md": "beside it"})
    assert ids(tmp_path) == ["d1"]


def test_parquet(tmp_path, monkeypatch):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "d.parquet"
    parquet.write_table(arrow.table({"id": ["a", "b"], "text": ["one text", None], "year": [1, 2]}), path)
    report = CorpusReport()
    (document,) = iter_documents(path, report=report)
    assert (document.id, document.text, document.metadata) == ("a", "one text", {"year": 1})
    assert sum(map(len, report.skipped.values())) == 1
    parquet.write_table(arrow.table({"foo": ["a"]}), path)
    with pytest.raises(CorpusError, match=r"no text column.*found foo"):
        ids(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CorpusError, match="not a readable Parquet"):
        ids(path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"revela-rag\[parquet\]"):
        ids(path)


def test_damaged_parquet_is_named_and_rows_that_are_no_text_are_skipped(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "d.parquet"
    texts = [f"text {number} {number * 7919}" for number in range(5000)]
    parquet.write_table(arrow.table({"text": texts}), path, row_group_size=1000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"d\.parquet is damaged or cannot be read beyond row \d+: "):
        ids(path)

    offsets, values = arrow.array([0, 5, 10, 15], arrow.int32()).buffers()[1], arrow.py_buffer(b"first\xff\xfebadthird")
    bad = arrow.Array.from_buffers(arrow.string(), 3, [None, offsets, values])
    parquet.write_table(arrow.table({"text": bad}), path)
    report = CorpusReport()
    assert [document.text for document in iter_documents(path, report=report)] == ["first", "third"]
    assert report.skipped == {"row with a value that cannot be read (UnicodeDecodeError)": ["d.parquet:2"]}


def test_iterables_of_foreign_objects():
    from langchain_core.documents import Document as LangChainDocument
    from llama_index.core.schema import Document as LlamaDocument
    from llama_index.core.schema import NodeWithScore, TextNode

    items = [
        Document("own", "own text"),
        LangChainDocument(page_content="chain text", metadata={"source": "a.py", "n": 1, "list": [1]}),
        LangChainDocument(page_content="chain text two", id="lc"),
        TextNode(text="node text", id_="n1", metadata={"k": "v"}),
        LlamaDocument(text="llama text", doc_id="l1"),
        NodeWithScore(node=TextNode(text="scored text", id_="n2"), score=1.0),
        {"text": "mapping text", "title": "T"},
        "bare text",
    ]
    documents = list(iter_documents(items))
    assert [d.id for d in documents] == ["own", "a.py", "lc", "n1", "l1", "n2", "item-6", "item-7"]
    assert [d.text.split()[0] for d in documents] == [
        "own",
        "chain",
        "chain",
        "node",
        "llama",
        "scored",
        "mapping",
        "bare",
    ]
    assert documents[1].metadata == {"source": "a.py", "n": 1, "list": [1]}
    assert documents[3].metadata == {"k": "v"}


def test_an_item_that_is_no_document_is_named():
    with pytest.raises(CorpusError, match="Item 1 is a int"):
        list(iter_documents(["fine text", 3]))
    with pytest.raises(CorpusError, match="NoneType"):
        iter_documents(None)


def test_records_that_hold_code_are_recognised():
    java = "package a;\n\nclass A {\n  int b() {\n    return 1;\n  }\n}\n"
    records = [
        {"id": "1", "title": "src/A.java", "text": java},
        {"id": "2", "text": "def f(x):\n    return x + 1\n"},
        {"id": "3", "text": "/** Doc. */\n" + java},
        {"id": "4", "title": "Node.js", "text": "A runtime that runs scripts outside of a browser, written in C++."},
        {"id": "5", "text": "public void f(int a) throws E — Does something; see also g(int) and more (as always)."},
        {"id": "6", "text": "import duties rose by five percent\nand the class of goods was extended:"},
        {"id": "7", "text": "func Add(a, b int) int {\n\treturn a + b\n}\n"},
        {"id": "8", "text": "fn add(a: i32) -> i32 {\n    a + 1\n}\n"},
        {"id": "9", "text": "const f = (x) => {\n  return x;\n};\n"},
        {"id": "10", "text": "#include <stdio.h>\nint main(void) {\n  return 0;\n}\n"},
        {"id": "11", "text": "# Title\n\nSome text\n\n## More\n\nText"},
    ]
    formats = {d.id: d.format for d in iter_documents(records)}
    assert formats.pop("10") in ("c", "cpp")
    assert formats == {
        "1": "java", "2": "python", "3": "java", "4": "text", "5": "text", "6": "text", "7": "go", "8": "rust",
        "9": "javascript", "11": "markdown",
    }  # fmt: skip


def test_load_counts_and_reports(tmp_path):
    write(
        tmp_path,
        {"a.md": "Some text here.", "b.md": "some  TEXT here.", "c.bin": b"\0\1", "d.md": "Other words there."},
    )
    corpus = load_corpus(tmp_path)
    assert len(corpus) == 2 and [c.document_id for c in corpus] == ["a.md", "d.md"]
    assert corpus.report.documents == 3 and corpus.report.exact_duplicates == 1
    assert corpus.report.skipped == {"unsupported type .bin": ["c.bin"]}
    assert "2 chunks from 3 documents" in corpus.report.summary() and "c.bin" in corpus.report.summary()
    assert json.loads(json.dumps(corpus.report.as_dict()))["chunks"] == 2
    assert "dropped 1 exact and 0 near duplicates" in corpus.report.summary()
    everything = load_corpus(tmp_path, deduplicate=False)
    assert len(everything) == 3 and "duplicates" not in everything.report.summary()


def test_loading_twice_gives_the_same_chunks(tmp_path):
    write(tmp_path, {"a.md": "# H\n\nSome text. " * 50, "b.py": "def f():\n    return 1\n"})
    assert load_corpus(tmp_path).chunks == load_corpus(tmp_path).chunks


def test_progress_goes_to_standard_error(tmp_path, capsys):
    write(tmp_path, {"a.md": "Some text here."})
    load_corpus(tmp_path, show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "Reading" in captured.err
    load_corpus(tmp_path)
    assert capsys.readouterr().err == ""
