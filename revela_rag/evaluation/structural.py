"""Queries nobody wrote as queries: docstrings, headings and titles taken out of the text they describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from revela_rag.corpus.types import ANSWER_ROLES, QUERY_ROLES
from revela_rag.errors import CorpusError
from revela_rag.evaluation.beir import RetrievalData

if TYPE_CHECKING:
    from revela_rag.corpus import Chunk, StructuralPair

__all__ = ["structural_data"]

_FROM_TITLE = frozenset({"title", "heading", "question"})


def structural_data(
    pairs: Sequence[StructuralPair], chunks: Sequence[Chunk], *, name: str = "structural"
) -> RetrievalData:
    """Retrieval data without labels: each pair's query must find the chunk it was taken from.

    Every chunk of the corpus is a candidate, and every one loses its query-like part (and a title that
    repeats it), not only the chunks that answer: else the answers could be told from the rest by
    what they lack.

    Args:
        pairs: from :func:`revela_rag.corpus.structural_pairs`, or a subset of them such as a held-out half.
        chunks: the whole corpus.
        name: what to call the data.

    Returns:
        Queries ``"s0"``, ``"s1"``, ... in the order of ``pairs``; documents by chunk id; one judgement each.

    Raises:
        CorpusError: there are no pairs, or one names a chunk that is not among ``chunks``.
    """
    if not pairs:
        raise CorpusError(
            "the corpus holds no structural pair (docstring and body, heading and section, ...), so "
            "nothing can be measured without labels. Evaluate on labelled data instead"
        )
    answers = {pair.chunk_id: pair for pair in pairs}
    corpus = {chunk.id: _without_query(chunk, answers.get(chunk.id)) for chunk in chunks}
    missing = [pair.chunk_id for pair in pairs if pair.chunk_id not in corpus]
    if missing:
        raise CorpusError(f"{len(missing)} pairs name chunks that are not in the corpus, the first is {missing[0]!r}")
    queries = {f"s{number}": pair.query for number, pair in enumerate(pairs)}
    qrels = {f"s{number}": {pair.chunk_id: 1} for number, pair in enumerate(pairs)}
    return RetrievalData(corpus=corpus, queries=queries, qrels=qrels, name=name)


def _without_query(chunk: Chunk, pair: StructuralPair | None) -> tuple[str, str]:
    """Title and text of a chunk without what could have been asked about it."""
    asked, answer = chunk.part(QUERY_ROLES), chunk.part(ANSWER_ROLES)
    text = pair.answer_text if pair else answer.text if asked and answer else chunk.text
    title = chunk.title
    for query in {asked.text if asked else "", pair.query if pair else ""} - {""}:
        title = title.replace(query, "").strip(" >/|:-\n")
    if asked and asked.role in _FROM_TITLE and title == chunk.title:
        title = ""  # the query says the title in other words, as a spelled-out identifier does
    return title, text
