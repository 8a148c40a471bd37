"""What the manual says is so: its Python runs page by page, its commands parse, its settings and names exist."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
#: Options of other programs that the pages name.
FOREIGN = {"--preload", "--no-deps", "--index-url", "--no-index", "--find-links", "--limit-documents"}
#: Pages that adapt a model of the real size, in a folder of their own; what takes many seconds.
ADAPTING = {"README.md", "docs/adapt.md"}
SLOW = {*ADAPTING, "docs/api-embeddings.md"}
API = [
    "revela_rag",
    "revela_rag.agent",
    "revela_rag.api",
    "revela_rag.parts",
    "chroma_revela",
    "revela_training",
    "langchain_revela",
    *(f"llama_index.{part}.revela" for part in ("embeddings", "postprocessor", "retrievers", "vector_stores")),
]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), flags=re.DOTALL | re.MULTILINE)


def with_python(pages: list[str]) -> Iterator[Any]:
    for page in pages:
        if blocks(page, "python"):
            yield pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())


def test_there_are_examples() -> None:
    found = {page: len(blocks(page, "python")) for page in PAGES}
    assert found["README.md"] >= 2
    assert {page for page, count in found.items() if count} >= {
        f"docs/{name}.md" for name in ("index", "adapt", "search")
    }


@pytest.fixture(scope="module")
def supposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages suppose it: texts in docs, a model in my-retriever, an index of both, some labels."""
    from revela_rag import Encoder, Index
    from revela_rag.model.find import resolve_model

    folder = tmp_path_factory.mktemp("supposed")
    docs = folder / "docs"
    docs.mkdir()
    for number, section in enumerate(re.split(r"(?m)^(?=#)", text("docs/fresh.md"))[:4]):
        (docs / f"fresh-{number}.md").write_text(section, encoding="utf-8")
    model = folder / "my-retriever"
    model.symlink_to(resolve_model("all-MiniLM-L6-v2"))
    Index.from_source(docs, path=folder / "my-index", encoder=Encoder(model)).close()
    Index.from_source(Path(__file__), path=folder / "my-code-index", encoder=Encoder(model)).close()
    labels = folder / "my-labels"
    (labels / "qrels").mkdir(parents=True)
    corpus = {"_id": "d1", "title": "Keys", "text": "Keys are rotated every month."}
    (labels / "corpus.jsonl").write_text(json.dumps(corpus), encoding="utf-8")
    query = {"_id": "q1", "text": "how often are keys rotated?"}
    (labels / "queries.jsonl").write_text(json.dumps(query), encoding="utf-8")
    (labels / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    return folder


@pytest.fixture
def workplace(supposed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder for one page, which is where it runs."""
    place = tmp_path / "place"
    shutil.copytree(supposed, place, symlinks=True)
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("page", with_python([page for page in PAGES if page not in ADAPTING]))
def test_the_python_of_a_page_runs(page: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), names)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", with_python(sorted(ADAPTING)))
def test_the_python_of_a_page_that_adapts_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("README.md", "docs/adapt.md", "docs/fresh.md"):
        for number, section in enumerate(re.split(r"(?m)^(?=#)", text(name))):
            (docs / f"{Path(name).stem}-{number}.md").write_text(section, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    small = 'output="my-retriever", adapter="linear", max_steps=6, group_size=4, groups_per_step=1)'
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        exec(compile(code.replace('output="my-retriever")', small, 1), page, "exec"), names)
    out = capsys.readouterr().out
    assert "base model" in out or "adapted" in out
    assert (tmp_path / "my-retriever" / "modules.json").is_file()


@pytest.fixture(scope="module")
def command_line() -> Any:
    """The command line, whose commands parse and do nothing."""
    from typer.main import get_command

    from revela_rag.cli import app

    group: Any = get_command(app)
    for command in (group, *group.commands.values()):
        command.callback = lambda **_: None
    return group


def told(page: str) -> list[str]:
    """What a reader is told to type after a dollar sign."""
    lines = "".join(blocks(page, "console")).splitlines()
    return [line.removeprefix("$ ").partition("  #")[0] for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("page", [page for page in PAGES if told(page)])
def test_commands_of_a_page_parse(
    page: str, command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("settings.toml", "my-index", "my-labels"):
        Path(name).touch()
    targets = re.findall(r"^([\w-]+):", text("Makefile"), flags=re.MULTILINE)
    for line in told(page):
        program, *arguments = shlex.split(line)
        assert program in ("revela", "make", "pip"), line
        if program == "revela":
            command_line.main(arguments, standalone_mode=False)  # raises what a user would be shown
        elif program == "make":
            assert set(arguments) <= set(targets), line


def options(command: Any) -> set[str]:
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return found | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_options_and_commands_that_exist(page: str, command_line: Any) -> None:
    known = set().union(*(options(command) for command in (command_line, *command_line.commands.values())))
    scripts = r"^python .*|`\w+\.py [^`]*`"  # have options of their own
    written = re.sub(scripts, "", text(page), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", written))
    assert named <= known | FOREIGN
    for name, rest in re.findall(r"`revela ([a-z]+)([^`]*)`", written):
        assert name in command_line.commands, name
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) <= options(command_line.commands[name]), rest


def test_a_wrong_option_would_be_seen(command_line: Any) -> None:
    with pytest.raises(Exception, match="--nonsense"):
        command_line.main(["search", "my-index", "keys", "--nonsense"], standalone_mode=False)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_settings_in_files_exist(page: str, tmp_path: Path) -> None:
    from revela_training import AdaptConfig
    from revela_training.config import load_config

    for number, block in enumerate(blocks(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        assert AdaptConfig().replace(**load_config(path)) != AdaptConfig()
        assert tomllib.loads(block)


def test_the_api_page_has_every_public_name() -> None:
    listed = re.findall(r"^::: ([\w.]+)$", text("docs/api.md"), flags=re.MULTILINE)
    modules = {name: importlib.import_module(name) for name in API}
    public = {f"{name}.{each}": getattr(module, each) for name, module in modules.items() for each in module.__all__}
    assert set(listed) - {"revela_rag.errors"} <= set(public)
    shown = [public[name] for name in listed if name in public]
    missing = {name for name, value in public.items() if not any(value is each for each in shown)}
    assert missing == {"revela_rag.__version__"}


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    """The site's own links and anchors are checked when it is built."""
    for target in re.findall(r"\]\(([^)#\s]+)", text(page)):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_table_of_places_names_files_that_exist() -> None:
    named = [
        path for path in re.findall(r"`([\w./-]+)`", text("CONTRIBUTING.md")) if "/" in path and "NAME" not in path
    ]
    homes = [
        ROOT,
        *(
            ROOT / home
            for home in (
                "revela_rag",
                "revela_rag/corpus",
                "revela_rag/index",
                "revela_rag/model",
                "training/revela_training",
            )
        ),
    ]
    assert len(named) > 20
    for path in named:
        assert any((home / path).exists() for home in homes), path


def test_the_site_has_every_page() -> None:
    listed = set(re.findall(r": ([\w-]+\.md)$", text("mkdocs.yml"), flags=re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_readme_names_every_command() -> None:
    for command in ("make demo", "make test", "revela adapt", "revela index", "revela search", "docs/evaluate.md"):
        assert command in text("README.md")
