"""Queries nobody wrote as queries: docstrings, headings and titles taken out of the text they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from revela_rag.corpus.types import ANSWER_ROLES, QUERY_ROLES
from revela_rag.errors import CorpusError
from revela_rag.evaluation.beir import RetrievalData

if TYPE_CHECKING:
    from revela_rag.corpus import Chunk, StructuralPair

__all__ = ["headings_by_document", "structural_data", "without_headings"]

_FROM_TITLE = frozenset({"title", "heading", "question"})


def structural_data(
    pairs: Sequence[StructuralPair],
    chunks: Sequence[Chunk],
    *,
    name: str = "structural",
    headings: Mapping[str, Sequence[str]] | None = None,
) -> RetrievalData:
    """Retrieval data without labels: each pair's query must find the chunk it was taken from.

    Every chunk of the corpus is a candidate, and every one loses its query-like part (and a title that
    repeats it), not only the chunks that answer: else the answers could be told from the rest by
    what they lack. Headings and titles are taken out of the titles of all chunks of their document: they
    stand above each chunk of a section, and only the first asks with them.

    Args:
        pairs: from :func:`revela_rag.corpus.structural_pairs`, or a subset of them such as a held-out half.
        chunks: the whole corpus.
        name: what to call the data.
        headings: what to take out of titles, see :func:`headings_by_document`, where ``chunks`` are only some of the
            corpus; None means the headings of these.

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
    headings = headings_by_document(chunks) if headings is None else headings
    corpus = {chunk.id: _without_query(chunk, answers.get(chunk.id), headings) for chunk in chunks}
    missing = [pair.chunk_id for pair in pairs if pair.chunk_id not in corpus]
    if missing:
        raise CorpusError(f"{len(missing)} pairs name chunks that are not in the corpus, the first is {missing[0]!r}")
    queries = {f"s{number}": pair.query for number, pair in enumerate(pairs)}
    qrels = {f"s{number}": {pair.chunk_id: 1} for number, pair in enumerate(pairs)}
    return RetrievalData(corpus=corpus, queries=queries, qrels=qrels, name=name)


def headings_by_document(chunks: Sequence[Chunk]) -> dict[str, list[str]]:
    """The headings and titles that ask for one of these chunks, by document, the longest first."""
    found: dict[str, set[str]] = {}
    for chunk in chunks:
        asked = chunk.part(QUERY_ROLES)
        if asked and asked.role in _FROM_TITLE:  # a title may say it in other words, as an identifier does
            heading = asked.text if asked.text in chunk.title else chunk.title or asked.text
            found.setdefault(chunk.document_id, set()).add(heading)
    return {document: sorted(texts, key=len, reverse=True) for document, texts in found.items()}


def without_headings(chunk: Chunk, headings: Mapping[str, Sequence[str]]) -> str:
    """The title of a chunk less the headings of its document, see :func:`headings_by_document`."""
    title = chunk.title
    for heading in headings.get(chunk.document_id, ()):
        title = _less(title, heading)
    return title


def _less(title: str, query: str) -> str:
    return title.replace(query, "").strip(" >/|:-\n") if query in title else title


def _without_query(chunk: Chunk, pair: StructuralPair | None, headings: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Title and text of a chunk without what could have been asked about it or its section."""
    asked, answer = chunk.part(QUERY_ROLES), chunk.part(ANSWER_ROLES)
    text = pair.answer_text if pair else answer.text if asked and answer else chunk.text
    title = without_headings(chunk, headings)
    for query in {asked.text if asked else "", pair.query if pair else ""} - {""}:
        title = _less(title, query)
    if asked and asked.role in _FROM_TITLE and title == chunk.title:
        title = ""  # the query says the title in other words, as a spelled-out identifier does
    return title, text
