"""Labels that the structure of a corpus gives away: docstring → body, heading → section, title → text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from revela_rag.corpus.code.comments import first_paragraph
from revela_rag.corpus.prose.parts import FEWEST_NAME_WORDS, FEWEST_QUERY_WORDS
from revela_rag.corpus.text import squeeze, word_spans
from revela_rag.corpus.types import ANSWER_ROLES, QUERY_ROLES, Chunk

__all__ = ["StructuralPair", "asked_alone", "structural_pairs", "written_pair"]

_FEWEST_ANSWER_WORDS = 3


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
    """One pair per chunk with a query-like part of at least three words, two of a tool's name, and an answering part.

    Queries that occur more than once, see :func:`asked_alone`, are dropped: nobody could tell which chunk they ask for.
    """
    found = [(chunk, pair) for chunk in chunks if (pair := written_pair(chunk))]
    alone = asked_alone(pair for _, pair in found)
    return [pair for chunk, pair in found if pair.chunk_id in alone and _is_long_enough(chunk, pair)]


def asked_alone(pairs: Iterable[StructuralPair]) -> set[str]:
    """The chunks whose query no other chunk has, up to case and whitespace."""
    keys = {pair.chunk_id: squeeze(pair.query).casefold() for pair in pairs}
    counts = Counter(keys.values())
    return {chunk for chunk, key in keys.items() if counts[key] == 1}


def _is_long_enough(chunk: Chunk, pair: StructuralPair) -> bool:
    asked = FEWEST_NAME_WORDS if "tool" in chunk.metadata else FEWEST_QUERY_WORDS
    return len(word_spans(pair.query)) >= asked and len(word_spans(pair.answer_text)) >= _FEWEST_ANSWER_WORDS


def written_pair(chunk: Chunk) -> StructuralPair | None:
    """The query and the answer that somebody wrote into a chunk, however short and however often; None without."""
    asked, answered = chunk.part(QUERY_ROLES), chunk.part(ANSWER_ROLES)
    if asked is None or answered is None:
        return None
    query, answer = first_paragraph(asked.text), answered.text
    for repeated in {asked.text, query} - {""}:
        answer = answer.replace(repeated, " ")
    return StructuralPair(query, chunk.id, chunk.document_id, asked.role, answer.strip())
