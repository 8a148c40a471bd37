"""Metadata in the form in which it travels with a document: plain values, lists of them, and objects of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import count
from math import isfinite
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np

from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.types import Scalar, Value

__all__ = ["MOST_VALUES", "is_missing", "plain", "plain_metadata"]

#: Longest list that is kept, and most values in an object: tags and authors are fewer, embeddings are longer.
MOST_VALUES = 100
_DEEPEST = 8  # levels of an object


def plain_metadata(given: Mapping[Any, Any], report: CorpusReport) -> dict[str, Value]:
    """The metadata of one document as :func:`plain` makes it; what cannot be kept is counted, None says nothing."""
    kept = {}
    for key, value in given.items():
        if value is None:
            continue
        if (made := plain(value)) is None:
            report.leave_out(str(key))
        else:
            kept[str(key)] = made
    return kept


def plain(value: Any) -> Value | None:
    """A value as strings, numbers and booleans, which JSON and every store hold; None where that cannot be done.

    Dates and times, those of numpy and pandas too, become ISO text, durations seconds, decimals numbers where nothing
    is lost and text otherwise, paths and UUIDs text, numbers of numpy numbers. What :func:`is_missing` becomes None. A
    list, tuple, set or array of such values becomes a list, and a mapping an object, each with up to
    :data:`MOST_VALUES` values in it; a list may hold objects.
    """
    made = _made(value, _DEEPEST, count(1))
    return made if _values(made) <= MOST_VALUES else None


def _made(value: Any, depth: int, seen: Iterator[int]) -> Value | None:
    """``seen`` ends objects that name one another, of which a small file makes endless ones (aliases of YAML)."""
    if next(seen) > 3 * MOST_VALUES:
        return None
    if isinstance(value, np.ndarray) and value.size <= MOST_VALUES:
        value = value.tolist()
    if isinstance(value, Mapping):
        if not depth or len(value) > MOST_VALUES:
            return None
        inside = {str(key): _made(entry, depth - 1, seen) for key, entry in value.items() if entry is not None}
        return None if None in inside.values() else inside
    if not isinstance(value, list | tuple | set | frozenset):
        return _scalar(value)
    if len(value) > MOST_VALUES:
        return None
    # sets have an order that changes from run to run, and with it a sync would find a change
    ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
    entries = (entry for entry in ordered if entry is not None)
    made = [_made(entry, depth, seen) if isinstance(entry, Mapping) else _scalar(entry) for entry in entries]
    return None if None in made else made


def _values(value: Any) -> int:
    """How many values are in it."""
    if isinstance(value, Mapping | list):
        return sum(map(_values, value.values() if isinstance(value, Mapping) else value))
    return 1


def is_missing(value: Any) -> bool:
    """Whether it is no value, as tables mark missing ones: NaN, NaT, an infinite number."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, float | np.floating):
        return not isfinite(value)
    if isinstance(value, Decimal):
        return not value.is_finite()
    return isinstance(value, date | time | timedelta) and value != value  # pandas has a date that is none


def _scalar(value: Any) -> Scalar | None:
    if is_missing(value):
        return None
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "s"))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, PurePath | UUID) else None


def _number(value: Decimal) -> Scalar:
    if abs(value) < 2**63:
        if value == value.to_integral_value():
            return int(value)
        if Decimal(repr(float(value))) == value:
            return float(value)
    return str(value)
