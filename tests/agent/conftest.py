from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revela_rag.agent import CorpusTools
from revela_rag.corpus import load_corpus
from revela_rag.index import Index

HANDBOOK = {
    "docs/keys.md": "# Keys\n\nHow keys are kept.\n\n## Rotate the keys\n\nRun the rotate command every month.\n"
    "It makes a new key.\n\n## Lost keys\n\nTell the office at once.\n",
    "docs/leave.md": "# Leave\n\nThirty days of paid leave a year.\n",
    "src/dates.py": '"""Dates."""\n\nimport re\n\n\nclass Parser:\n    """Parses."""\n\n    strict = True\n\n'
    '    def parse(self, text):\n        """Parse an ISO date."""\n        year, month, day = text.split("-")\n'
    "        check(month)\n        return int(year), int(month), int(day)\n\n    def close(self):\n        pass\n\n\n"
    'def check(month):\n    """Months are 1 to 12."""\n    if not 1 <= int(month) <= 12:\n'
    '        raise ValueError(f"no month {month}")\n    return month\n',
}


class FakeEncoder:
    """Vectors by the letters of a text; no model."""

    query_prompt = document_prompt = ""
    max_length = 16
    fingerprint = "f" * 64
    dimension = 26
    model_path = "/models/letters"

    def encode_documents(self, texts: list[str], *, show_progress: bool = False) -> np.ndarray:
        rows = np.zeros((len(texts), 26), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text.lower():
                if "a" <= letter <= "z":
                    row[ord(letter) - 97] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    def encode_queries(self, texts: list[str], *, show_progress: bool = False) -> np.ndarray:
        return self.encode_documents(texts)


def build(source: Any, path: Path, **options: Any) -> Index:
    chunks = load_corpus(source, deduplicate=False, **options).chunks
    return Index.build(chunks, encoder=FakeEncoder(), path=path)  # type: ignore[arg-type]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., CorpusTools]]:
    """Makes the tools over what `load_corpus` reads, or over a folder with some files."""
    opened: list[Index] = []

    def make(source: Any, *, max_characters: int = 20_000, seconds: float = 10.0, **options: Any) -> CorpusTools:
        if isinstance(source, dict):
            folder = tmp_path / f"source-{len(opened)}"
            for name, text in source.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
            source = folder
        opened.append(build(source, tmp_path / f"index-{len(opened)}", **options))
        return CorpusTools(opened[-1], max_characters=max_characters, seconds=seconds)

    yield make
    for index in opened:
        index.close()


@pytest.fixture
def handbook(made: Callable[..., CorpusTools]) -> CorpusTools:
    return made(HANDBOOK)
