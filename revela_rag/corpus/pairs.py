"""Labels that the structure of a corpus gives away: docstring → body, heading → section, title → text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from revela_rag.corpus.comments import first_paragraph
from revela_rag.corpus.text import squeeze, word_spans
from revela_rag.corpus.types import ANSWER_ROLES, QUERY_ROLES, Chunk

__all__ = ["StructuralPair", "structural_pairs"]

_MIN_WORDS = 3


@dataclass(frozen=True, slots=True)
class StructuralPair:
    """A query somebody wrote into the corpus, and the chunk it belongs to.

    Attributes:
        query: first paragraph of the query-like part.
        chunk_id: the chunk that answers it.
        document_id: document of that chunk.
        query_role: role of the part the query comes from, one of :data:`~revela_rag.corpus.types.QUERY_ROLES`.
        answer_text: the answering part; the query does not occur in it.
    """

    query: str
    chunk_id: str
    document_id: str
    query_role: str
    answer_text: str


def structural_pairs(chunks: Iterable[Chunk]) -> list[StructuralPair]:
    """One pair per chunk with a query-like part of at least three words and an answering part.

    Queries that occur more than once (up to case and whitespace) are dropped: nobody could tell which chunk they
    ask for.
    """
    pairs = []
    for chunk in chunks:
        query_part, answer_part = chunk.part(QUERY_ROLES), chunk.part(ANSWER_ROLES)
        if query_part is None or answer_part is None:
            continue
        query = first_paragraph(query_part.text)
        answer = answer_part.text
        for repeated in {query_part.text, query}:
            answer = answer.replace(repeated, " ")
        answer = answer.strip()
        if min(len(word_spans(query)), len(word_spans(answer))) >= _MIN_WORDS:
            pairs.append(StructuralPair(query, chunk.id, chunk.document_id, query_part.role, answer))
    counts = Counter(squeeze(pair.query).casefold() for pair in pairs)
    return [pair for pair in pairs if counts[squeeze(pair.query).casefold()] == 1]
