"""Conditions on metadata, and which rows of a table meet them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.index.filters.columns import Order, Table
from revela_rag.index.filters.values import EMPTY, Typed

__all__ = ["All", "AnyOf", "Condition", "Contains", "Either", "Empty", "Exists", "Named", "Not", "Ordered", "Passes"]


class Condition(Protocol):
    """What a chunk's metadata must be."""

    def mask(self, table: Table) -> np.ndarray:
        """(highest row + 1,) bool: the rows that meet it; the caller may change it."""
        ...


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of some values is under a key."""

    key: str
    values: tuple[Typed, ...]

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        column = table.column(self.key)
        return _mask(table, *(column.equal(value) for value in self.values))


@dataclass(frozen=True, slots=True)
class Named:
    """It is one of some chunks (``"$id"``), or of one of some documents (``"$document"``)."""

    what: Literal["$id", "$document"]
    names: tuple[str, ...]

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        return _mask(table, table.named(self.what, self.names))


@dataclass(frozen=True, slots=True)
class Ordered:
    """A value under a key is of the kind of ``value`` and on one side of it."""

    key: str
    order: Order
    value: Typed

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        return _mask(table, table.column(self.key).ordered(self.order, self.value))


@dataclass(frozen=True, slots=True)
class Contains:
    """A text under a key contains the value, or a list holds it."""

    key: str
    value: Typed

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        return _mask(table, table.column(self.key).containing(self.value))


@dataclass(frozen=True, slots=True)
class Exists:
    """There is something under a key."""

    key: str

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        return _mask(table, table.column(self.key).of_types())


@dataclass(frozen=True, slots=True)
class Empty:
    """There is nothing under a key, or an empty text or list."""

    key: str

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        column = table.column(self.key)
        absent = table.everything & ~_mask(table, column.of_types())
        return absent | _mask(table, column.of_types([EMPTY]))


@dataclass(frozen=True, slots=True)
class Passes:
    """A function says yes to the metadata."""

    function: Callable[[Mapping[str, Any]], Any]

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`.

        Raises:
            IndexingError: the function raised.
        """
        return _mask(table, np.array([row for row, given in table.each() if self._says(given)], dtype=np.int64))

    def _says(self, given: Mapping[str, Any]) -> bool:
        try:
            return bool(self.function(given))
        except Exception as error:
            raise IndexingError(
                f"The filter is a function, and it raised {type(error).__name__}: {error} for the metadata "
                f'{dict(given)!r:.300}. Not every chunk has every key: read it by metadata.get("key").'
            ) from error


@dataclass(frozen=True, slots=True)
class All:
    """Every part is met."""

    parts: tuple[Condition, ...]

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        found = self.parts[0].mask(table)
        for part in self.parts[1:]:
            found &= part.mask(table)
        return found


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part is met."""

    parts: tuple[Condition, ...]

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        found = self.parts[0].mask(table)
        for part in self.parts[1:]:
            found |= part.mask(table)
        return found


@dataclass(frozen=True, slots=True)
class Not:
    """The part is not met; so it is where its key is absent."""

    part: Condition

    def mask(self, table: Table) -> np.ndarray:
        """See :class:`Condition`."""
        return table.everything & ~self.part.mask(table)


def _mask(table: Table, *rows: np.ndarray) -> np.ndarray:
    found = np.zeros(len(table.everything), dtype=bool)
    for some in rows:
        found[some] = True
    return found
