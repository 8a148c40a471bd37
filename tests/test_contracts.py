"""What holds across packages: imports stay cheap, serving never loads training, every public name exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "revela_rag": ROOT / "revela_rag",
    "revela_training": ROOT / "training" / "revela_training",
    "chroma_revela": ROOT / "integrations" / "chroma_revela",
    "langchain_revela": ROOT / "integrations" / "langchain_revela",
    "llama_index": ROOT / "integrations" / "llama_index",
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_library_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "faiss", "chromadb", "numpy", "revela_training")
    out = run(f"import sys, revela_rag; print([m for m in {heavy!r} if m in sys.modules])")
    assert out.strip() == "[]"


def imported(path: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_depend_on_revela_rag_and_never_on_each_other(package: str) -> None:
    others = {*PACKAGES, "peft", "accelerate"} - {"revela_rag", package}
    others -= {"peft", "accelerate"} if package == "revela_training" else set()
    for path in PACKAGES[package].rglob("*.py"):
        # the command line and the demo put all packages to work, inside functions
        lazily = package == "revela_rag" and path.relative_to(PACKAGES[package]).parts[0] in ("cli", "demo")
        assert not imported(path, top_level_only=lazily) & others, path


@pytest.mark.parametrize(
    "module",
    [
        "revela_rag",
        "revela_rag.agent",
        "revela_rag.api",
        "revela_rag.corpus",
        "revela_rag.index",
        "revela_rag.evaluation",
        "revela_rag.parts",
        "revela_training",
        "chroma_revela",
        "langchain_revela",
        "llama_index.embeddings.revela",
        "llama_index.postprocessor.revela",
        "llama_index.retrievers.revela",
        "llama_index.vector_stores.revela",
    ],
)
def test_every_public_name_exists_and_is_documented(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{module}.{name} has no docstring"


def test_the_function_adapt_is_never_shadowed_by_a_module() -> None:
    out = run("import revela_training.job; from revela_training import adapt; print(callable(adapt))")
    assert out.strip() == "True"


def test_nothing_is_unpickled() -> None:
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for package in PACKAGES.values():
        for path in package.rglob("*.py"):
            assert not imported(path, top_level_only=False) & forbidden, path
            assert "torch.load(" not in path.read_text(encoding="utf-8"), path


def test_no_file_is_longer_than_500_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("revela_rag", "training", "integrations", "examples", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 500
    }
    assert not long


@pytest.mark.slow
def test_import_takes_less_than_a_third_of_a_second() -> None:
    def spent() -> float:
        """Processor time of child processes, which other processes beside them lengthen little."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def best(code: str) -> float:
        times = []
        for _ in range(5):
            start = spent()
            run(code)
            times.append(spent() - start)
        return min(times)

    assert best("import revela_rag") - best("pass") < 0.3
