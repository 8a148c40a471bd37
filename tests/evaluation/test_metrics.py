from __future__ import annotations

from math import log2

import pytest

from revela_rag.errors import CorpusError
from revela_rag.evaluation import METRICS, score_run

QRELS = {"a": {"x": 1, "y": 1}, "b": {"z": 3, "x": 1}, "none": {"x": 0}, "silent": {"x": 1}}
RUN = {"a": {"w": 0.9, "x": 0.8, "v": 0.7, "y": 0.6}, "b": {"x": 2.0, "z": 1.0}, "none": {"x": 1.0}}


def test_values_by_hand() -> None:
    result = score_run(RUN, QRELS)
    ideal_a = 1 + 1 / log2(3)
    assert result.per_query["nDCG@10"]["a"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal_a)
    assert result.per_query["nDCG@10"]["b"] == pytest.approx((1 + 3 / log2(3)) / (3 + 1 / log2(3)))
    assert result.per_query["MRR@10"] == {"a": 0.5, "b": 1.0, "silent": 0.0}
    assert result.per_query["Recall@100"] == {"a": 1.0, "b": 1.0, "silent": 0.0}
    assert result.metrics == METRICS
    assert result.mean("MRR@10") == pytest.approx(0.5)


def test_queries_without_relevant_documents_are_excluded_and_silent_ones_score_zero() -> None:
    result = score_run(RUN, QRELS)
    assert (result.queries, result.excluded) == (3, 1)
    assert result.per_query["nDCG@10"]["silent"] == 0.0
    assert score_run({"silent": {}}, QRELS).mean("nDCG@10") == 0.0


def test_cutoffs_cut() -> None:
    run = {"a": {f"d{rank:03d}": -float(rank) for rank in range(120)}}
    eleventh = score_run(run, {"a": {"d010": 1}})
    assert (eleventh.mean("nDCG@10"), eleventh.mean("MRR@10"), eleventh.mean("Recall@100")) == (0.0, 0.0, 1.0)
    assert score_run(run, {"a": {"d009": 1}}).mean("MRR@10") == pytest.approx(0.1)
    assert score_run(run, {"a": {"d099": 1}}).mean("Recall@100") == 1.0
    assert score_run(run, {"a": {"d100": 1}}).mean("Recall@100") == 0.0
    other = score_run(run, {"a": {"d002": 1}}, k=(3, 5))
    assert other.metrics == ("nDCG@3", "Recall@5", "MRR@3")
    assert other.mean("nDCG@3") == pytest.approx(0.5)


def test_all_at_k_asks_for_every_relevant_document() -> None:
    result = score_run(RUN, QRELS, all_at=(1, 2, 4))
    assert result.metrics == (*METRICS, "All@1", "All@2", "All@4")
    assert result.per_query["All@1"] == {"a": 0.0, "b": 0.0, "silent": 0.0}
    assert result.per_query["All@2"] == {"a": 0.0, "b": 1.0, "silent": 0.0}
    assert result.per_query["All@4"] == {"a": 1.0, "b": 1.0, "silent": 0.0}


def test_ties_have_one_order_for_all_metrics() -> None:
    result = score_run({"a": {"x": 1.0, "y": 1.0}}, {"a": {"x": 1}})
    assert result.mean("MRR@10") == 0.5, "equal scores: the larger id comes first"
    assert result.mean("nDCG@10") == pytest.approx(1 / log2(3))


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(CorpusError, match="none of the 1 judged queries"):
        score_run({}, {"a": {"x": 0}})


def test_unknown_metric_names_the_others() -> None:
    with pytest.raises(ValueError, match=r"no metric 'MAP'.*nDCG@10"):
        score_run(RUN, QRELS).mean("MAP")


def test_as_dict_holds_means_intervals_and_every_query() -> None:
    result = score_run(RUN, QRELS, name="mine").as_dict()
    assert result["name"] == "mine"
    summary = result["metrics"]["MRR@10"]
    assert summary["mean"] == pytest.approx(0.5)
    assert 0.0 <= summary["low"] < 0.5 < summary["high"] <= 1.0
    assert result["per_query"]["MRR@10"]["a"] == 0.5
    assert (result["queries"], result["excluded"]) == (3, 1)
