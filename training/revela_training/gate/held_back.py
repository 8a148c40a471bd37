"""What the gate judges by: documents, and queries made of them that training never sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from revela_rag.corpus import Chunk, StructuralPair, structural_pairs
from revela_rag.corpus.text import word_spans
from revela_rag.corpus.types import titled
from revela_rag.evaluation import headings_by_document, structural_data
from revela_training.data.pseudo_queries import KINDS, pseudo_queries
from revela_training.data.units import CROPPED_WORDS, cropped

__all__ = ["EvaluationSet", "evaluation_pairs", "make_evaluation_set"]

_CROPPED = "first_half"
_FEWEST_PAIRS = 40
_ENOUGH_PAIRS, _ENOUGH_SHARE = 300, 0.1  # with fewer, structural pairs must at least speak for a tenth of the corpus
_SHORT_TEXT = 8  # words from which texts are cropped where too few have the usual number
_ENOUGH_WITNESSES = 20  # documents; with fewer, a kind says nothing
_WITNESSES, _MOST_DRAWS = 400, 8  # of each kind: several of a document where few documents choose


@dataclass(frozen=True)
class EvaluationSet:
    """Documents to search and the two halves of queries.

    Attributes:
        document_ids: chunk ids.
        documents: chunk texts without their query part.
        choose: pairs that choose the strength.
        report: pairs that report.
        weak: whether queries had to be cut out of the texts themselves, for want of structure.
        terse: whether they had to be cut out of texts of less than twenty words, whose halves say little of each other.
        witnesses: further queries that help to choose, by kind: keywords and spans of the choosing half's documents.
        sources: the document that each chunk is of, whose other chunks hybrid search takes into account; None where
            every chunk is a document of its own.
    """

    document_ids: list[str]
    documents: list[str]
    choose: list[StructuralPair]
    report: list[StructuralPair]
    weak: bool = False
    terse: bool = False
    witnesses: Mapping[str, list[StructuralPair]] = field(default_factory=dict)
    sources: Sequence[str] | None = None


def evaluation_pairs(chunks: Sequence[Chunk]) -> tuple[list[StructuralPair], bool]:
    """Structural pairs of a corpus, and cropped ones beside them where it has too little structure.

    That is fewer than forty pairs, or fewer than three hundred of less than a tenth of the chunks: the few that some
    titles give hold back too few to tell an adapter's gain from chance, and say nothing of the rest. Texts are cropped
    from twenty words on, or from eight where that gives fewer than forty, as in a catalogue of terse tools.

    Returns:
        (pairs, weak): ``weak`` says that queries were cropped, each the first half of a text whose second half is
        the answer; such queries are longer and more literal than a person's.
    """
    pairs = structural_pairs(chunks)
    if len(pairs) >= min(_ENOUGH_PAIRS, max(_FEWEST_PAIRS, _ENOUGH_SHARE * len(chunks))):
        return pairs, False
    known = {pair.chunk_id for pair in pairs}
    rest = [chunk for chunk in chunks if chunk.id not in known]
    made = _first_halves(rest)
    if len(pairs) + len(made) < _FEWEST_PAIRS:
        made = _first_halves(rest, _SHORT_TEXT)
    return pairs + made, True


def _first_halves(chunks: Sequence[Chunk], fewest: int = CROPPED_WORDS) -> list[StructuralPair]:
    found = ((chunk, cropped(chunk.text, fewest)) for chunk in chunks)
    return [
        StructuralPair(halves[0], chunk.id, chunk.document_id, _CROPPED, halves[1]) for chunk, halves in found if halves
    ]


def make_evaluation_set(
    chunks: Sequence[Chunk],
    choose: list[StructuralPair],
    report: list[StructuralPair],
    *,
    max_documents: int,
    weak: bool,
    seed: int,
) -> EvaluationSet:
    """Documents with every query part taken out: the relevant ones and random others up to ``max_documents``.

    Where queries are cropped from their texts, the others are cropped too.
    """
    held = [*choose, *report]
    relevant = {pair.chunk_id for pair in held}
    others = [chunk.id for chunk in chunks if chunk.id not in relevant]
    room = max(0, max_documents - len(relevant))
    drawn = set(np.random.default_rng((seed, 3)).permutation(others)[:room].tolist()) if others else set()
    kept = [chunk for chunk in chunks if chunk.id in relevant or chunk.id in drawn]
    corpus = structural_data(held, kept, headings=headings_by_document(chunks)).corpus
    lengths = [len(word_spans(f"{pair.query} {pair.answer_text}")) for pair in held if pair.query_role == _CROPPED]
    fewest = min([CROPPED_WORDS, *lengths])
    if weak:
        halves = {id_: cropped(text, fewest) for id_, (_, text) in corpus.items() if id_ in drawn}
        corpus |= {id_: (corpus[id_][0], both[1]) for id_, both in halves.items() if both}
    texts = [titled(title, text) for title, text in corpus.values()]
    source = {chunk.id: chunk.document_id for chunk in kept}
    witnesses = _witnesses(choose, dict(zip(corpus, texts, strict=True)), seed)
    terse, sources = fewest < CROPPED_WORDS, [source[id_] for id_ in corpus]
    return EvaluationSet(list(corpus), texts, choose, report, weak, terse, witnesses, sources)


def _witnesses(
    choose: Sequence[StructuralPair], documents: Mapping[str, str], seed: int
) -> dict[str, list[StructuralPair]]:
    """Keyword and span queries for the documents that choose; none of a kind that has too few to say anything.

    Few documents get several queries each, or chance in drawing their words would decide.
    """
    found: dict[str, list[StructuralPair]] = {kind: [] for kind in KINDS}
    draws = min(_MOST_DRAWS, max(1, _WITNESSES // max(1, len(choose))))
    texts = [documents[pair.chunk_id] for pair in choose]
    for query in pseudo_queries(texts, limit=len(choose), draws=draws, seed=seed):
        pair = choose[query.passage]
        found[query.kind].append(
            StructuralPair(query.text, pair.chunk_id, pair.document_id, query.kind, documents[pair.chunk_id])
        )
    return {kind: pairs for kind, pairs in found.items() if len({pair.chunk_id for pair in pairs}) >= _ENOUGH_WITNESSES}
