"""Plots of a report, each returned as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from revela_rag.errors import MissingExtraError

__all__ = ["before_after", "losses", "quality_curve", "saturation", "strengths", "systems"]

_INK, _BLUE, _ORANGE, _GREY = "#24292f", "#0b62a4", "#d1660a", "#8c959f"
_COLOURS = {"bm25": _GREY, "base": _ORANGE, "adapted": _BLUE, "hybrid_base": "#8fbf9f", "hybrid": "#2f7d4f"}


def losses(log: Sequence[Mapping[str, float]]) -> str:
    """Loss of both streams over the steps, whose gap is what the LM gains from neighbours, or InfoNCE without an LM."""
    if not any("lm_loss" in entry for entry in log):
        figure, axis = _axis("Contrastive loss", "step", "nats per query")
        axis.plot(*_series(log, "contrastive_loss"), color=_BLUE)
        return _svg(figure)
    steps, cross = _series(log, "lm_loss")
    figure, axis = _axis("Next-token loss of both streams", "step", "nats per token")
    axis.plot(*_series(log, "baseline_loss"), color=_GREY, label="without neighbours")
    axis.plot(steps, cross, color=_BLUE, label="with neighbours")
    axis.legend(frameon=False)
    return _svg(figure)


def saturation(log: Sequence[Mapping[str, float]], *, group_size: int) -> str:
    """Mean largest in-batch weight: 1 is one-hot (no gradient), 1 / (B - 1) is flat (no choice)."""
    figure, axis = _axis("Saturation of the in-batch weights", "step", "mean largest weight")
    axis.plot(*_series(log, "max_weight"), color=_BLUE)
    axis.axhline(1 / (group_size - 1), color=_GREY, linestyle=":", label="flat: nothing is chosen")
    axis.axhline(1.0, color=_ORANGE, linestyle=":", label="one-hot: no gradient")
    axis.set_ylim(0, 1.05)
    axis.legend(frameon=False)
    return _svg(figure)


def strengths(choosing: Mapping[str, float]) -> str:
    """nDCG@10 on the choosing half by strength of the adapter; strength 0 is the base."""
    points = sorted((float(strength), value) for strength, value in choosing.items())
    figure, axis = _axis("Strength of the adapter, choosing half", "strength (0 is the base model)", "nDCG@10")
    axis.plot([s for s, _ in points], [v for _, v in points], marker="o", color=_BLUE)
    return _svg(figure)


def systems(evaluations: Mapping[str, Mapping[str, Any]], metric: str = "nDCG@10") -> str:
    """Mean and 95 % interval of each system on the reporting half."""
    figure, axis = _axis(f"{metric} on the reporting half", "", metric)
    for place, (name, evaluation) in enumerate(evaluations.items()):
        value = evaluation["metrics"][metric]
        error = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
        axis.bar(place, value["mean"], 0.6, color=_COLOURS.get(name, _BLUE), yerr=error, capsize=4)
    axis.set_xticks(range(len(evaluations)), [name.replace("_", " ") for name in evaluations])
    return _svg(figure)


def quality_curve(points: Sequence[Mapping[str, Any]], others: Mapping[str, float], metric: str = "nDCG@10") -> str:
    """Quality over the steps of a training, beside systems that do not train on them.

    Args:
        points: each with its ``step`` and its ``quality`` by metric, as `revela_training.curve.Point` has them.
        others: name to value, drawn as lines across.
        metric: what to draw.
    """
    figure, axis = _axis(f"{metric} over the steps", "step", metric)
    axis.plot(
        [point["step"] for point in points], [point["quality"][metric] for point in points], marker="o", color=_BLUE
    )
    for colour, (name, value) in zip((_GREY, _ORANGE) * len(others), others.items(), strict=False):
        axis.axhline(value, color=colour, linestyle=":", label=name)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    return _svg(figure)


def before_after(groups: Mapping[str, tuple[float, float, int]]) -> str:
    """Before and after per group of queries: {name: (base, adapted, number of queries)}."""
    figure, axis = _axis("nDCG@10 before and after, per group of queries", "nDCG@10", "")
    for place, (before, after, _) in enumerate(groups.values()):
        axis.plot([before, after], [place, place], color=_GREY, linewidth=2, zorder=1)
        axis.scatter([before], [place], color=_ORANGE, zorder=2, label="base" if place == 0 else None)
        axis.scatter([after], [place], color=_BLUE, zorder=3, label="returned model" if place == 0 else None)
    axis.set_yticks(range(len(groups)), [f"{name} ({count})" for name, (_, _, count) in groups.items()])
    axis.invert_yaxis()
    axis.legend(frameon=False)
    return _svg(figure)


def _series(log: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [(entry["step"], entry[name]) for entry in log if name in entry and "step" in entry]
    return [step for step, _ in points], [value for _, value in points]


def _axis(title: str, x: str, y: str) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "the plots of a report") from error
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize=11, color=_INK, loc="left")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure, axis


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
