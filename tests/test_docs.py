"""The Python examples of README and docs run as they stand, on a small folder of prose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_are_examples() -> None:
    assert len(blocks("README.md")) >= 3
    assert len(blocks("docs/guide.md")) >= 1


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}  # a block goes on from those before it
    for code in blocks("docs/guide.md"):
        exec(compile(code, "docs/guide.md", "exec"), names)
    assert capsys.readouterr().out


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("README.md", "CHANGELOG.md", "docs/guide.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for number, section in enumerate(re.split(r"(?m)^(?=#)", text)):
            (docs / f"{Path(name).stem}-{number}.md").write_text(section, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for code in blocks("README.md"):
        code = code.replace(
            'output="my-retriever")', 'output="my-retriever", max_steps=6, group_size=4, groups_per_step=1)', 1
        )
        exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "base model" in out or "adapted" in out
    assert (tmp_path / "my-retriever" / "modules.json").is_file()


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make demo", "make test", "revela adapt", "revela index", "revela search", "revela evaluate"):
        assert command in readme
