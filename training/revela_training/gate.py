"""Do no harm: choose the adapter's strength on one half of the structural queries and report on the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from revela_rag.corpus import Chunk, StructuralPair, structural_pairs
from revela_rag.evaluation import (
    Comparison,
    Evaluation,
    compare,
    dense_run,
    hybrid_run,
    lexical_run,
    score_run,
    structural_data,
)
from revela_training.backbone import Role

__all__ = ["EvaluationSet", "Gate", "evaluation_pairs", "make_evaluation_set", "run_gate"]

logger = logging.getLogger(__name__)

METRIC = "nDCG@10"
_ENOUGH_PAIRS = 40
_CONFIDENCE = 0.05

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
    """

    document_ids: list[str]
    documents: list[str]
    choose: list[StructuralPair]
    report: list[StructuralPair]
    weak: bool = False


@dataclass(frozen=True)
class Gate:
    """What the gate decided and why.

    Attributes:
        strength: chosen strength; 0 keeps the base.
        choosing: mean nDCG@10 on the choosing half by strength, 0 included.
        evaluations: on the reporting half, by system: "bm25", "base", "adapted", "hybrid".
        comparison: adapted against base on the reporting half; None when the base is kept.
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
        words = chunk.text.split()
        if chunk.id not in known and len(words) >= 20:
            middle = len(words) // 2
            query, answer = " ".join(words[:middle]), " ".join(words[middle:])
            pairs.append(StructuralPair(query, chunk.id, chunk.document_id, "first_half", answer))
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
    return EvaluationSet(list(corpus), texts, choose, report, weak)


def run_gate(data: EvaluationSet, embed: Embed, strengths: Sequence[float]) -> Gate:
    """Choose the strength and report.

    The best strength on the choosing half is taken if it beats the base there with one-sided p < 0.05 in a paired
    bootstrap; otherwise the base is kept.

    Args:
        data: documents and the two halves of queries.
        embed: gives vectors at a strength; strength 0 is the base.
        strengths: positive strengths to try.
    """

    def score(pairs: Sequence[StructuralPair], strength: float) -> tuple[Evaluation, Mapping[str, Mapping[str, float]]]:
        ids = [str(i) for i in range(len(pairs))]
        vectors = embed([pair.query for pair in pairs], "query", strength)
        run = dense_run(vectors, embed(data.documents, "document", strength), ids, data.document_ids)
        return score_run(run, _qrels(pairs)), run

    base_choosing, _ = score(data.choose, 0.0)
    choosing = {0.0: base_choosing.mean(METRIC)}
    tried = {strength: score(data.choose, strength)[0] for strength in strengths}
    choosing |= {strength: evaluation.mean(METRIC) for strength, evaluation in tried.items()}
    best = max(tried, key=lambda strength: choosing[strength])
    trial = compare(base_choosing, tried[best], metric=METRIC)
    accepted = trial.difference > 0 and trial.p_value < 2 * _CONFIDENCE  # two-sided p to one-sided
    logger.info("strengths on the choosing half: %s", {s: round(v, 4) for s, v in choosing.items()})

    base, base_run = score(data.report, 0.0)
    ids = [str(i) for i in range(len(data.report))]
    lexical = lexical_run([p.query for p in data.report], data.documents, ids, data.document_ids)
    evaluations = {"bm25": score_run(lexical, _qrels(data.report)), "base": base}
    final_run, comparison = base_run, None
    if accepted:
        evaluations["adapted"], final_run = score(data.report, best)
        comparison = compare(base, evaluations["adapted"], metric=METRIC)
    evaluations["hybrid"] = score_run(hybrid_run([lexical, final_run]), _qrels(data.report))
    kind = "cropped" if data.weak else "structural"
    if comparison is None:
        summary = (
            f"kept the base model: no strength beat it on {len(data.choose)} held-back {kind} queries "
            f"(best {choosing[best]:.4f} against {choosing[0.0]:.4f} {METRIC}, p = {trial.p_value:.3g})"
        )
    else:
        after = evaluations["adapted"].mean(METRIC)
        p = "< 0.001" if comparison.p_value < 0.001 else f"= {comparison.p_value:.3f}"
        summary = (
            f"adapted: {base.mean(METRIC):.4f} → {after:.4f} {METRIC} on {len(data.report)} held-back {kind} queries, "
            f"p {p} (strength {best:g})"
        )
    return Gate(best if accepted else 0.0, choosing, evaluations, comparison, summary, {"weak": data.weak})


def _qrels(pairs: Sequence[StructuralPair]) -> dict[str, dict[str, int]]:
    return {str(i): {pair.chunk_id: 1} for i, pair in enumerate(pairs)}
