"""Filters: what they may ask for, and the form in which they and the metadata are compared."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from revela_rag.corpus.metadata import MOST_VALUES, plain
from revela_rag.corpus.text import fold
from revela_rag.errors import IndexingError

__all__ = ["Typed", "check_filter", "clean", "conditions", "typed", "values_of"]

#: A scalar as it is compared: ``"b"``, ``"n"`` or ``"s"``, and its value.
Typed = tuple[str, Any]


def check_filter(filter: Any) -> None:
    """IndexingError unless ``filter`` is None or something :meth:`revela_rag.Index.search` can answer."""
    if filter is not None:
        conditions(filter)


def conditions(filter: Mapping[str, Any]) -> list[tuple[str, list[Typed]]]:
    """Every key of a filter with the values of which one must be there.

    Raises:
        IndexingError: it is no mapping, a key is not a string or a value is not a scalar or a list of such.
    """
    if not isinstance(filter, Mapping):
        what = "a function" if callable(filter) else f"a {type(filter).__name__}"
        raise IndexingError(
            f"The filter is {what}; it must be a mapping of metadata keys to the value, or the list of values, that is "
            'wanted, such as {"language": "python"}.'
        )
    found = []
    for key, wanted in filter.items():
        values = list(wanted) if isinstance(wanted, list | tuple | set | frozenset | np.ndarray) else [wanted]
        pairs = [typed(plain(value)) for value in values if not _is_huge(value)]
        finite = all(isfinite(pair[1]) for pair in pairs if pair is not None and pair[0] == "n")
        if not isinstance(key, str) or not finite or any(pair is None for pair in pairs):
            raise IndexingError(
                f"The filter {key!r}: {wanted!r} cannot be used; keys are strings, values are strings, numbers, "
                "booleans or lists of them."
            )
        found.append((clean(key), [pair for pair in pairs if pair is not None]))
    return found


def typed(value: Any) -> Typed | None:
    """A scalar as it is compared, None for all else.

    True is not 1 and "1" is not 1, but 1 is 1.0; strings are equal when they read alike, see
    :func:`revela_rag.corpus.text.fold`.
    """
    if isinstance(value, bool):
        return "b", int(value)
    if isinstance(value, int | float) and not _is_huge(value):
        return "n", value if isinstance(value, float) or abs(value) < 2**63 else float(value)
    return ("s", fold(clean(value))) if isinstance(value, str) else None


def values_of(given: Any) -> list[Any]:
    """What a filter can ask for under one key of the metadata."""
    if not isinstance(given, list):
        return [given]
    return given if len(given) <= MOST_VALUES else []


def clean(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 store can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _is_huge(value: Any) -> bool:
    """Whether a number is beyond all that SQLite can hold; no filter finds such."""
    return isinstance(value, int) and abs(value) > sys.float_info.max
