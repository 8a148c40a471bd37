"""A fake model and small chunks."""

import hashlib

import numpy as np

from revela_rag.corpus.types import Chunk, chunk_id

DIMENSION = 32


class FakeEncoder:
    """Random but repeatable unit vectors; counts what it was asked to embed."""

    query_prompt = document_prompt = ""
    max_length = 16

    def __init__(self, fingerprint: str = "f" * 64, *, dimension: int = DIMENSION) -> None:
        self.fingerprint = fingerprint
        self.dimension = dimension
        self.model_path = f"/models/{fingerprint[:4]}"
        self.embedded: list[str] = []

    def _encode(self, texts) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
            row[:] = np.random.default_rng(seed).normal(size=self.dimension)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    def encode_documents(self, texts, *, show_progress: bool = False) -> np.ndarray:
        self.embedded += texts
        return self._encode(texts)

    def encode_queries(self, texts, *, show_progress: bool = False) -> np.ndarray:
        return self._encode(texts)


def chunk(number: int, *, text: str | None = None, title: str = "", position: int = 0, **metadata) -> Chunk:
    text = f"text {number} calls getUser{number}Name" if text is None else text
    document = f"doc-{number % 4}"
    given = {"number": number, "language": ("python", "java", "go")[number % 3], "even": number % 2 == 0}
    return Chunk(
        id=chunk_id(document, text),
        text=text,
        document_id=document,
        position=position,
        kind="code" if number % 2 else "prose",
        title=title,
        metadata={**given, **metadata},
    )


def chunks(stop: int, start: int = 0) -> list[Chunk]:
    return [chunk(number) for number in range(start, stop)]


def numbers(hits) -> list[int]:
    return [hit.chunk.metadata["number"] for hit in hits]


def unit(rows) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def vectors_in_context(vectors, documents, share=0.35) -> np.ndarray:
    """Vectors that lean to the mean of their document, written out; of documents none of which holds most chunks."""
    mixed = []
    for vector, document in zip(vectors, documents, strict=True):
        together = [other for other, name in zip(vectors, documents, strict=True) if name == document]
        mixed.append(vector if len(together) == 1 else unit((1 - share) * vector + share * unit(np.mean(together, 0))))
    return np.array(mixed)


def contents(path) -> set[str]:
    """What lies in an index directory, the locks aside."""
    return {entry.name for entry in path.iterdir()} - {".lock", ".queue"}
