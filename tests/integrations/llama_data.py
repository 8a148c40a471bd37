"""A LlamaIndex vector store with the six texts, and what tests ask it."""

from __future__ import annotations

from pathlib import Path

from integration_data import TEXTS
from llama_index.core import StorageContext
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode

from llama_index.vector_stores.revela import RevelaVectorStore

QUERY = "how many days of leave"


def filled(path: Path, encoder, **options) -> RevelaVectorStore:
    made = RevelaVectorStore(path / "index", model=encoder, **options)
    made.add(whole_nodes())
    return made


def whole_nodes() -> list[TextNode]:
    return [
        TextNode(
            id_=f"n-{name}",
            text=text,
            metadata={"team": "platform" if name.endswith(".py") else "people", "words": len(text.split())},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)},
        )
        for name, text in TEXTS.items()
    ]


def where(key, value, operator="==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def asked(store, text=QUERY, *, mode="default", k=3, options=(), **fields):
    query = VectorStoreQuery(query_str=text, similarity_top_k=k, mode=VectorStoreQueryMode(mode), **fields)
    return store.query(query, **dict(options))


def context(store) -> StorageContext:
    return StorageContext.from_defaults(vector_store=store)
