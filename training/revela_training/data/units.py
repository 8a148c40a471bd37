"""From chunks to the texts that training sets side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from revela_rag.corpus import ANSWER_ROLES, QUERY_ROLES, Chunk, StructuralPair
from revela_rag.corpus.pairs import asked_alone, written_pair
from revela_rag.corpus.text import squeeze, word_spans

__all__ = ["CROPPED_WORDS", "Unit", "cropped", "make_units", "split_pairs"]

_HALVES = ("first_half", "second_half")
#: Words of a text that is cut in two.
CROPPED_WORDS = 20


@dataclass(frozen=True, slots=True)
class Unit:
    """Texts of one source that say the same in different words; they always share a group.

    Attributes:
        texts: one to three texts.
        document_id: the document they come from.
        position: place of the chunk inside that document.
        is_pair: whether the first text reads like a query for the second.
    """

    texts: tuple[str, ...]
    document_id: str
    position: int
    is_pair: bool


def make_units(chunks: Iterable[Chunk], held_out: Iterable[StructuralPair] = (), *, crop: bool = False) -> list[Unit]:
    """Split every chunk into the texts that must find each other.

    A chunk with a query-like and an answer-like part becomes that pair; a longer prose chunk becomes its two halves,
    which are no query and answer where there is structure: there are so many of them that they would crowd out what
    people wrote as such (dev/log, quality). Anything else stays whole. Of a held-out chunk only the answer part is
    used, so its query is never trained on. A heading or title that several chunks have ("Minor features") asks for none
    of them; one that its answer repeats, as where a page begins with its title, is taken out of that. What code says of
    itself may be said more than once: methods that share a comment are alike.

    Args:
        chunks: the corpus.
        held_out: pairs kept for evaluation.
        crop: take halves for query and answer, and cut prose in two that would stay whole, see `cropped`: for corpora
            without structure, which would otherwise train on queries made of a text's own words alone.
    """
    hidden = {pair.chunk_id: pair.answer_text for pair in held_out}
    chunks = list(chunks)
    written = {chunk.id: pair for chunk in chunks if (pair := written_pair(chunk))}
    alone = asked_alone(written.values())
    units = []
    for chunk in chunks:
        if chunk.id in hidden:
            texts: tuple[str, ...] = (hidden[chunk.id],)
            is_pair = False
        else:
            texts, is_pair = _texts(chunk, written.get(chunk.id), alone, halves_ask=crop)
            if crop and not is_pair and chunk.kind != "code" and (halves := cropped(chunk.text)):
                texts, is_pair = halves, True
        if texts := tuple(text for text in texts if text.strip()):
            units.append(Unit(texts, chunk.document_id, chunk.position, is_pair and len(texts) > 1))
    return units


def cropped(text: str, fewest: int = CROPPED_WORDS) -> tuple[str, str] | None:
    """The first and the second half of the words; None for a text of less than ``fewest``."""
    words = word_spans(text)
    if len(words) < fewest:
        return None
    middle = words[len(words) // 2][0]
    return squeeze(text[:middle]), squeeze(text[middle:])


def _texts(
    chunk: Chunk, pair: StructuralPair | None, alone: Collection[str], *, halves_ask: bool
) -> tuple[tuple[str, ...], bool]:
    query, answer = chunk.part(QUERY_ROLES), chunk.part(ANSWER_ROLES)
    if pair and query and answer:
        if chunk.kind == "code":
            return (query.text, answer.text), True
        return (query.text, pair.answer_text), chunk.id in alone
    halves = tuple(part.text for role in _HALVES for part in chunk.parts if part.role == role)
    if len(halves) == 2:
        return halves, halves_ask
    return (chunk.embedding_text,), False


def split_pairs(
    pairs: Sequence[StructuralPair], *, holdout: float, max_queries: int
) -> tuple[list[StructuralPair], list[StructuralPair]]:
    """Draw the pairs that choose and the pairs that report; all others may be trained on.

    The draw depends on each query's text alone, so it is the same on every run and the same query never lands on
    both sides.

    Args:
        pairs: structural pairs of the corpus.
        holdout: share of pairs to hold out.
        max_queries: at most so many pairs on each side.

    Returns:
        (choose, report), disjoint.
    """
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair.query.encode("utf-8", "replace")).digest())
    count = min(int(len(ranked) * holdout), 2 * max_queries)
    return ranked[: count // 2], ranked[count // 2 : count]
