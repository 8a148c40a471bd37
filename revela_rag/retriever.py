"""A retriever: an index with the settings of one application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.types import check_mode

__all__ = ["Retriever"]


class Retriever:
    """Search with defaults. Safe to share between threads and event loops.

    Args:
        index: an open index, or the path of one.
        k: how many hits.
        mode: ``"hybrid"``, ``"dense"``, ``"lexical"`` or ``"auto"``, which is hybrid but in very large indexes; see
            :meth:`revela_rag.Index.search`.
        filter: metadata every hit must have; see :meth:`revela_rag.Index.search`.

    Raises:
        IndexingError: the index cannot be opened, or a setting is out of range.
    """

    def __init__(
        self,
        index: Index | str | Path,
        *,
        k: int = 5,
        mode: Mode = "auto",
        filter: Mapping[str, Any] | None = None,
    ) -> None:
        if k < 1:
            raise IndexingError(f"k={k!r} must be a whole number of at least 1.")
        check_mode(mode)
        self.index = Index.open(index) if isinstance(index, str | Path) else index
        self.k = k
        self.mode: Mode = mode
        self.filter = dict(filter) if filter else None

    def search(
        self,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Hits for a query, best first.

        Args:
            query: plain text.
            k: instead of the retriever's own.
            mode: likewise.
            filter: likewise; it replaces the retriever's filter, it is not added to it.
        """
        return self.index.search(
            query,
            k=self.k if k is None else k,
            mode=self.mode if mode is None else mode,
            filter=self.filter if filter is None else filter,
        )

    async def asearch(
        self,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """:meth:`search` in a worker thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.search, query, k=k, mode=mode, filter=filter)

    def __repr__(self) -> str:
        return f"Retriever({self.index!r}, k={self.k}, mode={self.mode!r})"
