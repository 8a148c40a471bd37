"""What each strength of an adapter does: to the held-back queries that choose it, and to those people asked.

    python benchmarks/quality/run.py --data scifact/ --data cosqa/ --systems base,default --curves --output out
    python benchmarks/quality/strengths.py out

Prints a table and draws OUT/strengths-*.png from what `run.py --curves` left in OUT/results. Only the gate's queries
choose; the best strength in hindsight is what no corpus tells.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from summary import METRIC, mean, read

_SYSTEM = "default"


@dataclass(frozen=True)
class Curve:
    """One training: gains in points of nDCG@10 over the base, by strength.

    Attributes:
        held_back: of the queries that choose, the mean over their kinds.
        asked: of people's queries, by cosine.
        hybrid: of people's queries, in hybrid search.
        chosen: strength that the gate took.
    """

    held_back: Mapping[float, float]
    asked: Mapping[float, float]
    hybrid: Mapping[float, float]
    chosen: float

    @property
    def left(self) -> float:
        """What full strength leaves of the held-back queries' best gain; nan where none of them gained."""
        best = max(self.held_back.values())
        return self.held_back[max(self.held_back)] / best if best > 0 else float("nan")


def curves(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Curve]]]:
    """Backbone to set to the curves of its seeds; none for results without `--curves`."""
    bases = {(each["backbone"], each["set"]): each["scores"] for each in results if each["system"] == "base"}
    found: dict[str, dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    for each in results:
        base, choosing = bases.get((each["backbone"], each["set"])), each.get("choosing") or {}
        scored = {float(strength): pair for strength, pair in each.get("curve", {}).items()}
        if (
            each["system"] != _SYSTEM
            or not base
            or not set(map(float, choosing)) - {0.0} <= scored.keys()
            or not choosing
        ):
            continue
        before = [mean(base[variant][METRIC]) for variant in ("full", "hybrid")]
        asked, hybrid = (
            {0.0: 0.0, **{s: 100 * (pair[i] - before[i]) for s, pair in sorted(scored.items())}} for i in (0, 1)
        )
        held_back = {float(s): 100 * (value - choosing["0.0"]) for s, value in choosing.items()}
        found[each["backbone"]][each["set"]].append(Curve(held_back, asked, hybrid, each["strength"]))
    return found


def table(sets: Mapping[str, Sequence[Curve]]) -> str:
    """Markdown: seeds parted by commas, gains averaged over seeds."""
    lines = [
        "| set | left in full | strength | gain, hybrid | best in hindsight | at full strength |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in sets.items():
        strengths = sorted(seeds[0].asked)
        asked = {s: float(np.mean([seed.asked[s] for seed in seeds])) for s in strengths}
        best = max(asked, key=lambda s: asked[s])
        cells = (
            name,
            ", ".join(f"{seed.left:.2f}" for seed in seeds),
            ", ".join(f"{seed.chosen:g}" for seed in seeds),
            ", ".join(f"{np.mean([of[seed.chosen] for seed, of in pairs]):+.1f}" for pairs in _both(seeds)),
            f"{asked[best]:+.1f} at {best:g}",
            f"{asked[strengths[-1]]:+.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _both(seeds: Sequence[Curve]) -> tuple[list[tuple[Curve, Mapping[float, float]]], ...]:
    return [(seed, seed.asked) for seed in seeds], [(seed, seed.hybrid) for seed in seeds]


def draw(sets: Mapping[str, Sequence[Curve]]) -> Figure:
    """One panel a set: gains of held-back queries dashed, of people's drawn through, a dot where the gate stopped."""
    columns = min(5, len(sets))
    rows = -(-len(sets) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axis, (name, seeds) in zip(axes, sets.items(), strict=False):
        for seed in seeds:
            held = axis.plot(*zip(*sorted(seed.held_back.items()), strict=True), "--", color="#8c959f", linewidth=1)[0]
            asked = axis.plot(*zip(*sorted(seed.asked.items()), strict=True), color="#0969da", linewidth=1.4)[0]
            dot = axis.plot([seed.chosen], [seed.asked[seed.chosen]], "o", color="#cf222e", markersize=4)[0]
        axis.axhline(0, color="#24292f", linewidth=0.6)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes[len(sets) :]:
        axis.set_visible(False)
    figure.supxlabel("strength of the adapter", fontsize=9)
    figure.supylabel("points of nDCG@10 over the base", fontsize=9)
    labels = ["held-back queries", "people's queries", "chosen"]
    figure.legend([held, asked, dot], labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUT", help="where run.py --curves wrote")
    args = parser.parse_args(arguments)
    found = curves(read(args.output / "results"))
    if not found:
        parser.error(f"no curves in {args.output}: run run.py --systems base,{_SYSTEM} --curves --output {args.output}")
    for backbone, sets in found.items():
        print(f"{backbone}\n\n{table(sets)}\n")
        draw(sets).savefig(args.output / f"strengths-{backbone}.png", dpi=120)


if __name__ == "__main__":
    main()
