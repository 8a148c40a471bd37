from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest


class WordEncoder:
    """A deterministic stand-in for an Encoder: every word has its own random direction."""

    model_path = "words"
    dimension = 64
    fingerprint = "f" * 64
    query_prompt = ""
    document_prompt = ""

    def __init__(self, max_length: int = 256) -> None:
        self.max_length = max_length
        self.encoded: list[str] = []

    def _vector(self, text: str) -> np.ndarray:
        self.encoded.append(text)
        words = text.lower().split()[: self.max_length]
        rows = [np.random.default_rng(zlib.crc32(w.encode())).normal(size=self.dimension) for w in words]
        total = np.sum(rows, axis=0) if rows else np.ones(self.dimension)
        return total / np.linalg.norm(total)

    def encode_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        return np.array([self._vector(text) for text in texts], dtype=np.float32)

    def encode_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        return np.array([self._vector(text) for text in texts], dtype=np.float32)


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


DOCUMENTS = {
    "d1": ("apples", "red apples grow on trees"),
    "d2": ("", "boats sail across the sea"),
    "d3": ("", "trains run on iron rails"),
    "d4": ("", "owls hunt mice at night"),
}
QUERIES = {"q1": "where apples grow", "q2": "boats on the sea", "q3": "what owls hunt"}


def write_beir(
    folder: Path,
    *,
    documents: Mapping[str, tuple[str, str]] = DOCUMENTS,
    queries: Mapping[str, str] = QUERIES,
    splits: Mapping[str, str] | None = None,
) -> Path:
    splits = splits or {"test": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\nq3\td4\t1\n"}
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rows = [{"_id": id_, "text": text} for id_, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split, content in splits.items():
        (folder / "qrels" / f"{split}.tsv").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "tiny")
