"""Regular expressions that take time in proportion to the text, whatever they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from revela_rag.errors import IndexingError, MissingExtraError

__all__ = ["Pattern"]

_LONGEST = 1000
_SYNTAX = "The syntax is RE2's: no look-around, no back-references, \\z for the end; escape . ( ) [ ] { } * + ? | ^ $"


class Pattern:
    """A regular expression that matches within lines.

    Args:
        pattern: in the syntax of RE2; ``^`` and ``$`` are the ends of a line.
        ignore_case: whether capital and small letters are the same.

    Raises:
        IndexingError: it is empty, too long, or no regular expression.
        MissingExtraError: google-re2 is not installed.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        if not pattern or len(pattern) > _LONGEST:
            raise IndexingError(f"The pattern has {len(pattern)} characters; give 1 to {_LONGEST}.")
        try:
            import re2
        except ImportError as error:
            raise MissingExtraError("google-re2", "agents", "grep") from error
        options = re2.Options()
        options.never_nl, options.log_errors, options.case_sensitive = True, False, not ignore_case
        try:
            # by itself first: errors then quote what was given
            re2.compile(pattern.encode(), options)
            self._compiled: Any = re2.compile(b"(?m)" + pattern.encode(), options)
        except (re2.error, UnicodeEncodeError) as error:
            reason = error.args[0].decode("utf-8", "replace") if isinstance(error, re2.error) else str(error)
            raise IndexingError(f"The pattern {pattern!r} cannot be used: {reason}. {_SYNTAX}.") from error

    def lines(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Where lines begin that it matches somewhere, and where the first match in each begins and ends."""
        at = 0
        while at <= len(data) and (match := self._compiled.search(data, at)) is not None:
            start, end = match.span()
            yield data.rfind(b"\n", 0, start) + 1, start, end
            at = data.find(b"\n", start) + 1
            if not at:
                return
