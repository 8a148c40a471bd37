"""Text that UTF-8 can hold."""

from __future__ import annotations

__all__ = ["encodable"]


def encodable(text: str) -> str:
    """A text with question marks for lone surrogates, which no UTF-8 store can hold and tokenizers refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
