"""Metadata and what filters ask for, in the form in which the two are compared."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from math import inf
from typing import Any

from revela_rag.corpus.metadata import MOST_VALUES
from revela_rag.corpus.text import fold
from revela_rag.surrogates import encodable

__all__ = ["EMPTY", "PRESENT", "Attribute", "Typed", "attributes_of", "instant", "typed"]

#: A value as it is compared: ``"b"``, ``"n"`` or ``"s"`` (``"S"`` in a list), and the value itself.
Typed = tuple[str, Any]
#: A key of the metadata, nested ones with dots between them, and a value, or a mark that there is none to search for.
Attribute = tuple[str, str, Any]

#: Types of a key that is there with nothing to search for: an empty text or list, and all else, such as an object.
EMPTY, PRESENT = "e", "x"
_DEEPEST = 16
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}.*)?")
_EPOCH = date(1970, 1, 1).toordinal()


def typed(value: Any) -> Typed | None:
    """A scalar as it is compared, None for all else.

    True is not 1 and "1" is not 1, but 1 is 1.0; strings are equal when they read alike, see
    :func:`revela_rag.corpus.text.fold`.
    """
    if isinstance(value, bool):
        return "b", int(value)
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return "n", inf if value > 0 else -inf
    if isinstance(value, int | float):
        return "n", value if isinstance(value, float) or abs(value) < 2**63 else float(value)
    return ("s", fold(encodable(value))) if isinstance(value, str) else None


def attributes_of(metadata: Mapping[str, Any]) -> Iterator[Attribute]:
    """What filters can ask for in the metadata of one chunk; what is null is not there."""
    for key, given in metadata.items():
        found = list(_attributes(encodable(str(key)), given, _DEEPEST))
        # an object as large as an embedding is not to be searched by its parts
        yield from found if len(found) <= 2 * MOST_VALUES else [(encodable(str(key)), PRESENT, "")]


def instant(text: str) -> int | None:
    """Microseconds since 1970 of a date or a time in ISO form, folded or not, or None for another text.

    A date is its midnight; a time without a zone counts as UTC.
    """
    if text[4:5] != "-" or not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    days = moment.toordinal() - _EPOCH
    seconds = ((days * 24 + moment.hour) * 60 + moment.minute) * 60 + moment.second
    offset = moment.utcoffset()
    return seconds * 1_000_000 + moment.microsecond - (offset // timedelta(microseconds=1) if offset else 0)


def _attributes(key: str, given: Any, depth: int) -> Iterator[Attribute]:
    if given is None:
        return
    if isinstance(given, Mapping):
        yield key, PRESENT, ""
        for name, value in given.items() if depth else ():
            yield from _attributes(f"{key}.{encodable(str(name))}", value, depth - 1)
    elif isinstance(given, list):
        if not 0 < len(given) <= MOST_VALUES:
            yield key, PRESENT if given else EMPTY, ""
            return
        for value in given:
            if isinstance(value, Mapping):
                yield from _attributes(key, value, depth - 1 if depth else 0)
            else:
                type_, compared = _compared(value)
                yield key, "S" if type_ == "s" else type_, compared
    else:
        yield key, *_compared(given)
        if given == "":
            yield key, EMPTY, ""


def _compared(value: Any) -> Typed:
    pair = typed(value)
    finite = pair is not None and (pair[0] != "n" or -inf < pair[1] < inf)
    return pair if pair is not None and finite else (PRESENT, "")
