"""The table of parts, on data small enough to know."""

from __future__ import annotations

import pytest

from revela_rag.errors import CorpusError
from revela_rag.evaluation import RetrievalData
from revela_rag.evaluation.parts import PLAIN, compare_parts

from .conftest import WordEncoder

DATA = RetrievalData(
    corpus={
        "keys": ("", "rotate the keys"),
        "again": ("", "rotate the keys again"),
        "tokens": ("", "revoke a token"),
        "q2": ("", "moon landing"),
        "moon": ("", "the moon landing of apollo"),
    },
    queries={"q1": "rotate keys and revoke tokens", "q2": "moon landing"},
    qrels={"q1": {"keys": 1, "tokens": 1}, "q2": {"moon": 1}},
    name="tiny",
)


class Encoder(WordEncoder):
    token_window = None
    name = ""
    chosen_max_length = None


def test_each_part_stands_beside_the_search_without_it():
    def backwards(query, candidates):
        return range(len(candidates.hits) - 1, -1, -1)

    parts = {"same": {"select": "top"}, "backwards": {"select": backwards}, "feedback": {"feedback": 1}}
    found = compare_parts(Encoder(), DATA, parts=parts)
    assert [part.name for part in found] == [PLAIN, "same", "backwards", "feedback"]
    plain, same, worse, _ = found
    assert plain.evaluation.mean("MRR@10") == 1.0  # the document that is the query is no answer to it
    assert plain.comparisons == {} and {"nDCG@10", "Recall@100", "All@5"} < set(same.comparisons)
    assert same.evaluation.per_query == plain.evaluation.per_query
    assert same.comparisons["nDCG@10"].difference == 0
    assert worse.comparisons["nDCG@10"].difference == pytest.approx(worse.evaluation.mean() - plain.evaluation.mean())
    assert worse.evaluation.mean() < plain.evaluation.mean() and worse.evaluation.mean("Recall@100") == 1.0
    assert all(part.milliseconds > 0 for part in found)
    assert same.as_dict()["comparison"]["nDCG@10"]["queries"] == 2


def test_parts_are_known_by_name():
    found = compare_parts(Encoder(), DATA, parts=["coverage", "mmr"])
    assert [part.name for part in found] == [PLAIN, "mmr", "coverage"]
    with pytest.raises(CorpusError, match=r"covrage: there is no such part.*feedback, mmr, coverage, maxsim"):
        compare_parts(Encoder(), DATA, parts=["covrage"])
    with pytest.raises(CorpusError, match="no query"):
        compare_parts(Encoder(), DATA.limited(0))
