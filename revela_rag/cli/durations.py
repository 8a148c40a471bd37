"""Time limits as people write them."""

from __future__ import annotations

import re

import typer

__all__ = ["duration_option", "parse_duration"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"\d+(?:\.\d+)?"
_PATTERN = re.compile(rf"(?:({_NUMBER})h)?\s*(?:({_NUMBER})m(?:in)?)?\s*(?:({_NUMBER})s)?", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds of ``"90s"``, ``"10m"``, ``"1h30m"`` or a plain number of seconds.

    Raises:
        ValueError: the text is none of these, or not more than zero.
    """
    cleaned = text.strip()
    if re.fullmatch(_NUMBER, cleaned):
        seconds = float(cleaned)
    else:
        match = _PATTERN.fullmatch(cleaned)
        if not match or not any(match.groups()):
            raise ValueError(f"{text!r} is not a duration. Write 90s, 10m, 1h30m or a number of seconds")
        seconds = sum(
            float(value) * factor for value, factor in zip(match.groups(), _UNITS.values(), strict=True) if value
        )
    if not seconds > 0:
        raise ValueError(f"{text!r} must be more than zero")
    return seconds


def duration_option(value: str | None) -> str | None:
    """Refuse a malformed duration as wrong usage (status 2)."""
    if value is not None:
        try:
            parse_duration(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return value
