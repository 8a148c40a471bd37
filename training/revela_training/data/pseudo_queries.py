"""Queries nobody asked, made of a passage's own words, as short as the ones people type."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from revela_rag.corpus.identifiers import pieces
from revela_rag.corpus.text import WIDE, squeeze, word_spans

__all__ = ["KINDS", "Kind", "PseudoQuery", "pseudo_queries"]

Kind = Literal["keywords", "span"]
KINDS: tuple[Kind, ...] = ("keywords", "span")

_WORD = re.compile(r"[^\W\d_]\w+")
_WIDE = re.compile(WIDE)
_UNDERSCORES_AND_DIGITS = re.compile(r"[_\d]+")
_SHORTEST_WORD = 3
_FEWEST_WORDS = 6
_KEYWORDS = (3, 7)
_SPAN = (4, 10)
_SPAN_PASSAGE = 12


@dataclass(frozen=True, slots=True)
class PseudoQuery:
    """A query and the passage it was made of.

    Attributes:
        kind: ``"keywords"``, three to seven salient words in the order of the text, identifiers split; or
            ``"span"``, four to ten consecutive words, of scripts without spaces twice as many letters.
        text: the query.
        passage: index of the passage.
    """

    kind: Kind
    text: str
    passage: int


def pseudo_queries(passages: Sequence[str], *, limit: int, draws: int = 1, seed: int = 0) -> list[PseudoQuery]:
    """At most ``draws`` queries of each kind for each of at most ``limit`` passages, drawn at random.

    Structural queries (docstrings, headings) are long and written like the text below them; people's are short.
    Keywords are drawn by their weight (1 + log tf) * idf among the heaviest words of a passage; a word that no other
    passage has is left out, as it would give the passage away. Scripts without spaces between words get spans alone.

    Args:
        passages: the texts to be found, as the retriever reads them.
        limit: passages to take.
        draws: queries of each kind to make of a passage; such as come out alike count once.
        seed: seed of the draw.

    Returns:
        Queries in the order of the draw, those of one passage together.
    """
    rng = np.random.default_rng((seed, 6))
    drawn = rng.permutation(len(passages))[:limit].tolist()
    words = [_words(text) for text in passages]
    frequency = Counter(word for found in words for word in set(found))
    made = []
    for index in drawn:
        for _ in range(draws):
            keywords = _keywords(words[index], frequency, len(passages), rng)
            span = _span(passages[index], rng)
            made += [PseudoQuery(kind, text, index) for kind, text in zip(KINDS, (keywords, span), strict=True) if text]
    return list(dict.fromkeys(made))


def _words(text: str) -> list[str]:
    found = (piece for word in _WORD.findall(text) for piece in _pieces(word))
    return [piece.lower() for piece in found if len(piece) >= _SHORTEST_WORD]


def _pieces(word: str) -> list[str]:
    if word.isascii():
        return pieces(word)
    return [] if _WIDE.search(word) else _UNDERSCORES_AND_DIGITS.split(word)


def _keywords(words: list[str], frequency: Counter[str], passages: int, rng: np.random.Generator) -> str:
    counts = Counter(words)
    if len(counts) < _FEWEST_WORDS:
        return ""
    weights = {
        word: (1 + math.log(count)) * math.log(passages / frequency[word])
        for word, count in counts.items()
        if frequency[word] > 1
    }
    wanted = int(rng.integers(_KEYWORDS[0], _KEYWORDS[1] + 1))
    heaviest = sorted(weights, key=lambda word: weights[word], reverse=True)[: 3 * wanted]
    if len(heaviest) < _KEYWORDS[0]:
        return ""
    chances = np.array([weights[word] for word in heaviest]) + 1e-6
    chosen = rng.choice(len(heaviest), size=min(wanted, len(heaviest)), replace=False, p=chances / chances.sum())
    return " ".join(sorted((heaviest[i] for i in chosen), key=words.index))


def _span(text: str, rng: np.random.Generator) -> str:
    words = word_spans(text)
    if len(words) < _SPAN_PASSAGE:
        return ""
    size = int(rng.integers(_SPAN[0], _SPAN[1] + 1))
    start = int(rng.integers(0, len(words) - size))
    return squeeze(text[words[start][0] : words[start + size - 1][1]])
