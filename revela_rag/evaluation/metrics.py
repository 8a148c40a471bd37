"""From a run to per-query metrics, computed by ir-measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from revela_rag.errors import CorpusError

__all__ = ["METRICS", "Evaluation", "score_run"]

#: The metrics every evaluation holds, in the order of tables.
METRICS = ("nDCG@10", "Recall@100", "MRR@10")


@dataclass
class Evaluation:
    """How well one retriever answered one set of queries.

    Attributes:
        name: what was evaluated.
        per_query: metric to {query id: value in [0, 1]}; every query with a relevant document is there.
        excluded: queries left out because no document is relevant to them.
        details: facts worth keeping beside the numbers, such as the name of the data.
    """

    name: str
    per_query: dict[str, dict[str, float]]
    excluded: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def queries(self) -> int:
        """Number of queries that count."""
        return len(next(iter(self.per_query.values())))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of tables."""
        return tuple(self.per_query)

    def mean(self, metric: str = "nDCG@10") -> float:
        """The mean of a metric over all queries.

        Raises:
            ValueError: there is no such metric; the message names those there are.
        """
        values = self.values(metric)
        return sum(values.values()) / len(values)

    def interval(
        self, metric: str = "nDCG@10", *, level: float = 0.95, samples: int = 10_000, seed: int = 0
    ) -> tuple[float, float]:
        """Bootstrap interval of the mean, see :func:`~revela_rag.evaluation.bootstrap_interval`."""
        from revela_rag.evaluation.bootstrap import bootstrap_interval

        return bootstrap_interval(list(self.values(metric).values()), level=level, samples=samples, seed=seed)

    def values(self, metric: str) -> dict[str, float]:
        """Query id to value of one metric; a ValueError names the metrics there are."""
        if metric not in self.per_query:
            raise ValueError(f"no metric {metric!r} in this evaluation, choose one of: {', '.join(self.per_query)}")
        return self.per_query[metric]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types: means with their 95 % intervals, and every query's values."""
        metrics = {}
        for metric in self.per_query:
            low, high = self.interval(metric)
            metrics[metric] = {"mean": self.mean(metric), "low": low, "high": high}
        return {
            "name": self.name,
            "queries": self.queries,
            "excluded": self.excluded,
            "metrics": metrics,
            **({"details": self.details} if self.details else {}),
            "per_query": self.per_query,
        }


def score_run(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    name: str = "run",
    k: tuple[int, int] = (10, 100),
    all_at: Sequence[int] = (),
) -> Evaluation:
    """Score a run with nDCG, recall and mean reciprocal rank.

    Queries without any relevant document are excluded and counted; a judged query that the run lacks, or for
    which it found nothing, scores 0. Documents of equal score are ordered by id, descending, as in trec_eval.

    Args:
        run: query id to {document id: score}, higher is better.
        qrels: query id to {document id: relevance}; 1 or more is relevant, grades count in nDCG.
        name: what to call the result.
        k: cutoff of nDCG and MRR, and cutoff of recall.
        all_at: cutoffs of All@k: 1 where every relevant document is among the first k, else 0. An agent that needs
            two tools is helped by both.

    Raises:
        CorpusError: no query has a relevant document.
    """
    from ir_measures import RR, R, iter_calc, nDCG

    precise, deep = k
    judged = {
        query_id: {document_id: max(grade, 0) for document_id, grade in grades.items()}
        for query_id, grades in qrels.items()
        if any(grade > 0 for grade in grades.values())
    }
    if not judged:
        raise CorpusError(f"none of the {len(qrels)} judged queries has a relevant document, nothing can be measured")
    names = {
        nDCG @ precise: f"nDCG@{precise}",
        R @ deep: f"Recall@{deep}",
        RR @ precise: f"MRR@{precise}",
    }
    per_query: dict[str, dict[str, float]] = {metric: dict.fromkeys(judged, 0.0) for metric in names.values()}
    ranked = {query_id: _ranks(run[query_id], max(k)) for query_id in judged if run.get(query_id)}
    if ranked:
        scored = {query_id: judged[query_id] for query_id in ranked}
        for result in iter_calc(list(names), scored, ranked):
            per_query[names[result.measure]][result.query_id] = float(result.value)
    for cutoff in all_at:
        per_query[f"All@{cutoff}"] = {
            query_id: float(_relevant(grades) <= set(_ranks(run.get(query_id) or {}, cutoff)))
            for query_id, grades in judged.items()
        }
    return Evaluation(name=name, per_query=per_query, excluded=len(qrels) - len(judged))


def _relevant(grades: Mapping[str, int]) -> set[str]:
    return {document_id for document_id, grade in grades.items() if grade > 0}


def _ranks(scores: Mapping[str, float], depth: int) -> dict[str, float]:
    """The same order with scores that are all different: ir-measures' providers disagree about ties."""
    order = sorted(scores, key=lambda document_id: (scores[document_id], document_id), reverse=True)[:depth]
    return {document_id: float(depth - rank) for rank, document_id in enumerate(order)}
