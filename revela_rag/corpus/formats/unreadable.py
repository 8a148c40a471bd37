"""Why a file's content cannot be used."""

__all__ = ["Unreadable"]


class Unreadable(Exception):
    """The content cannot be used; the message is the reason that goes into the report."""
