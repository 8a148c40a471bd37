"""Where vectors live: one entry for each store, whose libraries are imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from revela_rag.errors import IndexingError

if TYPE_CHECKING:
    from revela_rag.index.types import VectorStore

__all__ = ["STORES", "Store", "check_kind", "store_class"]


@dataclass(frozen=True, slots=True)
class Store:
    """A store of vectors.

    Attributes:
        module: where its class is.
        name: of the class, a :class:`revela_rag.index.types.VectorStore`.
        kinds: how it can search, the default first.
    """

    module: str
    name: str
    kinds: tuple[str, ...]


_FAISS_KINDS = ("flat", "hnsw", "ivf-sq8", "rabitq", "int4", "int8", "fp16")
STORES: Mapping[str, Store] = {
    "faiss": Store("revela_rag.index.stores.faiss_store", "FaissStore", _FAISS_KINDS),
    "chroma": Store("revela_rag.index.stores.chroma_store", "ChromaStore", ("flat",)),
}


def store_class(store: str) -> type[VectorStore]:
    """The class behind a store's name.

    Raises:
        IndexingError: there is no such store.
    """
    if store not in STORES:
        raise IndexingError(f"store={store!r} is not one of {', '.join(map(repr, STORES))}.")
    found: type[VectorStore] = getattr(import_module(STORES[store].module), STORES[store].name)
    return found


def check_kind(store: str, kind: str) -> None:
    """IndexingError unless a store can search in that way."""
    able = STORES[store].kinds
    if kind not in able:
        others = "; ".join(f"store={name!r} has {', '.join(each.kinds)}" for name, each in STORES.items())
        raise IndexingError(f"kind={kind!r} is not one of {', '.join(able)} of store={store!r}. ({others})")
