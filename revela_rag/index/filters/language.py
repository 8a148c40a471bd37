"""The filter language: what people write, checked and turned into conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from reprlib import Repr
from typing import Any, get_args

import numpy as np

from revela_rag.corpus.metadata import plain
from revela_rag.errors import IndexingError
from revela_rag.index.filters.columns import Order
from revela_rag.index.filters.conditions import (
    All,
    AnyOf,
    Condition,
    Contains,
    Either,
    Empty,
    Exists,
    Named,
    Not,
    Ordered,
    Passes,
)
from revela_rag.index.filters.values import Typed, typed
from revela_rag.surrogates import encodable

__all__ = ["OPERATORS", "Filter", "check_filter", "parse_filter"]

#: A mapping in the language of :func:`parse_filter`, or a function of a chunk's metadata that says whether it may be
#: found.
Filter = Mapping[str, Any] | Callable[[Mapping[str, Any]], Any]

_JOINTS = ("$and", "$or", "$not")
#: What may stand under a key.
OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$exists", "$empty", "$not")
_DEEPEST = 64
_SHOWN = Repr()
_SHOWN.maxstring, _SHOWN.maxother, _SHOWN.maxlist, _SHOWN.maxdict, _SHOWN.maxlevel = 100, 100, 8, 8, 4
_LISTS = (list, tuple, set, frozenset, np.ndarray)


def check_filter(filter: Any) -> None:
    """IndexingError unless ``filter`` is None or something :meth:`revela_rag.Index.search` can answer."""
    parse_filter(filter)


def parse_filter(filter: Filter | None) -> Condition | None:
    """A filter as a condition, None where it asks for nothing.

    ``{"language": "go", "year": {"$gte": 2020}}`` asks for both. Under a key there is a value (``$eq``), a list of
    values (``$in``), or operators, all of which must hold:

    - ``$eq``, ``$ne``, ``$in``, ``$nin``: numbers equal numbers, booleans booleans, and strings what reads alike
      (:func:`revela_rag.corpus.text.fold`); metadata that is a list is equal to each of up to ``MOST_VALUES`` values.
    - ``$gt``, ``$gte``, ``$lt``, ``$lte``: numbers with numbers, moments with moments, other strings with strings in
      the order of their characters; what is of another kind does not match. A moment is a date or time, of Python or
      as ISO text; a date is its midnight, and a time without a zone counts as UTC. Dates are equal so, too.
    - ``$contains``: a text holds the string, or a list the value.
    - ``$exists``: true or false; ``$empty`` also counts an empty text or list as nothing.
    - ``$not``: the operators in it do not all hold.

    ``$and`` and ``$or`` join a list of filters, ``$not`` turns one round. Where a key is absent, ``$ne``, ``$nin`` and
    ``$not`` hold, and nothing else does. A key with dots also leads into objects and lists of objects. ``document_id``
    and ``kind`` mean the chunk's own fields where its metadata has no such key.

    ``{"$id": [...]}`` asks for chunks by id, as :meth:`revela_rag.Index.get` does, and ``{"$document": [...]}`` for
    those of some documents. Both compare letter by letter, whatever the metadata says.

    A function is given the metadata, with these two, of every chunk: 100,000 take about half a second.

    Raises:
        IndexingError: it cannot be used; the message names the part and the remedy.
    """
    if filter is None:
        return None
    if isinstance(filter, Mapping):
        return _all([_entry(key, wanted, 0) for key, wanted in filter.items()]) if filter else None
    if callable(filter) and not isinstance(filter, type):
        return Passes(filter)
    raise IndexingError(
        f"The filter is a {type(filter).__name__}; it must be a mapping of metadata keys to what is wanted, such as "
        '{"language": "python", "year": {"$gte": 2020}}, or a function of the metadata.'
    )


def _inner(filter: Any, shown: tuple[Any, Any], depth: int) -> Condition:
    """A filter inside of another."""
    if depth > _DEEPEST:
        raise IndexingError(f"The filter is nested more than {_DEEPEST} levels deep; write it flatter.")
    if not isinstance(filter, Mapping):
        raise _wrong(shown, f"{_SHOWN.repr(filter)} is no mapping of metadata keys to what is wanted")
    if not filter:
        raise _wrong(shown, "a filter in it is empty; leave it out")
    return _all([_entry(key, wanted, depth) for key, wanted in filter.items()])


def _entry(key: Any, wanted: Any, depth: int) -> Condition:
    shown = (key, wanted)
    if not isinstance(key, str):
        raise _wrong(shown, "keys are strings")
    if key in ("$and", "$or"):
        if not isinstance(wanted, list | tuple) or not wanted:
            raise _wrong(shown, f"{key} takes a list of one filter or more")
        parts = [_inner(part, shown, depth + 1) for part in wanted]
        return _all(parts) if key == "$and" else Either(tuple(parts))
    if key == "$not":
        return Not(_inner(wanted, shown, depth + 1))
    if key in ("$id", "$document"):
        names = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(names, _LISTS[:-1]) or not all(isinstance(name, str) for name in names):
            raise _wrong(shown, f"{key} takes a string or a list of strings")
        return Named(key, tuple(names))  # type: ignore[arg-type]
    if key in OPERATORS:
        raise _wrong(shown, f'{key} belongs under the key of the metadata: {{"key": {{"{key}": ...}}}}')
    if key.startswith("$"):
        raise _wrong(shown, f"{key} is no operator; filters are joined by {', '.join(_JOINTS)}")
    return _under(encodable(key), wanted, shown, depth)


def _under(key: str, wanted: Any, shown: tuple[Any, Any], depth: int) -> Condition:
    """What is asked for under one key."""
    if depth > _DEEPEST:
        raise IndexingError(f"The filter on {key!r} is nested more than {_DEEPEST} levels deep; write it flatter.")
    if isinstance(wanted, _LISTS):
        return AnyOf(key, _listed(wanted, shown))
    if not isinstance(wanted, Mapping):
        return AnyOf(key, (_scalar(wanted, shown),))
    if not wanted:
        raise _wrong(shown, "no operator is in it")
    parts: list[Condition] = []
    for name, operand in wanted.items():
        if isinstance(name, str) and name in OPERATORS:
            parts.append(_operator(key, name, operand, shown, depth))
        elif isinstance(name, str) and not name.startswith("$"):
            raise _wrong(shown, f'a key inside of an object is asked for with a dot: {{"{key}.{name}": ...}}')
        else:
            raise _wrong(shown, f"{_SHOWN.repr(name)} is no operator; there are {', '.join(OPERATORS)}")
    return _all(parts)


def _operator(key: str, name: str, operand: Any, shown: tuple[Any, Any], depth: int) -> Condition:
    if name == "$not":
        if not isinstance(operand, Mapping):
            raise _wrong(shown, '$not takes operators, such as {"$not": {"$gt": 3}}; for one value there is $ne')
        return Not(_under(key, operand, shown, depth + 1))
    if name in ("$exists", "$empty"):
        if not isinstance(operand, bool | np.bool_):
            raise _wrong(shown, f"{name} takes True or False")
        test = Exists(key) if name == "$exists" else Empty(key)
        return test if operand else Not(test)
    if name in ("$in", "$nin"):
        if not isinstance(operand, _LISTS):
            raise _wrong(shown, f"{name} takes a list of values; for one there is {'$eq' if name == '$in' else '$ne'}")
        among = AnyOf(key, _listed(operand, shown))
        return among if name == "$in" else Not(among)
    if isinstance(operand, _LISTS):
        remedy = {"$eq": "; for several there is $in", "$ne": "; for several there is $nin"}.get(name, "")
        raise _wrong(shown, f"{name} takes one value{remedy}")
    value = _scalar(operand, shown)
    if name in get_args(Order):
        if value[0] == "b":
            raise _wrong(shown, f"{name} takes a number, a date or a string; booleans have no order")
        return Ordered(key, name, value)  # type: ignore[arg-type]
    if name == "$contains":
        return Contains(key, value)
    return AnyOf(key, (value,)) if name == "$eq" else Not(AnyOf(key, (value,)))


def _listed(values: Any, shown: tuple[Any, Any]) -> tuple[Typed, ...]:
    return tuple(_scalar(value, shown) for value in (values.flat if isinstance(values, np.ndarray) else values))


def _scalar(value: Any, shown: tuple[Any, Any]) -> Typed:
    if value is None:
        raise _wrong(shown, 'None is no value; whether a key is there asks {"key": {"$exists": False}}')
    made = value if isinstance(value, str | int) else plain(value)
    pair = typed(made)
    if pair is None or (isinstance(made, float) and not isfinite(made)):
        kinds = "strings, finite numbers, booleans and dates"
        raise _wrong(shown, f"{_SHOWN.repr(value)} is none of the values that filters compare: {kinds}")
    return pair


def _all(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _wrong(shown: tuple[Any, Any], why: str) -> IndexingError:
    key, wanted = map(_SHOWN.repr, shown)
    return IndexingError(f"The filter {{{key}: {wanted}}} cannot be used: {why}.")
