"""Where each rule of the gate begins and ends, with p values and losses set to either side of its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_gate import DATA, WITNESSES, embedder, witnessed

from revela_rag.evaluation import Comparison, Evaluation, compare
from revela_rag.model.st_format import Role
from revela_training.gate import choose as rule
from revela_training.gate import run_gate

RISING = {0.0: 0.1, 0.5: 0.6}


def compared(monkeypatch: pytest.MonkeyPatch, *changes: dict[str, Any]) -> None:
    """Put values in the place of what the comparisons say: dense search first, hybrid search second."""
    left = list(changes)

    def changed(before: Evaluation, after: Evaluation, *, metric: str) -> Comparison:
        return replace(compare(before, after, metric=metric), **left.pop(0))

    monkeypatch.setattr(rule, "compare", changed)


@pytest.mark.parametrize(("p_value", "strength"), [(0.099, 0.5), (0.101, 0.0)])
def test_a_gain_is_certain_below_five_percent_one_sided(monkeypatch, p_value: float, strength: float) -> None:
    monkeypatch.setattr(rule, "balanced_p_value", lambda gains: p_value)
    assert run_gate(DATA, embedder(RISING), [0.5]).strength == strength


@pytest.mark.parametrize(("p_value", "strength"), [(0.099, 0.5), (0.101, 0.0)])
def test_structure_alone_is_certain_below_five_percent_too_where_asked(monkeypatch, p_value, strength) -> None:
    monkeypatch.setattr(rule, "balanced_p_value", lambda gains: p_value if len(gains) == 1 else 0.001)
    data, embed = replace(DATA, witnesses=WITNESSES), witnessed(dict.fromkeys(("query", "keywords", "span"), RISING))
    assert run_gate(data, embed, [0.5], strict=True).strength == strength
    assert run_gate(data, embed, [0.5]).strength == 0.5


def test_a_structure_that_does_not_rise_is_no_gain_at_any_p_value(monkeypatch) -> None:
    monkeypatch.setattr(rule, "balanced_p_value", lambda gains: 0.0)
    embed = witnessed({"query": {0.0: 0.2, 0.5: 0.2}, "keywords": RISING, "span": RISING})
    assert run_gate(replace(DATA, witnesses=WITNESSES), embed, [0.5], strict=True).strength == 0.0


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize(("p_value", "strength"), [(0.049, 0.0), (0.051, 0.5)])
def test_a_certain_loss_of_dense_or_of_hybrid_search_refuses(monkeypatch, lost, p_value, strength) -> None:
    changes: list[dict[str, Any]] = [{"difference": 0.1, "p_value": 0.001}, {"difference": 0.1, "p_value": 0.001}]
    changes[lost] = {"difference": -0.1, "p_value": p_value}
    compared(monkeypatch, *changes)
    gate = run_gate(DATA, embedder(RISING), [0.5])
    assert gate.strength == strength
    assert ("adapted" in gate.evaluations) is (strength > 0)
    if not strength:
        assert ("took hybrid search " in gate.summary) is (lost == 1)


@pytest.mark.parametrize(
    ("p_value", "before", "said"),
    [
        (0.049, 0.5, "adapted: "),
        (0.051, 0.5, "trained, but no difference can be told from chance: "),
        (0.051, 0.994, "trained, but no difference can be told from chance: "),
        (0.051, 0.995, "trained, but these queries are too easy to tell"),
    ],
)
def test_what_is_said_follows_certainty_and_ease(monkeypatch, p_value: float, before: float, said: str) -> None:
    compared(monkeypatch, {"difference": 0.1, "p_value": p_value, "before": before}, {})
    assert run_gate(DATA, embedder(RISING), [0.5]).summary.startswith(said)


def test_runs_are_deep_enough_for_recall() -> None:
    gate = run_gate(DATA, embedder(RISING), [0.5])
    assert {gate.evaluations[name].mean("Recall@100") for name in ("base", "adapted")} == {1.0}  # of 80 documents


def test_a_strength_that_harms_gives_way_to_one_that_does_not() -> None:
    words = {0.0: 0.1, 0.25: 0.2, 1.0: 0.9}
    embed = witnessed({"query": {0.0: 0.3, 0.25: 0.35, 1.0: 0.1}, "keywords": words, "span": words})
    gate = run_gate(replace(DATA, witnesses=WITNESSES), embed, [0.25, 1.0], gentle=False)
    assert gate.choosing[1.0] > gate.choosing[0.25] > gate.choosing[0.0] and gate.strength == 0.25


def test_the_trust_is_measured_on_the_documents_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    def moving(texts: Sequence[str], role: Role, strength: float) -> np.ndarray:
        vectors = embed(texts, role, strength)
        return vectors if role == "query" else np.roll(vectors, 1 if strength else 0, axis=0)

    embed, asked = embedder({0.0: 0.1, 0.5: 0.1}), []
    monkeypatch.setattr(rule, "dense_share", lambda owners, vectors: asked.append(vectors([0, 1, 2])) or 0.5)
    run_gate(DATA, moving, [0.5])
    assert np.array_equal(asked, [embed(DATA.documents, "document", 0.0)[:3]])
