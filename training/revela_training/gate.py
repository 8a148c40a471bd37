"""Do no harm: choose the adapter's strength on one half of the held-back queries and report on the other.

Structural queries alone choose badly. They are written like the text below them, so they go on rising while
keywords and short spans, and with them people's queries, already fall. All kinds vote, each with the same weight.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from revela_rag.corpus import Chunk, StructuralPair, structural_pairs
from revela_rag.evaluation import (
    Comparison,
    Evaluation,
    balanced_p_value,
    compare,
    dense_run,
    hybrid_run,
    lexical_run,
    score_run,
    structural_data,
)
from revela_training.backbone import Role
from revela_training.pseudo_queries import KINDS, pseudo_queries
from revela_training.units import cropped

__all__ = ["EvaluationSet", "Gate", "evaluation_pairs", "make_evaluation_set", "run_gate"]

logger = logging.getLogger(__name__)

METRIC = "nDCG@10"
_DEPTH = 1000  # of the runs that the hybrid is made of; the metrics read the first 100
_ENOUGH_PAIRS = 40
_CONFIDENCE = 0.05
_ENOUGH_WITNESSES = 20  # documents; with fewer, a kind says nothing
_WITNESSES, _MOST_DRAWS = 400, 8  # of each kind: several of a document where few documents choose
_LARGEST_LOSS = 0.01  # that one kind of queries may bear for the others' gain
_ENOUGH_GAIN = 0.75  # share of the best gain that a gentler strength must reach
_STRUCTURE = "structure"

#: Vectors (n, d) of texts in a role ("query" or "document") at a strength of the adapter.
Embed = Callable[[Sequence[str], Role, float], np.ndarray]


@dataclass(frozen=True)
class EvaluationSet:
    """Documents to search and the two halves of queries.

    Attributes:
        document_ids: chunk ids.
        documents: chunk texts without their query part.
        choose: pairs that choose the strength.
        report: pairs that report.
        weak: whether queries had to be cut out of the texts themselves, for want of structure.
        witnesses: further queries that help to choose, by kind: keywords and spans of the choosing half's documents.
    """

    document_ids: list[str]
    documents: list[str]
    choose: list[StructuralPair]
    report: list[StructuralPair]
    weak: bool = False
    witnesses: Mapping[str, list[StructuralPair]] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """What the gate decided and why.

    Attributes:
        strength: chosen strength; 0 keeps the base.
        choosing: nDCG@10 on the choosing half by strength, 0 included: the mean over kinds of queries.
        evaluations: on the reporting half, by system: "bm25", "base", "adapted", "hybrid".
        comparison: adapted against base on the reporting half; None when no strength was chosen.
        summary: one plain sentence.
    """

    strength: float
    choosing: dict[float, float]
    evaluations: dict[str, Evaluation]
    comparison: Comparison | None
    summary: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; per-query values included."""
        return {
            "summary": self.summary,
            "strength": self.strength,
            "choosing": {str(s): value for s, value in self.choosing.items()},
            "evaluations": {name: evaluation.as_dict() for name, evaluation in self.evaluations.items()},
            "comparison": self.comparison.as_dict() if self.comparison else None,
            **self.details,
        }


def evaluation_pairs(chunks: Sequence[Chunk]) -> tuple[list[StructuralPair], bool]:
    """Structural pairs of a corpus, or cropped ones where it has too little structure.

    Returns:
        (pairs, weak): ``weak`` says that queries were cropped, each the first half of a text whose second half is
        the answer; such queries are longer and more literal than a person's.
    """
    pairs = structural_pairs(chunks)
    if len(pairs) >= _ENOUGH_PAIRS:
        return pairs, False
    known = {pair.chunk_id for pair in pairs}
    for chunk in chunks:
        if chunk.id not in known and (halves := cropped(chunk.text)):
            pairs.append(StructuralPair(halves[0], chunk.id, chunk.document_id, "first_half", halves[1]))
    return pairs, True


def make_evaluation_set(
    chunks: Sequence[Chunk],
    choose: list[StructuralPair],
    report: list[StructuralPair],
    *,
    max_documents: int,
    weak: bool,
    seed: int,
) -> EvaluationSet:
    """Documents with every query part taken out: the relevant ones and random others up to ``max_documents``."""
    held = [*choose, *report]
    relevant = {pair.chunk_id for pair in held}
    others = [chunk.id for chunk in chunks if chunk.id not in relevant]
    room = max(0, max_documents - len(relevant))
    drawn = set(np.random.default_rng((seed, 3)).permutation(others)[:room].tolist()) if others else set()
    kept = [chunk for chunk in chunks if chunk.id in relevant or chunk.id in drawn]
    corpus = structural_data(held, kept).corpus
    texts = [f"{title}\n{text}" if title else text for title, text in corpus.values()]
    return EvaluationSet(
        list(corpus), texts, choose, report, weak, _witnesses(choose, dict(zip(corpus, texts, strict=True)), seed)
    )


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


def run_gate(
    data: EvaluationSet, embed: Embed, strengths: Sequence[float], *, strict: bool = False, gentle: bool = True
) -> Gate:
    """Choose the strength and report.

    Strengths are compared by nDCG@10 on the choosing half, averaged over the queries of a document, documents and
    kinds of queries; one under which any kind loses more than 0.01 is not considered. The smallest that reaches three
    quarters of the best gain is taken, because queries made of the texts go on rising where people's no longer do; if
    it beats the base with one-sided p < 0.05 in a paired bootstrap. Otherwise the base is kept, and also if the
    reporting half got worse beyond noise (p < 0.05): it chooses nothing, but can refuse.

    Args:
        data: documents and the two halves of queries.
        embed: gives vectors at a strength; strength 0 is the base.
        strengths: positive strengths to try.
        strict: ask that structural queries gain in themselves, one-sided p < 0.05. LoRA can learn to find the words of
            keywords and spans and nothing else, and then people's questions fare worse.
        gentle: take the smallest strength with three quarters of the best gain, and not the best itself: that is for an
            adapter that nothing held to the base while it was trained.
    """

    @functools.cache  # one strength after the other: under LoRA each costs a run of the backbone over all documents
    def documents(strength: float) -> np.ndarray:
        return embed(data.documents, "document", strength)

    def score(pairs: Sequence[StructuralPair], strength: float) -> tuple[Evaluation, Mapping[str, Mapping[str, float]]]:
        ids = [str(i) for i in range(len(pairs))]
        vectors = embed([pair.query for pair in pairs], "query", strength)
        run = dense_run(vectors, documents(strength), ids, data.document_ids, k=_DEPTH)
        return score_run(run, _qrels(pairs)), run

    kinds = {_STRUCTURE: data.choose, **data.witnesses}

    def values(strength: float) -> dict[str, np.ndarray]:
        return {kind: _by_document(score(pairs, strength)[0], pairs) for kind, pairs in kinds.items()}

    before = values(0.0)
    tried = {strength: values(strength) for strength in strengths}
    gains = {strength: [found[kind] - before[kind] for kind in kinds] for strength, found in tried.items()}
    choosing = {
        strength: float(np.mean([per_query.mean() for per_query in found.values()]))
        for strength, found in {0.0: before, **tried}.items()
    }
    harmless = [strength for strength in tried if min(gain.mean() for gain in gains[strength]) >= -_LARGEST_LOSS]
    best = max(harmless or tried, key=lambda strength: choosing[strength])
    enough = choosing[0.0] + (_ENOUGH_GAIN if gentle else 1.0) * (choosing[best] - choosing[0.0])
    best = min((strength for strength in harmless if choosing[strength] >= enough > choosing[0.0]), default=best)
    p_value = balanced_p_value(gains[best])
    accepted = bool(harmless) and choosing[best] > choosing[0.0] and p_value < 2 * _CONFIDENCE  # one-sided
    words_alone = accepted and strict and _p_of_gain(gains[best][0]) >= _CONFIDENCE
    accepted = accepted and not words_alone
    logger.info("strengths on the choosing half: %s", {s: round(v, 4) for s, v in choosing.items()})

    base, base_run = score(data.report, 0.0)
    ids = [str(i) for i in range(len(data.report))]
    lexical = lexical_run([p.query for p in data.report], data.documents, ids, data.document_ids, k=_DEPTH)
    evaluations = {"bm25": score_run(lexical, _qrels(data.report)), "base": base}
    final_run, comparison = base_run, None
    if accepted:
        adapted, adapted_run = score(data.report, best)
        comparison = compare(base, adapted, metric=METRIC)
        accepted = not (comparison.difference < 0 and comparison.p_value < _CONFIDENCE)
        if accepted:
            evaluations["adapted"], final_run = adapted, adapted_run
    evaluations["hybrid"] = score_run(hybrid_run([lexical, final_run]), _qrels(data.report))
    kind = "cropped" if data.weak else "structural"
    if not harmless and choosing[best] > choosing[0.0]:
        gentlest = min(tried)
        worst = min(kinds, key=lambda name: float((tried[gentlest][name] - before[name]).mean()))
        change = " → ".join(f"{found[worst].mean():.4f}" for found in (before, tried[gentlest]))
        summary = (
            f"kept the base model: every strength costs one kind of held-back queries more than {_LARGEST_LOSS} "
            f"({kind if worst == _STRUCTURE else worst} queries {change} {METRIC} at strength {gentlest:g}), "
            "whatever the others gain"
        )
    elif words_alone:
        change = f"{before[_STRUCTURE].mean():.4f} → {tried[best][_STRUCTURE].mean():.4f} {METRIC}"
        summary = (
            f"kept the base model: at strength {best:g} held-back {' and '.join(data.witnesses)} queries gain, "
            f"{kind} ones do not beyond noise ({change}); try --adapter linear, which learns less"
        )
    elif comparison is None:
        asked = sum(map(len, kinds.values()))
        summary = (
            f"kept the base model: no strength beat it on {asked} held-back {_listed(kind, kinds)} "
            f"(best {choosing[best]:.4f} against {choosing[0.0]:.4f} {METRIC}, p = {p_value:.3g})"
        )
    else:
        p = "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3f}"
        before_after = f"{base.mean(METRIC):.4f} → {base.mean(METRIC) + comparison.difference:.4f} {METRIC}"
        measured = f"{before_after} on {len(data.report)} held-back {kind} queries"
        if not accepted:
            summary = f"kept the base model: strength {best:g}, chosen on other queries, took {measured}, {p}"
        elif comparison.p_value < _CONFIDENCE:
            summary = f"adapted: {measured}, {p} (strength {best:g})"
        else:
            summary = f"adapted, without a difference beyond noise: {measured}, {p} (strength {best:g})"
    details = {
        "weak": data.weak,
        "kinds": {
            kind: {str(strength): float(found[kind].mean()) for strength, found in {0.0: before, **tried}.items()}
            for kind in kinds
        },
    }
    return Gate(best if accepted else 0.0, choosing, evaluations, comparison, summary, details)


def _by_document(evaluation: Evaluation, pairs: Sequence[StructuralPair]) -> np.ndarray:
    """Mean of each document's queries: those of one document are no independent witnesses."""
    values, found = evaluation.values(METRIC), dict[str, list[float]]()
    for i, pair in enumerate(pairs):
        found.setdefault(pair.chunk_id, []).append(values[str(i)])
    return np.array([np.mean(of_one) for of_one in found.values()])


def _p_of_gain(gain: np.ndarray) -> float:
    """One-sided p value of a gain by query."""
    return balanced_p_value([gain]) / 2 if gain.mean() > 0 else 1.0


def _listed(kind: str, kinds: Mapping[str, object]) -> str:
    names = [kind, *(other for other in kinds if other != _STRUCTURE)]
    return f"{names[0]} queries" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} queries"


def _qrels(pairs: Sequence[StructuralPair]) -> dict[str, dict[str, int]]:
    return {str(i): {pair.chunk_id: 1} for i, pair in enumerate(pairs)}
