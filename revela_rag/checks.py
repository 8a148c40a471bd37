"""What was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: ``"failed"`` only where nothing works without it.
        detail: what was found.
        remedy: what to do about it; empty where nothing is wrong.
    """

    name: str
    status: Literal["ok", "missing", "warning", "failed"]
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Everything as plain JSON types."""
        return asdict(self)
