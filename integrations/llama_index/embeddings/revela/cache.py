"""LlamaIndex keys its embedding cache by text alone; here the key also names the model and the role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from llama_index.core.storage.kvstore.types import BaseKVStore

__all__ = ["RoleCache", "embedding_role"]

Role = Literal["query", "document"]

_role: ContextVar[Role] = ContextVar("revela_embedding_role", default="document")


@contextmanager
def embedding_role(role: Role) -> Iterator[None]:
    """What is embedded within this block (in this thread or task) is a query, or a document."""
    token = _role.set(role)
    try:
        yield
    finally:
        _role.reset(token)


class RoleCache(BaseKVStore):
    """A key-value store seen by one model: its keys also name the model and the role of the text.

    Args:
        store: where the vectors are kept; several models may share it.
        fingerprint: the model's.
    """

    def __init__(self, store: BaseKVStore, fingerprint: str) -> None:
        self.store: BaseKVStore = store.store if isinstance(store, RoleCache) else store
        self.fingerprint = fingerprint

    def _key(self, text: str) -> str:
        return f"{self.fingerprint}/{_role.get()}/{text}"

    def put(self, key: str, val: dict, collection: str = "data") -> None:
        """Store ``val`` for a text."""
        self.store.put(self._key(key), val, collection)

    async def aput(self, key: str, val: dict, collection: str = "data") -> None:
        """Store ``val`` for a text."""
        await self.store.aput(self._key(key), val, collection)

    def get(self, key: str, collection: str = "data") -> dict | None:
        """What is stored for a text, or None."""
        return self.store.get(self._key(key), collection)

    async def aget(self, key: str, collection: str = "data") -> dict | None:
        """What is stored for a text, or None."""
        return await self.store.aget(self._key(key), collection)

    def get_all(self, collection: str = "data") -> dict[str, dict]:
        """Everything in the store underneath, under its full keys."""
        return self.store.get_all(collection)

    async def aget_all(self, collection: str = "data") -> dict[str, dict]:
        """Everything in the store underneath, under its full keys."""
        return await self.store.aget_all(collection)

    def delete(self, key: str, collection: str = "data") -> bool:
        """Forget a text; False where nothing was stored for it."""
        return self.store.delete(self._key(key), collection)

    async def adelete(self, key: str, collection: str = "data") -> bool:
        """Forget a text; False where nothing was stored for it."""
        return await self.store.adelete(self._key(key), collection)
