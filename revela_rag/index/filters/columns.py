"""What one key of the metadata holds, in order, so that a comparison finds its rows without looking at each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.index.filters.values import Typed, attributes_of, instant

__all__ = ["Column", "MemoryTable", "Order", "Table", "Values"]

Order = Literal["$gt", "$gte", "$lt", "$lte"]
_NONE = np.empty(0, dtype=np.int64)


class Values:
    """Values in ascending order, and the rows that have each.

    Args:
        values: n of one kind; a value may come more than once.
        rows: (m,) int64, those of the first value, then those of the second, ...
        counts: (n,) int64, how many rows each value has.
    """

    def __init__(self, values: Sequence[Any], rows: np.ndarray, counts: Sequence[int] | np.ndarray) -> None:
        self.values = values
        self.rows = rows
        self._starts = np.cumsum([0, *counts])

    @classmethod
    def unordered(cls, rows: Mapping[Any, Sequence[int]]) -> Values:
        """The values of a mapping."""
        values = sorted(rows)
        listed = [rows[value] for value in values]
        return cls(values, np.array([row for some in listed for row in some], dtype=np.int64), list(map(len, listed)))

    def equal(self, value: Any) -> np.ndarray:
        """Rows with the value."""
        return self._slice(bisect_left(self.values, value), bisect_right(self.values, value))

    def ordered(self, order: Order, value: Any) -> np.ndarray:
        """Rows with values on one side of ``value``."""
        if order in ("$lt", "$lte"):
            return self._slice(0, (bisect_left if order == "$lt" else bisect_right)(self.values, value))
        return self._slice((bisect_right if order == "$gt" else bisect_left)(self.values, value), len(self.values))

    def where(self, test: Callable[[Any], bool]) -> np.ndarray:
        """Rows with values that pass a test."""
        return self._of([place for place, value in enumerate(self.values) if test(value)])

    def turned(self, turn: Callable[[Any], Any]) -> Values:
        """The same rows under what ``turn`` makes of their values, without those of which it makes None."""
        made = [(new, place) for place, value in enumerate(self.values) if (new := turn(value)) is not None]
        made.sort()
        places = [place for _, place in made]
        return Values([new for new, _ in made], self._of(places), np.diff(self._starts)[places])

    def _slice(self, start: int, stop: int) -> np.ndarray:
        return self.rows[self._starts[start] : self._starts[stop]]

    def _of(self, places: list[int]) -> np.ndarray:
        """The rows of the values at some places, in the order of these."""
        starts = self._starts[:-1][places]
        counts = np.diff(self._starts)[places]
        ends = np.cumsum(counts)
        return self.rows[np.repeat(starts - ends + counts, counts) + np.arange(counts.sum())]


class Column:
    """All values under one key.

    Args:
        values: by type, see :data:`~revela_rag.index.filters.values.Attribute`.
    """

    def __init__(self, values: Mapping[str, Values]) -> None:
        self._values = values

    @classmethod
    def of(cls, attributes: Iterable[tuple[str, Any, int]]) -> Column:
        """The column of type, value and row of each attribute under one key."""
        found: dict[str, dict[Any, list[int]]] = {}
        for type_, value, row in attributes:
            found.setdefault(type_, {}).setdefault(value, []).append(row)
        return cls({type_: Values.unordered(each) for type_, each in found.items()})

    def equal(self, value: Typed) -> np.ndarray:
        """Rows with the value, or with a list that holds it; of a moment, however it is written."""
        found = [self._values[type_].equal(value[1]) for type_ in _types(value) if type_ in self._values]
        if value[0] == "s" and (moment := instant(value[1])) is not None:
            found += [instants.equal(moment) for instants in self._instants]
        return _joined(found)

    def ordered(self, order: Order, value: Typed) -> np.ndarray:
        """Rows with values of this kind on one side of ``value``."""
        if value[0] == "s" and (moment := instant(value[1])) is not None:
            return _joined([instants.ordered(order, moment) for instants in self._instants])
        return _joined(
            [self._values[type_].ordered(order, value[1]) for type_ in _types(value) if type_ in self._values]
        )

    def containing(self, value: Typed) -> np.ndarray:
        """Rows with a text that contains the value, or with a list that holds it."""
        found = [self.equal(value)]
        if value[0] == "s" and "s" in self._values:
            found.append(self._values["s"].where(lambda text: value[1] in text))
        return _joined(found)

    def of_types(self, types: Iterable[str] | None = None) -> np.ndarray:
        """Rows with values of some types; None means any."""
        chosen = self._values if types is None else [type_ for type_ in types if type_ in self._values]
        return _joined([self._values[type_].rows for type_ in chosen])

    @cached_property
    def _instants(self) -> list[Values]:
        return [self._values[type_].turned(instant) for type_ in ("s", "S") if type_ in self._values]


class Table(Protocol):
    """The metadata of many chunks or texts, each under a row that is no negative number."""

    @property
    def everything(self) -> np.ndarray:
        """(highest row + 1,) bool: which rows there are."""
        ...

    def column(self, key: str) -> Column:
        """What is under a key."""
        ...

    def named(self, what: Literal["$id", "$document"], names: Sequence[str]) -> np.ndarray:
        """(n,) int64, rows of chunks with some ids, or of some documents."""
        ...

    def each(self) -> Iterable[tuple[int, Mapping[str, Any]]]:
        """Every row with its metadata."""
        ...


class MemoryTable:
    """The metadata of some texts in memory; their places are their rows."""

    def __init__(self, metadata: Iterable[Mapping[str, Any]]) -> None:
        self._metadata = list(metadata)
        self._columns: dict[str, Column] = {}

    @property
    def everything(self) -> np.ndarray:
        """(n,) bool, all true."""
        return np.ones(len(self._metadata), dtype=bool)

    def column(self, key: str) -> Column:
        """What is under a key."""
        if key not in self._columns:
            found = ((row, name, *pair) for row, given in self.each() for name, *pair in attributes_of(given))
            self._columns[key] = Column.of((type_, value, row) for row, name, type_, value in found if name == key)
        return self._columns[key]

    def named(self, what: Literal["$id", "$document"], names: Sequence[str]) -> np.ndarray:
        """Nothing in memory has an id.

        Raises:
            IndexingError: always.
        """
        raise IndexingError(f"{what} asks for chunks of an index, and these texts are in none.")

    def each(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Every place with its metadata."""
        yield from enumerate(self._metadata)


def _types(value: Typed) -> tuple[str, ...]:
    return ("s", "S") if value[0] == "s" else (value[0],)


def _joined(rows: Sequence[np.ndarray]) -> np.ndarray:
    return rows[0] if len(rows) == 1 else np.concatenate([_NONE, *rows])
