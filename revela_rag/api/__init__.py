"""Embeddings that live behind an API: asked for in batches, kept on disk, and mapped by what an adaptation learned."""

from __future__ import annotations

from revela_rag.api.cost import CostEstimate
from revela_rag.api.embeddings import ApiEmbeddings, is_api
from revela_rag.api.maps import EmbeddingMap

__all__ = ["ApiEmbeddings", "CostEstimate", "EmbeddingMap", "is_api"]
