"""Whether a FAISS file is one of the few kinds that an index writes, of the size it says, before FAISS reads it.

FAISS reads files of some hundred kinds, and what it does with numbers that lead out of a file differs between its
versions. This walks the layout of those that are written here: vectors under rows (``IxMp`` of ``IxFI``), the same of a
graph (``IxMp`` of ``IHNf``), of codes of 4, 8 or 16 bits a dimension (``IxSQ``) or of one (``Ixrq``), and clusters of
8-bit codes (``IwSq``).
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import BinaryIO

import numpy as np

from revela_rag.errors import IndexingError

__all__ = ["check_faiss"]

_HEAD = Struct("<iqqqBi")  # dimension, vectors, two numbers of old, trained, metric
_INNER_PRODUCT, _TRAINED, _SQ8 = 0, 1, 0
_BITS = {_SQ8: 8, 1: 4, 4: 16}  # a dimension, by the type of code
_FACTORS = 8  # bytes beside the bits of a vector, in codes of one bit
_MOST = 2**31  # vectors, rows and lists


class _UnlikelyError(ValueError):
    """The file is not what it says."""


def check_faiss(file: Path, dimension: int) -> None:
    """Refuse a file whose parts do not fit together.

    Raises:
        IndexingError: naming the file and what is wrong.
    """
    try:
        with file.open("rb") as stream:
            walk = _Walk(stream, file.stat().st_size, dimension)
            walk.whole()
    except _UnlikelyError as error:
        raise IndexingError(f"{str(file)!r} is missing or damaged; build the index again. ({error})") from error


class _Walk:
    """From part to part of a file; nothing that is skipped is read."""

    def __init__(self, stream: BinaryIO, size: int, dimension: int) -> None:
        self._stream = stream
        self._size = size
        self._dimension = dimension

    def whole(self) -> None:
        kind = self._read(4)
        if kind == b"IxMp":
            count = self._head()
            inner = self._read(4)
            if inner == b"IHNf":
                self._graph(count)
            elif inner in (b"IxSQ", b"Ixrq"):
                self._codes(inner, count)
            else:
                self._flat(inner, count)
            self._rows(count)
        elif kind == b"IwSq":
            self._clusters()
        else:
            raise _UnlikelyError(f"kind {kind!r} is none that an index has")
        if self._stream.tell() != self._size:
            raise _UnlikelyError(f"{self._size - self._stream.tell():,} bytes follow its end")

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise _UnlikelyError("it ends too early")
        return data

    def _number(self, size: int = 8) -> int:
        return int.from_bytes(self._read(size), "little")

    def _head(self) -> int:
        """The head that every structure has; gives its number of vectors."""
        dimension, count, _, _, trained, metric = _HEAD.unpack(self._read(_HEAD.size))
        if (dimension, trained, metric) != (self._dimension, _TRAINED, _INNER_PRODUCT):
            raise _UnlikelyError(
                f"it has vectors of length {dimension}, not {self._dimension}, or is of another metric"
            )
        if not 0 <= count < _MOST:
            raise _UnlikelyError(f"it has {count} vectors")
        return int(count)

    def _array(self, type_: str, count: int | None = None) -> tuple[int, int]:
        """Pass over an array; gives where its elements begin and how many there are."""
        held = self._number()
        if count is not None and held != count:
            raise _UnlikelyError(f"an array has {held:,} elements instead of {count:,}")
        start = self._stream.tell()
        self._skip(held * np.dtype(type_).itemsize)
        return start, held

    def _skip(self, size: int) -> None:
        if size > self._size - self._stream.tell():
            raise _UnlikelyError("it ends too early")
        self._stream.seek(size, 1)

    def _values(self, type_: str, count: int | None = None) -> np.ndarray:
        """Pass over an array, of which the elements are to be looked at."""
        start, held = self._array(type_, count)
        if not held:
            return np.empty(0, dtype=type_)
        after = self._stream.tell()
        values: np.ndarray = np.memmap(self._stream, dtype=type_, mode="r", offset=start, shape=(held,))
        self._stream.seek(after)
        return values

    def _flat(self, kind: bytes, count: int) -> None:
        if kind != b"IxFI" or self._head() != count:
            raise _UnlikelyError(f"kind {kind!r}, of other vectors than the structure around it")
        self._array("<f4", count * self._dimension)

    def _rows(self, count: int) -> None:
        rows = self._values("<i8", count)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < _MOST:
            raise _UnlikelyError("a row is out of range")

    def _graph(self, count: int) -> None:
        if self._head() != count:
            raise _UnlikelyError("the graph is of other vectors than the rows")
        self._array("<f8")
        before = self._values("<i4").astype(np.int64)  # neighbours that a node has below each level
        levels = self._values("<i4", count)
        offsets = self._values("<u8", count + 1)
        neighbours = self._values("<i4")
        entry, highest = self._number(4), self._number(4)
        self._skip(12)  # settings of building and searching
        climbs = len(before) > 1 and before[0] == 0 and (np.diff(before) >= 0).all()
        if not climbs or (count and not (int(levels.min()) >= 1 and int(levels.max()) < len(before))):
            raise _UnlikelyError("the levels of its graph do not fit together")
        if int(offsets[0]) or (np.diff(offsets.astype(np.int64)) != before[levels]).any():
            raise _UnlikelyError("the nodes of its graph do not fit together")
        if int(offsets[-1]) != len(neighbours) or (
            len(neighbours) and not -1 <= int(neighbours.min()) <= int(neighbours.max()) < count
        ):
            raise _UnlikelyError("its graph leads out of the vectors")
        if count and not (entry < count and highest == int(levels[entry]) - 1):
            raise _UnlikelyError("its graph begins nowhere")
        self._flat(self._read(4), count)

    def _codes(self, kind: bytes, count: int) -> None:
        if self._head() != count:
            raise _UnlikelyError("it has codes of other vectors than the rows")
        if kind == b"IxSQ":
            _, size = self._quantizer()
            self._array("u1", count * size)
            return
        length, size, metric = self._number(), self._number(), self._number(4)
        if (length, size, metric) != (self._dimension, -(-length // 8) + _FACTORS, _INNER_PRODUCT):
            raise _UnlikelyError("its codes are not of one bit")
        self._array("u1", count * size)
        self._array("<f4", length)
        if not 1 <= self._number(1) <= 8:
            raise _UnlikelyError("the bits of a query are out of range")

    def _quantizer(self) -> tuple[int, int]:
        """Type and bytes of a vector's code."""
        kind = self._number(4)
        self._skip(8)  # how the range of values was found
        length, size = self._number(), self._number()
        self._array("<f4", 0 if _BITS.get(kind) == 16 else 2 * self._dimension)
        if length != self._dimension or kind not in _BITS or size != -(-length * _BITS[kind] // 8):
            raise _UnlikelyError("its codes are not of its vectors")
        return kind, size

    def _clusters(self) -> None:
        count = self._head()
        lists = self._number()
        self._number()  # how many are searched
        if not 1 <= lists < _MOST:
            raise _UnlikelyError(f"it has {lists} clusters")
        self._flat(self._read(4), lists)
        if self._number(1) != 0:
            raise _UnlikelyError("it has a map of its vectors")
        self._array("<i8", 0)
        kind, size = self._quantizer()
        again = self._number()
        self._skip(1)
        if kind != _SQ8 or again != size:
            raise _UnlikelyError("its codes are not of 8 bits")
        self._lists(count, lists)

    def _lists(self, count: int, lists: int) -> None:
        kind, *sizes = self._read(4), self._number(), self._number()
        if kind != b"ilar" or sizes != [lists, self._dimension]:
            raise _UnlikelyError("its lists are not of its clusters")
        if (form := self._read(4)) == b"full":
            held = self._values("<u8", lists)
        elif form == b"sprs":
            pairs = self._values("<u8").reshape(-1, 2)
            if len(pairs) and int(pairs[:, 0].max()) >= lists:
                raise _UnlikelyError("a list is of no cluster")
            held = pairs[:, 1]
        else:
            raise _UnlikelyError(f"its lists have the form {form!r}")
        if any(int(size) > count for size in held) or sum(map(int, held)) != count:
            raise _UnlikelyError("its lists hold other vectors than it says")
        self._skip(count * (self._dimension + 8))
