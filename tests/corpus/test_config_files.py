"""Configuration files are cut between their top-level keys or blocks."""

import pytest

from revela_rag.corpus import Document, chunk_document, load_corpus
from revela_rag.corpus.formats.names import format_of


def pieces(text, format, max_words=8):
    return [
        (chunk.metadata.get("symbol", ""), chunk.text)
        for chunk in chunk_document(Document("conf", text, format=format), max_words=max_words)
    ]


def values(count):
    return [f"key{n}: value {n}" for n in range(count)]


def test_yaml_is_cut_at_top_level_keys():
    services = "services:\n  " + "\n  ".join(values(4))
    volumes = "# for data\nvolumes:\n  " + "\n  ".join(values(4))
    networks = "networks:\n- one"
    assert pieces(f"{services}\n\n{volumes}\n{networks}\n", "yaml") == [
        ("services", services),
        ("volumes", volumes),
        ("networks", networks),
    ]
    assert pieces("a: 1\nb: 2\nc: [x, y]\n", "yaml") == [("", "a: 1\nb: 2\nc: [x, y]")]


def test_documents_of_a_yaml_file_share_no_piece():
    assert pieces("kind: A\nname: a\n---\n# the second\nkind: B\nname: b\n", "yaml", 40) == [
        ("", "kind: A\nname: a"),
        ("", "---\n# the second\nkind: B\nname: b"),
    ]


def test_a_long_block_is_cut_inside_and_every_piece_names_it():
    made = pieces("jobs:\n  " + "\n  ".join(values(30)), "yaml")
    assert len(made) > 4 and {name for name, _ in made} == {"jobs"}
    assert [line.strip() for _, text in made for line in text.split("\n")] == ["jobs:", *values(30)]


WORDS = "one two three four five six seven"


@pytest.mark.parametrize(
    ("format", "blocks", "names"),
    [
        ("yaml", [f"- name: a {WORDS}", f"- name: b {WORDS}"], ["name: a " + WORDS, "name: b " + WORDS]),
        ("toml", [f"name = '{WORDS}'", f"[tool.x]\na = '{WORDS}'", f"[[bin]]\nc = '{WORDS}'"], ["", "tool.x", "bin"]),
        ("ini", [f"[server]\nport = {WORDS}", f"; about\n[client]\nuser = {WORDS}"], ["server", "client"]),
        ("hcl", [f'variable "a" {{\n b = "{WORDS}"\n}}', f'# x\nlocals {{\n a = {WORDS}}}'], ["variable a", "locals"]),
        ("terraform", [f'output "x" {{\n  v = "{WORDS}"\n}}', f'a = "{WORDS}"'], ["output x", "a"]),
        ("dockerfile", [f"FROM a AS b\nRUN {WORDS}", f"FROM b\nCOPY {WORDS}"], ["FROM a AS b", "FROM b"]),
    ],
)  # fmt: skip
def test_blocks(format, blocks, names):
    assert pieces("\n\n".join(blocks), format) == list(zip(names, blocks, strict=True))


def test_a_file_without_blocks_is_cut_at_blank_lines():
    parts = ["a=one two three four five six seven eight", "b=one two three four five six seven eight nine"]
    assert pieces("\n\n".join(parts), "ini") == [("", part) for part in parts]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("Dockerfile", "dockerfile"), ("Dockerfile.prod", "dockerfile"), ("api.Dockerfile", "dockerfile"),
        ("Containerfile", "dockerfile"), ("Dockerfile.md", "markdown"), ("a/values.YML", "yaml"), ("x.tf", "terraform"),
        ("setup.cfg", "ini"), ("main.hcl", "hcl"), ("readme.xyz", None), ("README", "text"), ("x.lock", None),
    ],
)  # fmt: skip
def test_names(name, format):
    assert format_of(name) == format


def test_files_of_a_folder_and_single_ones(tmp_path):
    (tmp_path / "compose.yaml").write_text("services:\n  web:\n    image: shop\n")
    (tmp_path / "Dockerfile.dev").write_text("FROM python\nRUN pip install shop\n")
    (tmp_path / "pnpm-lock.yaml").write_text("lockfileVersion: 9\n")
    corpus = load_corpus(tmp_path)
    assert [(chunk.title, chunk.text, chunk.metadata["language"]) for chunk in corpus] == [
        ("Dockerfile.dev FROM python", "FROM python\nRUN pip install shop", "dockerfile"),
        ("compose.yaml services", "services:\n  web:\n    image: shop", "yaml"),
    ]
    assert corpus.report.skipped == {"lock file": ["pnpm-lock.yaml"]}
    (chunk,) = load_corpus(tmp_path / "compose.yaml")
    assert (chunk.document_id, chunk.text) == ("compose.yaml", "services:\n  web:\n    image: shop")
