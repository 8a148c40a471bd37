"""Where in a text the answer stands: the sentences, or lines of code, that a reader should look at."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from revela_rag.corpus.prose.sentences import sentence_spans
from revela_rag.corpus.types import Kind
from revela_rag.errors import IndexingError
from revela_rag.terms import analyze

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["Highlight", "highlights"]

_LINE = re.compile(r"\S[^\n]*")
_PARAGRAPH = re.compile(r"\S(?:.|\n(?!\s*\n))*")
_WORD = re.compile(r"\S+")
_MOST_WORDS = 30  # of a span; a longer sentence is cut into windows of equal size
_CLOSE = 0.5  # of the best: what scores less is no answer beside it


@dataclass(frozen=True, slots=True)
class Highlight:
    """A span of a text, ``text[start:end]``.

    Attributes:
        start: of its first character, from 0.
        end: behind its last one.
        score: of its words, above 0, or a cosine; compares spans of one text for one query.
    """

    start: int
    end: int
    score: float


def highlights(
    query: str, text: str, *, kind: Kind = "prose", encoder: Encoder | None = None, count: int = 2
) -> tuple[Highlight, ...]:
    """The sentences of a text, or lines of code, that answer a query; of sentences above 30 words a part.

    Args:
        query: plain text.
        text: a chunk's ``text``, which spans count in.
        kind: ``"prose"`` has sentences, ``"code"`` lines.
        encoder: compares the query with each sentence by the cosine of their vectors, which takes a forward pass; None
            compares words: those of the query that a sentence has, each by how few sentences of this text have it.
        count: at most so many; after the best only such as score half as much at least.

    Returns:
        Best first. Empty where no word is shared.

    Raises:
        IndexingError: ``count`` is below 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise IndexingError(f"count={count!r} must be a whole number of at least 1.")
    spans = _spans(text, kind)
    pieces = [text[start:end] for start, end in spans]
    if not pieces:
        return ()
    scores = _shared(query, pieces)
    if encoder is not None:
        scores = encoder.encode_documents(pieces) @ encoder.encode_queries([query])[0]
    order: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
    least = max(_CLOSE * float(scores[order[0]]), np.finfo(float).tiny)
    return tuple(Highlight(*spans[place], score=float(scores[place])) for place in order if scores[place] >= least)


def _spans(text: str, kind: Kind) -> list[tuple[int, int]]:
    if kind == "code":
        return [(match.start(), match.start() + len(match[0].rstrip())) for match in _LINE.finditer(text)]
    found: list[tuple[int, int]] = []
    for paragraph in _PARAGRAPH.finditer(text):
        for start, end in sentence_spans(paragraph[0]):
            words = [match.span() for match in _WORD.finditer(paragraph[0], start, end)]
            windows = np.array_split(np.arange(len(words)), max(1, math.ceil(len(words) / _MOST_WORDS)))
            at = paragraph.start()
            found += [(at + words[some[0]][0], at + words[some[-1]][1]) for some in windows]
    return found


def _shared(query: str, pieces: Sequence[str]) -> np.ndarray:
    """(n,), for each piece the sum over the query's terms in it of how rare they are among the pieces."""
    terms = set(analyze(query))
    held = [terms.intersection(analyze(piece)) for piece in pieces]
    rarity = {term: math.log(1 + len(pieces) / sum(term in words for words in held)) for term in set().union(*held)}
    return np.array([math.fsum(rarity[term] for term in words) for words in held])
