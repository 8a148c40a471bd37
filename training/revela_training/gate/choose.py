"""Do no harm: choose the adapter's strength on one half of the held-back queries and report on the other.

Structural queries alone choose badly. They are written like the text below them, so they go on rising while
keywords and short spans, and with them people's queries, already fall. All kinds vote, each with the same weight.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from revela_rag.context import surroundings
from revela_rag.corpus import StructuralPair
from revela_rag.evaluation import (
    Comparison,
    Evaluation,
    balanced_p_value,
    compare,
    dense_run,
    fused_run,
    lexical_run,
    score_run,
)
from revela_rag.fusion import dense_share
from revela_rag.index.words import WordIndex
from revela_rag.model.st_format import Role
from revela_training.gate.held_back import EvaluationSet

__all__ = ["FEWEST_TO_CHOOSE", "Embed", "Gate", "keep_base", "run_gate"]

logger = logging.getLogger(__name__)

METRIC = "nDCG@10"
_DEPTH = 100  # what the metrics read of a run
_CONFIDENCE = 0.05
_STRONGEST = 0.625  # of an adapter that nothing held to the base: more gave people's queries nothing on the mean
_LARGEST_LOSS = 0.01  # that one kind of queries may bear for the others' gain
FEWEST_TO_CHOOSE = 10  # documents: a bootstrap of one query takes any gain for certain
_TOO_EASY = 0.995  # nDCG@10 of the base from which there is nothing left to gain
_STRUCTURE = "structure"

#: Vectors (n, d) of texts in a role ("query" or "document") at a strength of the adapter.
Embed = Callable[[Sequence[str], Role, float], np.ndarray]
#: What a strength does to the queries of a kind: their evaluation.
_Score = Callable[[Sequence[StructuralPair], float], Evaluation]


@dataclass(frozen=True)
class Gate:
    """What the gate decided and why.

    Attributes:
        strength: chosen strength; 0 keeps the base.
        choosing: nDCG@10 on the choosing half by strength, 0 included: the mean over kinds of queries.
        evaluations: on the reporting half, by system: "bm25", "base", "hybrid" (hybrid search with the returned model),
            and where that is not the base, "adapted" and "hybrid_base" (hybrid search with the base).
        comparison: adapted against base on the reporting half; None when no strength was chosen.
        hybrid_comparison: the same of hybrid search.
        summary: one plain sentence.
        trust: how much the base's cosines count beside BM25, which the returned model keeps; None where nothing was
            judged.
    """

    strength: float
    choosing: dict[float, float]
    evaluations: dict[str, Evaluation]
    comparison: Comparison | None
    hybrid_comparison: Comparison | None
    summary: str
    details: dict[str, Any] = field(default_factory=dict)
    trust: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; per-query values included."""
        return {
            "summary": self.summary,
            "strength": self.strength,
            "choosing": {str(s): value for s, value in self.choosing.items()},
            "evaluations": {name: evaluation.as_dict() for name, evaluation in self.evaluations.items()},
            "comparison": self.comparison.as_dict() if self.comparison else None,
            "hybrid_comparison": self.hybrid_comparison.as_dict() if self.hybrid_comparison else None,
            "trust": self.trust,
            **self.details,
        }


def keep_base(summary: str) -> Gate:
    """The gate where there is nothing to judge by."""
    return Gate(0.0, {}, {}, None, None, f"kept the base model: {summary}")


def run_gate(
    data: EvaluationSet, embed: Embed, strengths: Sequence[float], *, strict: bool = False, gentle: bool = True
) -> Gate:
    """Choose the strength and report.

    Strengths are compared by nDCG@10 on the choosing half, averaged over the queries of a document, documents and
    kinds of queries; one under which any kind loses more than 0.01 is not considered. The smallest that comes near
    enough to the best gain is taken, see `_enough`, if it beats the base with one-sided p < 0.05 in a paired bootstrap
    of at least ten documents. Otherwise the base is kept, and also if the reporting half got worse beyond noise
    (p < 0.05), by cosine or in hybrid search: it chooses nothing, but can refuse.

    Args:
        data: documents and the two halves of queries.
        embed: gives vectors at a strength; strength 0 is the base.
        strengths: positive strengths to try.
        strict: ask that structural (or cropped) queries gain in themselves, one-sided p < 0.05. LoRA can learn to find
            the words of keywords and spans and nothing else, and then people's questions fare worse; and where texts
            are terse, their halves may say nothing at all.
        gentle: take the smallest strength that comes near enough to the best gain, at most 5/8, and not the best
            itself: that is for an adapter that nothing held to the base while it was trained.
    """

    @functools.cache  # one strength after the other: under LoRA each costs a run of the backbone over all documents
    def documents(strength: float) -> np.ndarray:
        return embed(data.documents, "document", strength)

    def score(pairs: Sequence[StructuralPair], strength: float) -> Evaluation:
        ids = [str(i) for i in range(len(pairs))]
        vectors = embed([pair.query for pair in pairs], "query", strength)
        return score_run(dense_run(vectors, documents(strength), ids, data.document_ids, k=_DEPTH), _qrels(pairs))

    choice = _choose(data, score, strengths, strict=strict, gentle=gentle)
    queries = {str(i): pair.query for i, pair in enumerate(data.report)}
    sources = data.document_ids if data.sources is None else data.sources
    words = WordIndex.build(range(len(sources)), data.documents, sources)

    trust = dense_share(np.unique(surroundings(sources), return_inverse=True)[1], documents(0.0).__getitem__)

    def hybrid(strength: float) -> Evaluation:
        ids, found = data.document_ids, embed(list(queries.values()), "query", strength)
        run = fused_run(found, documents(strength), queries, sources, words, chunk_ids=ids, k=_DEPTH, trust=trust)
        return score_run(run, _qrels(data.report))

    bm25 = lexical_run(list(queries.values()), data.documents, list(queries), data.document_ids, k=_DEPTH)
    base, together = score(data.report, 0.0), hybrid(0.0)
    evaluations = {"bm25": score_run(bm25, _qrels(data.report)), "base": base}
    dense = both = None
    accepted = choice.accepted
    if accepted:
        adapted, adapted_together = score(data.report, choice.best), hybrid(choice.best)
        dense, both = compare(base, adapted, metric=METRIC), compare(together, adapted_together, metric=METRIC)
        accepted = not _worse(dense) and not _worse(both)
        if accepted:
            evaluations |= {"adapted": adapted, "hybrid_base": together}
            together = adapted_together
    evaluations["hybrid"] = together
    summary = choice.refusal() if dense is None or both is None else _verdict(choice, dense, both, accepted)
    strength = choice.best if accepted else 0.0
    return Gate(strength, choice.choosing, evaluations, dense, both, summary, choice.details(), trust)


@dataclass(frozen=True)
class _Choice:
    """What the choosing half says: values by kind of query, of documents, without an adapter and at each strength."""

    data: EvaluationSet
    before: Mapping[str, np.ndarray]
    tried: Mapping[float, Mapping[str, np.ndarray]]
    choosing: dict[float, float]
    harmless: bool  # some strength is
    best: float
    p_value: float
    words_alone: bool
    accepted: bool

    @property
    def few(self) -> bool:
        """Whether too few documents choose to tell a gain from chance."""
        return len(self.before[_STRUCTURE]) < FEWEST_TO_CHOOSE

    @property
    def kind(self) -> str:
        """What structural queries are called."""
        return "cropped" if self.data.weak else "structural"

    def refusal(self) -> str:
        """Why the base was kept before the reporting half was asked."""
        if self.few:
            return (
                f"kept the base model: {len(self.before[_STRUCTURE])} held-back {self.kind} queries are too few to "
                f"choose by, it takes {FEWEST_TO_CHOOSE}; add documents"
            )
        if not self.harmless and self.choosing[self.best] > self.choosing[0.0]:
            gentlest = min(self.tried)
            after = self.tried[gentlest]
            worst = min(after, key=lambda name: float((after[name] - self.before[name]).mean()))
            change = " → ".join(f"{found[worst].mean():.4f}" for found in (self.before, after))
            return (
                f"kept the base model: every strength costs one kind of held-back queries more than {_LARGEST_LOSS} "
                f"({self.kind if worst == _STRUCTURE else worst} queries {change} {METRIC} at strength {gentlest:g}), "
                "whatever the others gain"
            )
        if self.words_alone:
            after = self.tried[self.best]
            change = " → ".join(f"{found[_STRUCTURE].mean():.4f}" for found in (self.before, after))
            return (
                f"kept the base model: at strength {self.best:g} held-back {' and '.join(self.data.witnesses)} "
                f"queries gain, {self.kind} ones do not beyond noise ({change} {METRIC})"
                f"{'' if self.data.terse else '; try --adapter linear, which learns less'}"
            )
        asked = len(self.data.choose) + sum(map(len, self.data.witnesses.values()))
        names = [self.kind, *self.data.witnesses]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        if self.choosing[0.0] >= _TOO_EASY:
            return (
                f"kept the base model: the {asked} held-back {listed} queries are too easy to choose by, it already "
                f"finds nearly every answer first ({self.choosing[0.0]:.4f} {METRIC})"
            )
        return (
            f"kept the base model: no strength beat it on {asked} held-back {listed} queries "
            f"(best {self.choosing[self.best]:.4f} against {self.choosing[0.0]:.4f} {METRIC}, p = {self.p_value:.3g})"
        )

    def details(self) -> dict[str, Any]:
        """Means by kind and strength."""
        found = {0.0: self.before, **self.tried}
        kinds = {
            kind: {str(strength): float(of[kind].mean()) for strength, of in found.items()} for kind in self.before
        }
        return {"weak": self.data.weak, "kinds": kinds}


def _choose(data: EvaluationSet, score: _Score, strengths: Sequence[float], *, strict: bool, gentle: bool) -> _Choice:
    kinds = {_STRUCTURE: data.choose, **data.witnesses}

    def values(strength: float) -> dict[str, np.ndarray]:
        return {kind: _by_document(score(pairs, strength), pairs) for kind, pairs in kinds.items()}

    before = values(0.0)
    tried = {strength: values(strength) for strength in strengths}
    gains = {strength: [found[kind] - before[kind] for kind in kinds] for strength, found in tried.items()}
    choosing = {
        strength: float(np.mean([per_query.mean() for per_query in found.values()]))
        for strength, found in {0.0: before, **tried}.items()
    }
    harmless = [strength for strength in tried if min(gain.mean() for gain in gains[strength]) >= -_LARGEST_LOSS]
    best = max(harmless or tried, key=lambda strength: choosing[strength])
    gain = {strength: value - choosing[0.0] for strength, value in choosing.items()}
    enough = choosing[0.0] + gain[best] * (_enough(gain[best], gain[max(tried)]) if gentle else 1.0)
    best = min((strength for strength in harmless if choosing[strength] >= enough > choosing[0.0]), default=best)
    if gentle:
        best = max((strength for strength in harmless if strength <= min(best, _STRONGEST)), default=best)
    p_value = balanced_p_value(gains[best])
    accepted = bool(harmless) and choosing[best] > choosing[0.0] and p_value < 2 * _CONFIDENCE  # one-sided
    words_alone = accepted and strict and _p_of_gain(gains[best][0]) >= _CONFIDENCE
    logger.info("strengths on the choosing half: %s", {s: round(v, 4) for s, v in choosing.items()})
    accepted = accepted and not words_alone
    choice = _Choice(data, before, tried, choosing, bool(harmless), best, p_value, words_alone, accepted)
    return replace(choice, accepted=False) if choice.few else choice


def _enough(best: float, full: float) -> float:
    """The share of the best gain that a gentler strength must reach: half of it, and of the rest what is left in full.

    Queries made of the texts go on rising where people's no longer do. Where even theirs fall towards full strength,
    people's fell long before; where they do not, there is little to fear (dev/log, quality, "Why that strength").

    Args:
        best: the best gain over the base.
        full: the gain at full strength.
    """
    left = full / best if best > 0 else 0.0
    return (1 + min(1.0, max(0.0, left))) / 2


def _verdict(choice: _Choice, dense: Comparison, hybrid: Comparison, accepted: bool) -> str:
    """What the reporting half says of the strength that the choosing half took."""
    queries = f"on {len(choice.data.report)} held-back {choice.kind} queries"
    if not accepted:
        worse, what = (dense, "") if _worse(dense) else (hybrid, "hybrid search ")
        return (
            f"kept the base model: strength {choice.best:g}, chosen on other queries, took {what}{_change(worse)} "
            f"{METRIC} {queries}, {_p(worse)}"
        )
    chosen = f"strength {choice.best:g}"
    how = "adapted"
    if dense.p_value >= _CONFIDENCE:
        easy = "these queries are too easy to tell, as the base model finds nearly every answer first"
        how = f"trained, but {easy if dense.before >= _TOO_EASY else 'no difference can be told from chance'}"
        chosen += ", which gained on the queries it was chosen by"
    return (
        f"{how}: {_change(dense)} {METRIC} {queries}, {_p(dense)} ({chosen}); "
        f"hybrid search {_change(hybrid)}, {_p(hybrid)}"
    )


def _change(comparison: Comparison) -> str:
    return f"{comparison.before:.4f} → {comparison.after:.4f}"


def _p(comparison: Comparison) -> str:
    return "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3f}"


def _worse(comparison: Comparison) -> bool:
    return comparison.difference < 0 and comparison.p_value < _CONFIDENCE


def _by_document(evaluation: Evaluation, pairs: Sequence[StructuralPair]) -> np.ndarray:
    """Mean of each document's queries: those of one document are no independent witnesses."""
    values, found = evaluation.values(METRIC), dict[str, list[float]]()
    for i, pair in enumerate(pairs):
        found.setdefault(pair.chunk_id, []).append(values[str(i)])
    return np.array([np.mean(of_one) for of_one in found.values()])


def _p_of_gain(gain: np.ndarray) -> float:
    """One-sided p value of a gain by query."""
    return balanced_p_value([gain]) / 2 if gain.mean() > 0 else 1.0


def _qrels(pairs: Sequence[StructuralPair]) -> dict[str, dict[str, int]]:
    return {str(i): {pair.chunk_id: 1} for i, pair in enumerate(pairs)}
