"""Embeddings that live behind an API: asked for in batches, kept on disk, and mapped by what an adaptation learned."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from revela_rag.api.cost import CostEstimate
from revela_rag.api.embeddings import ApiEmbeddings, is_api
from revela_rag.api.maps import EmbeddingMap
from revela_rag.api.stores import StoredVectors, read_vectors

if TYPE_CHECKING:
    from revela_rag.api.collections import MappedCollection, map_collection

__all__ = [
    "ApiEmbeddings",
    "CostEstimate",
    "EmbeddingMap",
    "MappedCollection",
    "StoredVectors",
    "is_api",
    "map_collection",
    "read_vectors",
]


def __getattr__(name: str) -> Any:
    if name not in ("MappedCollection", "map_collection"):  # over an encoder, which is imported when it is needed
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("revela_rag.api.collections"), name)
