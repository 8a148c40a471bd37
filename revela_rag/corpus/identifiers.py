"""Names in programs, in words."""

from __future__ import annotations

import re

__all__ = ["pieces", "spoken"]

_LETTERS = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
_PIECE = re.compile(rf"{_LETTERS}|[0-9]+|[^\W\d_a-zA-Z]+")
_PIECE_OR_REST = re.compile(rf"{_LETTERS}|[^A-Za-z]+")


def pieces(name: str, *, rest: bool = False) -> list[str]:
    """What a name is made of: ``parseHTTPBody2`` → parse, HTTP, Body, 2; BM25, training and tools cut it alike.

    Args:
        name: an identifier.
        rest: whether what is neither letter nor digit, such as the brackets of ``f()``, makes pieces, too.
    """
    return (_PIECE_OR_REST if rest else _PIECE).findall(name)


def spoken(name: str, *, rest: bool = False) -> list[str]:
    """The pieces of a name as one would write them in a sentence: parse, HTTP, body, 2."""
    return [piece if piece.isupper() else piece.lower() for piece in pieces(name, rest=rest)]
