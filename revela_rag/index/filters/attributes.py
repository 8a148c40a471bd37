"""The metadata of a generation as filters read it: from SQLite, one column at a time, kept in memory."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from revela_rag.index.filters.columns import Column, Values
from revela_rag.index.filters.values import attributes_of

__all__ = ["Attributes", "described"]

_KEPT = 64  # columns in memory: of 100,000 chunks each takes about a megabyte, and more where every value differs


def described(metadata: Mapping[str, Any], document_id: str, kind: str) -> Mapping[str, Any]:
    """The metadata as filters see it: with the chunk's own fields where it has no key of their names."""
    own = {"document_id": document_id, "kind": kind}
    return {**metadata, **{key: value for key, value in own.items() if metadata.get(key) is None}}


class Attributes:
    """A table of one generation, see :class:`revela_rag.index.filters.Table`.

    Args:
        query: runs SQL with bound values.
        named: gives the rows of chunks with some ids (``"$id"``), or of some documents (``"$document"``).
        current: whether the table ``attributes`` holds what this version writes; else metadata is read instead.
    """

    def __init__(
        self, query: Callable[..., list[Any]], *, named: Callable[[str, Sequence[str]], list[int]], current: bool
    ) -> None:
        self._query = query
        self._named = named
        self._current = current
        self._columns: OrderedDict[str, Column] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def everything(self) -> np.ndarray:
        """(highest row + 1,) bool: which rows there are."""
        rows = np.array([row for (row,) in self._query("SELECT row FROM chunks")], dtype=np.int64)
        mask = np.zeros(int(rows.max(initial=0)) + 1, dtype=bool)
        mask[rows] = True
        return mask

    def column(self, key: str) -> Column:
        """What is under a key; read once."""
        with self._lock:
            column = self._columns.get(key)
            if column is None:
                column = self._read(key) if self._current else self._read_metadata(key)
                self._columns[key] = column
                if len(self._columns) > _KEPT:
                    self._columns.popitem(last=False)
            self._columns.move_to_end(key)
            return column

    def named(self, what: Literal["$id", "$document"], names: Sequence[str]) -> np.ndarray:
        """(n,) int64, rows of chunks with some ids, or of some documents."""
        return np.array(self._named(what, names), dtype=np.int64)

    def each(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Every row with its metadata."""
        last = -1
        sql = "SELECT row, metadata, document_id, kind FROM chunks WHERE row > ? ORDER BY row LIMIT 1000"
        while page := self._query(sql, (last,)):
            for row, metadata, *own in page:
                yield row, described(json.loads(metadata), *own)
            last = page[-1][0]

    def warm(self, before: Attributes) -> None:
        """Read the columns that ``before`` has in memory."""
        with before._lock:
            keys = list(before._columns)
        for key in keys:
            self.column(key)

    def _read(self, key: str) -> Column:
        values = self._query(
            "SELECT type, value, COUNT(*) FROM attributes WHERE key = ? GROUP BY type, value ORDER BY type, value",
            (key,),
        )
        found = self._query("SELECT row FROM attributes WHERE key = ? ORDER BY type, value, row", (key,))
        rows = np.fromiter((row for (row,) in found), dtype=np.int64, count=len(found))
        columns, start = {}, 0
        for type_, group in groupby(values, key=itemgetter(0)):
            _, some, counts = zip(*group, strict=True)
            columns[type_] = Values(some, rows[start : (start := start + sum(counts))], counts)
        return Column(columns)

    def _read_metadata(self, key: str) -> Column:
        found = ((row, *attribute) for row, given in self.each() for attribute in attributes_of(given))
        return Column.of((type_, value, row) for row, name, type_, value in found if name == key)
