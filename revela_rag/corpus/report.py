"""What came of reading a corpus: its chunks, and what was left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from revela_rag.corpus.types import Chunk
from revela_rag.surrogates import encodable

__all__ = ["Corpus", "CorpusReport"]

_MOST_REASONS = 20


@dataclass(slots=True)
class CorpusReport:
    """Counts of what was read and what was left out.

    Attributes:
        documents: documents that were read.
        chunks: chunks that were kept.
        exact_duplicates: chunks dropped because an equal one (up to case and whitespace) came before.
        near_duplicates: chunks dropped because a nearly equal one came before.
        skipped: why something was not read → ids of the sources (for a JSON line ``file:line``).
        left_out: keys of metadata that cannot be kept (see :func:`~revela_rag.corpus.metadata.plain`) → how many
            documents had them.
        unreadable: files and folders that are there but could not be read this time → the system's reason; ``skipped``
            has them too.
        window: tokens of the model that chunks were cut for; None where they were cut by words alone.
        notes: what was read, but not in full or in order, as a page without text → where.
        truncated: chunks that are longer all the same, and lose what lies behind.
    """

    documents: int = 0
    chunks: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    window: int | None = None
    truncated: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, source_id: str) -> None:
        """Count one source that was not read."""
        self.skipped.setdefault(reason, []).append(source_id)

    def note(self, what: str, where: str) -> None:
        """Count one place that was not read in full or in order."""
        self.notes.setdefault(what, []).append(where)

    def leave_out(self, key: str) -> None:
        """Count one document whose metadata under ``key`` cannot be kept."""
        self.left_out[key] = self.left_out.get(key, 0) + 1

    def fail(self, error: OSError, source_id: str, what: str = "unreadable") -> None:
        """Count one file or folder that is there but could not be read."""
        reason = error.strerror or type(error).__name__
        self.skip(f"{what} ({reason})", source_id)
        self.unreadable[encodable(source_id)] = reason

    def is_unreadable(self, document_id: str) -> bool:
        """Whether a document may be there still: it, its file, or a folder above could not be read."""
        if not self.unreadable:
            return False
        name = encodable(document_id)
        return any(name[: end.start()] in self.unreadable for end in re.finditer("[/#]|$", name))

    def skipped_summary(self) -> str:
        """The reasons with their counts and one example each, most frequent first, at most 20; empty without any."""
        return _summary(self.skipped)

    def notes_summary(self) -> str:
        """The same of what was not read in full or in order."""
        return _summary(self.notes)

    def left_out_summary(self, of: str = "documents") -> str:
        """The keys of metadata that were left out with their counts, most frequent first, at most ten."""
        keys = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{key!r} of {count:,} {of}" for key, count in keys[:10])
        return f"{shown}, and {len(keys) - 10:,} more" if len(keys) > 10 else shown

    def summary(self) -> str:
        """One line for people."""
        line = f"{self.chunks:,} chunks from {self.documents:,} documents"
        if self.exact_duplicates or self.near_duplicates:
            line += f"; dropped {self.exact_duplicates:,} exact and {self.near_duplicates:,} near duplicates"
        if self.truncated:
            line += f"; {self.truncated:,} are longer than the {self.window} tokens the model reads"
        if self.notes:
            line += f"; not read in full or in order: {self.notes_summary()}"
        return f"{line}; skipped {self.skipped_summary()}" if self.skipped else line

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {
            "documents": self.documents,
            "chunks": self.chunks,
            "exact_duplicates": self.exact_duplicates,
            "near_duplicates": self.near_duplicates,
            "skipped": {reason: list(ids) for reason, ids in self.skipped.items()},
            "left_out": dict(self.left_out),
            "unreadable": dict(self.unreadable),
            "window": self.window,
            "truncated": self.truncated,
            "notes": {what: list(places) for what, places in self.notes.items()},
        }


def _summary(counted: dict[str, list[str]]) -> str:
    reasons = sorted(counted.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = "; ".join(f"{len(ids)} × {reason} (e.g. {ids[0]})" for reason, ids in reasons[:_MOST_REASONS])
    more = sum(len(ids) for _, ids in reasons[_MOST_REASONS:])
    return f"{shown}; and {more:,} more for other reasons" if more else shown


@dataclass(slots=True)
class Corpus:
    """Chunks in source order with the report of how they came about."""

    chunks: list[Chunk]
    report: CorpusReport = field(default_factory=CorpusReport)

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)
