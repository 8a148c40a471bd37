from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from revela_rag.cli.index import Kind, Store
from revela_rag.cli.search import _shown, parse_filter
from revela_rag.corpus import Chunk
from revela_rag.index import Hit, facade
from revela_rag.index.stores import STORES

from .test_app import shell


@pytest.fixture
def index(docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> Path:
    revela("-q", "index", docs, "--model", model, "--output", tmp_path / "ix")
    return tmp_path / "ix"


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        ({"start_line": 7, "end_line": 9}, "a.file:7"),
        ({"page": 2}, "a.file p. 2"),
        ({"slide": 3}, "a.file slide 3"),
        ({"cell": 4}, "a.file cell 4"),
        ({"table": "Stock", "row": 5, "start_line": 1, "end_line": 2}, "a.file row 5"),
        ({"start_line": 7, "end_line": 9, "page": 2}, "a.file:7"),
        ({}, "a.file"),
    ],
)
def test_a_hit_shows_the_place_in_its_file(metadata: dict[str, Any], place: str) -> None:
    hit = Hit(Chunk("id", "Words.", "a.file", title="Title", metadata=metadata), 0.5, 1)
    assert _shown(hit) == f" 1  0.5000  {place}  Title\n    Words.\n"


def test_every_store_and_every_kind_can_be_chosen() -> None:
    assert [store.value for store in Store] == list(STORES)
    assert tuple(kind.value for kind in Kind) == get_args(facade.Kind) == STORES["faiss"].kinds


def test_build_then_sync(docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    target = tmp_path / "ix"
    first = json.loads(revela("-q", "index", docs, "-m", model, "-o", target, "--json").stdout)
    assert first["chunks"] == 3 and first["sync"] is None and first["store"] == "faiss"
    assert first["corpus"]["documents"] == 2 and first["model"] == str(model)
    (docs / "guide.md").write_text("# Guide\n\n## Rotate the keys\n\nRotate them every single day.\n", encoding="utf-8")
    second = json.loads(revela("-q", "index", docs, "-o", target, "--json").stdout)
    assert second["chunks"] == 2
    assert second["sync"]["unchanged"] == 1 and second["sync"]["deleted"] + second["sync"]["updated"] >= 1
    third = json.loads(revela("-q", "index", docs, "-o", target, "--sync", "--json").stdout)
    assert third["sync"] == {"added": 0, "updated": 0, "deleted": 0, "unchanged": 2, "embedded": 0, "kept": 0}
    fourth = json.loads(revela("-q", "index", docs, "-m", model, "-o", target, "--overwrite", "--json").stdout)
    assert fourth["sync"] is None and fourth["chunks"] == 2


def test_fields_of_records_can_be_named(model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    file = tmp_path / "tickets.csv"
    file.write_text("number,topic,problem,text\n7,Keys,rotate the keys,none\n8,Linux,install on linux,none\n")
    arguments = ("--text-field", "problem", "--title-field", "topic", "--id-field", "number")
    revela("-q", "index", file, "-m", model, "-o", tmp_path / "ix", *arguments)
    hits = json.loads(revela("-q", "search", tmp_path / "ix", "install", "--lexical", "--json").stdout)
    found = hits["hits"] if isinstance(hits, dict) else hits
    assert [(hit["document_id"], hit["title"], hit["text"]) for hit in found[:1]] == [
        ("8", "Linux", "install on linux")
    ]


def test_human_output_names_the_next_command(
    docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]
) -> None:
    result = revela("-q", "index", docs, "-m", model, "-o", tmp_path / "ix")
    assert "3 chunks (faiss)" in result.stdout and "2 documents" in result.stdout
    assert "revela search" in result.stderr


def test_a_new_index_needs_a_model(docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    assert "Pass --model" in revela("index", docs, "-o", tmp_path / "ix", code=1).stderr
    assert "no index in" in revela("index", docs, "-o", tmp_path / "ix", "-m", model, "--sync", code=1).stderr
    assert not (tmp_path / "ix").exists()


def test_errors_of_index(index: Path, docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    assert "uses faiss, not chroma" in revela("index", docs, "-o", index, "--store", "chroma", code=1).stderr
    assert "of kind flat, not hnsw" in revela("index", docs, "-o", index, "--kind", "hnsw", code=1).stderr
    assert "nowhere" in revela("index", tmp_path / "nowhere", "-o", index, code=1).stderr
    assert "./no-model" in revela("index", docs, "-o", tmp_path / "b", "-m", "./no-model", code=1).stderr
    (tmp_path / "empty").mkdir()
    revela("index", tmp_path / "empty", "-o", tmp_path / "c", "-m", model, code=1)
    assert not (tmp_path / "c").exists(), "nothing half-written is left"
    revela("index", docs, "-o", index, "--sync", "--overwrite", code=2)
    revela("index", docs, "-o", index, "--store", "shelf", code=2)


def test_every_source_is_indexed_unless_told_otherwise(model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    policy, words = "Rotate the keys every month.", " ".join(f"word{number}" for number in range(70))
    texts = {"a": policy, "b": policy, "c": f"{words}. The limit is 10 MB.", "d": f"{words}. The limit is 50 MB."}
    records = [{"id": name, "text": text, "tenant": name} for name, text in texts.items()]
    source, target = tmp_path / "d.jsonl", tmp_path / "ix"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    def found(*arguments: str | Path) -> set[str]:
        revela("-q", "index", source, "-o", target, *arguments)
        hits = [
            json.loads(revela("search", target, "limit keys", "--filter", f"tenant={name}", "--json").stdout)["hits"]
            for name in texts
        ]
        return {hit["document_id"] for some in hits for hit in some}

    assert found("-m", model) == set(texts)
    assert found("--deduplicate") == {"a", "c", "d"}  # the model reads d in pieces, and the last is no copy
    assert found() == set(texts)


def test_what_cannot_be_read_stays_in_the_index(
    index: Path, docs: Path, revela: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (docs / "sub").mkdir()
    (docs / "sub" / "boats.md").write_text("Boats sail the sea at night.", encoding="utf-8")
    revela("-q", "index", docs, "-o", index)
    scan, read = os.scandir, Path.read_bytes

    def broken_scan(path: Any) -> Any:
        if str(path).endswith("/sub"):
            raise OSError(5, "Input/output error")
        return scan(path)

    def broken_read(path: Path) -> bytes:
        if path.name == "guide.md":
            raise OSError(5, "Input/output error")
        return read(path)

    (docs / "dates.py").write_text("def new(owl):\n    return owl.hunt(mice) + mice.owls\n", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", broken_scan)
        patch.setattr(Path, "read_bytes", broken_read)
        result = revela("-q", "index", docs, "-o", index, "--json")
    assert "Kept 3 chunks of what could not be read: sub, guide.md\n" in result.stderr
    found = json.loads(result.stdout)
    assert found["sync"] | {"embedded": 1} == {
        "added": 1, "updated": 0, "deleted": 1, "unchanged": 0, "embedded": 1, "kept": 3,
    }  # fmt: skip
    assert found["corpus"]["unreadable"] == {"sub": "Input/output error", "guide.md": "Input/output error"}
    (docs / "sub" / "boats.md").unlink()
    result = revela("-q", "index", docs, "-o", index)
    assert "0 added, 0 updated, 1 deleted, 3 unchanged" in result.stdout and "Kept" not in result.stderr


def test_an_index_of_another_source_is_refused(
    index: Path, docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "boats.md").write_text("Boats sail the sea at night.", encoding="utf-8")
    for flag in ([], ["--sync"]):
        refused = revela("-q", "index", tmp_path / "other", "-o", index, *flag, code=1).stderr
        assert "holds 2 documents, and none of them is among the 1 of" in refused
        assert "--overwrite" in refused and "--output" in refused
    same = json.loads(revela("-q", "index", docs, "-o", index, "--json").stdout)
    assert same["sync"]["unchanged"] == 3 and same["sync"]["deleted"] == 0
    revela("-q", "index", tmp_path / "other", "-o", index, "-m", model, "--overwrite")
    (tmp_path / "other" / "owls.md").write_text("Owls hunt mice.", encoding="utf-8")
    (tmp_path / "other" / "boats.md").write_text("Boats are for the day.", encoding="utf-8")
    assert "2 added, 0 updated, 1 deleted" in revela("-q", "index", tmp_path / "other", "-o", index).stdout


def test_kinds(docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    built = revela("-q", "index", docs, "-m", model, "-o", tmp_path / "ix", "--kind", "ivf-sq8", "--json")
    assert json.loads(built.stdout)["kind"] == "ivf-sq8"
    again = json.loads(revela("-q", "index", docs, "-o", tmp_path / "ix", "--json").stdout)
    assert again["kind"] == "ivf-sq8" and again["sync"]["unchanged"] == 3
    revela("index", docs, "-m", model, "-o", tmp_path / "b", "--kind", "pq", code=2)


def test_little_memory(docs: Path, model: Path, tmp_path: Path, revela: Callable[..., Any]) -> None:
    small = ("--kind", "rabitq", "--dimensions", "2")
    built = json.loads(revela("-q", "index", docs, "-m", model, "-o", tmp_path / "ix", *small, "--json").stdout)
    assert (built["kind"], built["dimensions"]) == ("rabitq", 2)
    assert set(built["parts"]) == {"texts", "words", "vectors", "rotation"}
    assert built["parts"]["texts"]["disk"] > built["parts"]["texts"]["memory"] == 0
    said = revela("-q", "index", docs, "-o", tmp_path / "ix", *small).stdout
    assert "3 unchanged" in said and "MB on disk" in said and "MB in memory" in said
    assert (
        "keeps 2 dimensions, not 1" in revela("index", docs, "-o", tmp_path / "ix", "--dimensions", "1", code=1).stderr
    )
    assert "--dimensions" in revela("index", docs, "-o", tmp_path / "ix", "--dimensions", "0", code=2).stderr
    told = revela("doctor", tmp_path / "ix").stdout
    assert "rabitq, 3 chunks, 2 of " in told and "rotation" in told and "MB in memory" in told
    assert revela("-q", "search", tmp_path / "ix", "rotate the keys", "--json").stdout


@pytest.mark.parametrize(
    ("flags", "mode"), [([], "hybrid"), (["--dense"], "dense"), (["--hybrid"], "hybrid"), (["--lexical"], "lexical")]
)
def test_search_json(index: Path, revela: Callable[..., Any], flags: list[str], mode: str) -> None:
    result = json.loads(revela("search", index, "rotate the keys", "-k", "2", *flags, "--json").stdout)
    assert result["query"] == "rotate the keys" and result["mode"] == mode
    assert 1 <= len(result["hits"]) <= 2
    best = result["hits"][0]
    assert best["rank"] == 1 and best["document_id"] and best["text"]
    assert (best["cosine"] is None) == (mode == "lexical")
    if mode != "dense":
        assert best["document_id"] == "guide.md" and "rotate" in best["text"]


def test_search_for_people(index: Path, revela: Callable[..., Any]) -> None:
    text = revela("search", index, "parse date", "--lexical").stdout
    assert text.startswith(" 1  ") and "dates.py:1" in text and "def parse_date(text):" in text


def test_search_filters(index: Path, revela: Callable[..., Any]) -> None:
    def found(*arguments: str) -> set[str]:
        hits = json.loads(revela("search", index, "keys", "--json", *arguments).stdout)["hits"]
        return {hit["document_id"] for hit in hits}

    assert found() == {"guide.md", "dates.py"}
    assert found("--filter", "kind=code") == {"dates.py"}
    assert found("--filter", "kind=code", "--filter", "document_id=guide.md") == set()
    assert found("--filter", "kind=code", "--filter", "kind=prose") == {"guide.md", "dates.py"}
    either = '{"$or": [{"kind": "prose"}, {"kind": "x"}]}'
    assert found("--filter", either) == {"guide.md"} and found("--filter", either, "--filter", "kind=code") == set()


def test_a_filter_that_no_chunk_matches_is_named(index: Path, revela: Callable[..., Any]) -> None:
    found = revela("search", index, "how dates are parsed", "--filter", "langage=python")
    assert "Nothing found: no chunk matches --filter langage=python" in found.stderr


def test_filter_values_are_json_scalars_or_text() -> None:
    parsed = parse_filter(["a=3", 'b="3"', "c=true", "d=x=y", "e=[1]", "f=1.5", "g=", "a=4"])
    assert parsed == {"a": [3, 4], "b": "3", "c": True, "d": "x=y", "e": "[1]", "f": 1.5, "g": ""}
    for wrong in ("novalue", "=3"):
        with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
            parse_filter([wrong])


def test_filters_in_json() -> None:
    assert parse_filter(['{"year": {"$gte": 2020}}']) == {"year": {"$gte": 2020}}
    assert parse_filter(["a=3", ' {"b": 1}', '{"b": 2}']) == {"$and": [{"a": 3}, {"b": 1}, {"b": 2}]}
    assert parse_filter(["{}"]) == {}
    for wrong, message in (('{"a": 1', "is no JSON"), ('{"a": {"$gtt": 1}}', "no operator"), ("$or=1", "list of one")):
        with pytest.raises(typer.BadParameter, match=message):
            parse_filter([wrong])


@pytest.mark.parametrize(
    "arguments",
    [("-k", "0"), ("--hybrid", "--lexical"), ("--filter", "novalue"), ("--filter", '{"a":'), ("--mode", "x")],
)
def test_search_wrong_usage(index: Path, revela: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    revela("search", index, "x", *arguments, code=2)


def test_search_with_another_model_is_refused(
    index: Path, tmp_path: Path, model: Path, revela: Callable[..., Any]
) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(model, other)
    (weights,) = other.rglob("model.safetensors")
    tensors = {name: tensor + torch.ones_like(tensor) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    result = revela("search", index, "x", "--model", other, code=1)
    assert "other" in result.stderr and "Traceback" not in result.stderr


WATCH = """
import sys

class Watch:
    asked = []

    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in ("revela_training", "peft", "accelerate") and "revela" in frame.f_code.co_filename:
            self.asked.append(name)

sys.meta_path.insert(0, Watch())
"""


def search_process(index: Path, *flags: str) -> tuple[list[dict[str, Any]], str]:
    """Hits and stderr of a search in a process of its own.

    Stderr ends with what our code imported of training (transformers imports peft by itself where it is installed)
    and with what was loaded.
    """
    code = WATCH + (
        f"sys.argv = ['revela', 'search', {str(index)!r}, 'keys', '--json', *{flags!r}]\n"
        "from revela_rag.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    names = ('torch', 'transformers', 'sentence_transformers', 'sklearn', 'chromadb', 'revela_training')\n"
        "    print(Watch.asked, [m for m in names if m in sys.modules], file=sys.stderr)\n"
    )
    result = shell(code=code)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["hits"], result.stderr


def test_search_loads_no_training_code_and_is_quiet(index: Path) -> None:
    hits, errors = search_process(index)
    assert len(hits) == 3
    assert errors == "[] ['torch']\n"


def test_lexical_search_loads_no_model(index: Path) -> None:
    hits, errors = search_process(index, "--lexical")
    assert hits[0]["document_id"] == "guide.md"
    assert errors == "[] []\n"


def test_parts_of_a_search(index: Path, revela: Callable[..., Any]) -> None:
    arguments = ("-q", "search", index, "rotate the keys")
    plain = json.loads(revela(*arguments, "--json").stdout)["hits"]
    assert "highlights" not in plain[0]
    asked = (*arguments, "--select", "coverage", "--feedback", "3", "--highlights")
    hits = json.loads(revela(*asked, "--json").stdout)["hits"]
    assert sorted(hit["id"] for hit in hits) == sorted(hit["id"] for hit in plain)
    found = [hit for hit in hits if hit["highlights"]]
    start, end = found[0]["highlights"][0]
    assert "otate" in found[0]["text"][start:end]
    assert "  > " in revela(*asked).stdout and "  > " not in revela(*arguments).stdout
    assert "top, mmr, coverage" in revela(*arguments, "--select", "best", code=2).stderr
    assert "--feedback" in revela(*arguments, "--lexical", "--feedback", "3", code=2).stderr
