"""Vectors and texts that a vector store of another library holds already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from revela_rag.api.answers import checked
from revela_rag.api.vectors import ApiVectors
from revela_rag.errors import EmbeddingError, IndexingError

__all__ = ["StoredVectors", "check_base", "read_vectors"]

_PAGE = 1000
_SAMPLE = 8  # texts that are embedded again to see whether the store was filled by the base
_SAME = 0.999
_RELATED = 0.5  # vectors of another model have cosines around 0


@dataclass(frozen=True)
class StoredVectors:
    """Texts with the vectors that a store has for them.

    Attributes:
        ids: n ids.
        texts: n texts.
        vectors: (n, d) float32, of any length but zero.
        documents: n names of the documents that the texts are pieces of, as far as metadata tell; else the ids.
        total: how many the store holds, of which these may be a sample.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    vectors: np.ndarray
    documents: Sequence[str]
    total: int

    def __len__(self) -> int:
        return len(self.ids)


def read_vectors(store: Any, *, limit: int | None = None, seed: int = 0) -> StoredVectors:
    """Read a store: a Chroma collection, or a LangChain vector store over Chroma, FAISS or memory.

    Nothing is embedded, and Chroma builds no embedding function. What has no text is left out.

    Args:
        store: see above, or ``StoredVectors`` of your own, which come back as they are.
        limit: at most so many, drawn at random; None reads all.
        seed: of the draw.

    Raises:
        IndexingError: it gives no vectors, or holds no texts.
    """
    if isinstance(store, StoredVectors):
        return store
    ids = _ids(store)
    chosen = ids
    if limit is not None and len(ids) > limit:
        chosen = [ids[i] for i in sorted(np.random.default_rng((seed, 8)).permutation(len(ids))[:limit].tolist())]
    rows = [row for row in _rows(store, chosen) if row[1] and row[1].strip()]
    if not rows:
        raise IndexingError(f"The store {type(store).__name__} holds {len(ids)} entries and no text among those read.")
    names, texts, vectors, metadata = zip(*rows, strict=True)
    documents = [str((of_one or {}).get("source") or name) for name, of_one in zip(names, metadata, strict=True)]
    return StoredVectors(names, texts, np.asarray(vectors, dtype=np.float32), documents, len(ids))


def _ids(store: Any) -> list[str]:
    if _is_chroma(store):
        return list(store.get(include=[])["ids"])
    if isinstance(getattr(store, "store", None), dict):  # LangChain's InMemoryVectorStore
        return list(store.store)
    if hasattr(store, "index_to_docstore_id") and hasattr(store, "docstore"):  # LangChain's FAISS
        return [store.index_to_docstore_id[row] for row in range(store.index.ntotal)]
    raise IndexingError(
        f"A store of type {type(store).__name__} does not give its vectors: give a Chroma collection, LangChain's "
        "Chroma, FAISS or InMemoryVectorStore, or read them yourself, as "
        "revela_rag.api.StoredVectors(ids, texts, vectors, ...)."
    )


def _is_chroma(store: Any) -> bool:
    return callable(getattr(store, "get", None)) and (
        hasattr(store, "configuration_json") or hasattr(store, "_collection")
    )


def _rows(store: Any, ids: list[str]) -> Iterator[tuple[str, str, Any, Any]]:
    """Id, text, vector and metadata of each entry."""
    if _is_chroma(store):
        for start in range(0, len(ids), _PAGE):
            some = ids[start : start + _PAGE]
            page = store.get(ids=some, include=["documents", "embeddings", "metadatas"])
            yield from zip(page["ids"], page["documents"], page["embeddings"], page["metadatas"], strict=True)
    elif isinstance(getattr(store, "store", None), dict):
        for name in ids:
            entry = store.store[name]
            yield name, entry["text"], entry["vector"], entry["metadata"]
    else:
        rows = {name: row for row, name in store.index_to_docstore_id.items()}
        for name in ids:
            document = store.docstore.search(name)
            yield name, document.page_content, store.index.reconstruct(rows[name]), document.metadata


def check_base(vectors: ApiVectors, stored: StoredVectors) -> float:
    """Embed a few of the texts again, to see whether it was the base that filled the store.

    Returns:
        The median cosine of stored and new vectors: 1 where texts were embedded as they are; less where something
        stood before them, such as metadata.

    Raises:
        EmbeddingError: another model filled it.
    """
    kept = checked(stored.vectors[:1], stored.texts[:1], "The store", None)
    dimension = vectors.known.dimension
    if kept.shape[1] != dimension:
        raise EmbeddingError(
            f"The store holds vectors of length {kept.shape[1]}, {vectors.name!r} gives {dimension}: it was filled by "
            "another model. Give the embeddings that filled it."
        )
    rows = np.linspace(0, len(stored) - 1, min(_SAMPLE, len(stored))).astype(int)
    texts = [stored.texts[row] for row in rows]
    kept = checked(stored.vectors[rows], texts, "The store", dimension)
    cosine = float(np.median(np.einsum("nd,nd->n", kept, vectors.embed(texts, "document"))))
    if cosine < _RELATED:
        raise EmbeddingError(
            f"The store's vectors of {len(texts)} texts are not those that {vectors.name!r} gives for them (median "
            f"cosine {cosine:.3f}): it was filled by another model. Give the embeddings that filled it."
        )
    return cosine
