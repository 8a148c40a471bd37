"""A retriever: an index with the settings of one application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from revela_rag.errors import IndexingError
from revela_rag.index import Hit, Index, Mode
from revela_rag.index.filters import Filter, check_filter
from revela_rag.index.types import check_k, check_mode
from revela_rag.model.encoder import Encoder
from revela_rag.parts.pipeline import PartOptions, Parts
from revela_rag.several import IndexGroup

__all__ = ["Retriever", "open_index"]


def open_index(
    index: Index | str | Path,
    *,
    model: str | Path | Encoder | None = None,
    lock_timeout: float | None = None,
    auto_refresh: bool | None = None,
) -> Index:
    """An index as a retriever is given it: open already, or its path and how :meth:`Index.open` shall open it.

    Raises:
        IndexingError: it cannot be opened, or it is open already and there is a setting for opening it.
        IndexMismatchError: it was built by another model than ``model``.
    """
    settings: dict[str, Any] = {"model": model, "lock_timeout": lock_timeout, "auto_refresh": auto_refresh}
    given = {name: value for name, value in settings.items() if value is not None}
    if not isinstance(index, str | Path):
        if given:
            what = f"{', '.join(given)} {'is' if len(given) == 1 else 'are'}"
            raise IndexingError(f"{what} for an index given as a directory; this one is open and has its own.")
        return index
    given.pop("model", None)
    encoder = model if model is None or isinstance(model, Encoder) else Encoder(model)
    return Index.open(index, encoder=encoder, **given)


class Retriever:
    """Search with defaults. Safe to share between threads and event loops.

    Args:
        index: an open index, or the path of one.
        k: how many hits.
        mode: ``"hybrid"``, ``"dense"``, ``"lexical"`` or ``"auto"``, which is hybrid but in very large indexes; see
            :meth:`revela_rag.Index.search`.
        filter: metadata every hit must have; see :meth:`revela_rag.Index.search`.
        lock_timeout: of an index given as a path, see :meth:`revela_rag.Index.open`; None for its default.
        auto_refresh: likewise.
        parts: ``feedback``, ``rerank``, ``rerank_top``, ``select``: see :class:`revela_rag.parts.PartOptions`.

    Raises:
        IndexingError: the index cannot be opened, or a setting is out of range.
    """

    def __init__(
        self,
        index: Index | IndexGroup | str | Path,
        *,
        k: int = 5,
        mode: Mode = "auto",
        filter: Filter | None = None,
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
        **parts: Unpack[PartOptions],
    ) -> None:
        self.k, self.mode, self.filter, self.parts = k, mode, filter, parts
        self.index: Index | IndexGroup = (
            index
            if isinstance(index, IndexGroup)
            else open_index(index, lock_timeout=lock_timeout, auto_refresh=auto_refresh)
        )

    @classmethod
    def over(
        cls,
        indexes: Iterable[Index | str | Path],
        *,
        k: int = 5,
        mode: Mode = "auto",
        filter: Filter | None = None,
        lock_timeout: float | None = None,
        auto_refresh: bool | None = None,
        **parts: Unpack[PartOptions],
    ) -> Retriever:
        """A retriever over several indexes at once, each with its own model, ranked together.

        Args:
            indexes: open indexes, or paths.
            k: as for one index, and so are the others.
            mode: likewise.
            filter: likewise.
            lock_timeout: likewise.
            auto_refresh: likewise.
            parts: likewise, but without ``feedback``.

        Raises:
            IndexingError: an index cannot be opened or is given twice, or a setting is out of range.
        """
        if isinstance(indexes, str | Path):
            raise IndexingError(f"indexes is one path, {str(indexes)!r}; pass a list, or use Retriever(path).")
        group = IndexGroup(
            [open_index(index, lock_timeout=lock_timeout, auto_refresh=auto_refresh) for index in indexes]
        )
        return cls(group, k=k, mode=mode, filter=filter, **parts)

    @property
    def k(self) -> int:
        """How many hits; may be set at any time."""
        return self._k

    @k.setter
    def k(self, k: int) -> None:
        check_k(k)
        self._k = k

    @property
    def mode(self) -> Mode:
        """How to search; may be set at any time."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        check_mode(mode)
        self._mode: Mode = mode

    @property
    def filter(self) -> Filter | None:
        """What every hit must match; may be set at any time."""
        return self._filter

    @filter.setter
    def filter(self, filter: Filter | None) -> None:
        check_filter(filter)
        self._filter = (dict(filter) or None) if isinstance(filter, Mapping) else filter

    @property
    def parts(self) -> PartOptions:
        """What a search does beside finding; may be set at any time."""
        return self._parts

    @parts.setter
    def parts(self, parts: PartOptions) -> None:
        Parts.of(**parts)  # one that cannot be used is refused now, not by the first query
        self._parts: PartOptions = {**parts}

    def search(
        self,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filter: Filter | None = None,
        **parts: Unpack[PartOptions],
    ) -> list[Hit]:
        """Hits for a query, best first.

        Args:
            query: plain text.
            k: instead of the retriever's own.
            mode: likewise.
            filter: likewise; it replaces the retriever's filter, it is not added to it.
            parts: likewise, each by itself.
        """
        together: PartOptions = {**self.parts, **parts}
        return self.index.search(
            query,
            k=self.k if k is None else k,
            mode=self.mode if mode is None else mode,
            filter=self.filter if filter is None else filter,
            **together,
        )

    async def asearch(
        self,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filter: Filter | None = None,
        **parts: Unpack[PartOptions],
    ) -> list[Hit]:
        """:meth:`search` in a worker thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.search, query, k=k, mode=mode, filter=filter, **parts)

    def __repr__(self) -> str:
        return f"Retriever({self.index!r}, k={self.k}, mode={self.mode!r})"
