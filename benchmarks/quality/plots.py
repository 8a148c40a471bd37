"""Pictures of a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure


def draw(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Two PNG files per backbone: nDCG@10 per set with 95 % intervals, and gains against the base."""
    written = []
    for backbone in dict.fromkeys(row["backbone"] for row in summary["rows"]):
        rows = [row for row in summary["rows"] if row["backbone"] == backbone and "," not in row["column"]]
        gains = [
            {**row, **row["vs_base"], "value": row["vs_base"]["difference"]}
            for row in rows
            if "vs_base" in row and not row["column"].startswith("bm25")
        ]
        bars = [{**row, "value": row["metrics"]["nDCG@10"]} for row in rows]
        for name, shown, title in (
            ("scores", bars, f"nDCG@10, {backbone} (95 % intervals over queries)"),
            ("gains", gains, f"nDCG@10 gained over the unadapted {backbone} (paired 95 % intervals)"),
        ):
            if shown:
                path = folder / f"{name}-{backbone}.png"
                _bars(shown, title).savefig(path, dpi=120)
                written.append(path)
    return written


def _bars(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Grouped bars with intervals; rows hold set, column, value, low and high."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    columns = list(dict.fromkeys(row["column"] for row in rows))
    colours = colormaps["tab20"]
    figure = Figure(figsize=(max(6.4, 1.6 + 0.16 * len(sets) * (len(columns) + 2)), 4.2), layout="constrained")
    axis = figure.subplots()
    width = 0.84 / len(columns)
    for number, column in enumerate(columns):
        shown = [row for row in rows if row["column"] == column]
        places = [sets.index(row["set"]) - 0.42 + (number + 0.5) * width for row in shown]
        errors = [
            [max(0.0, row["value"] - row["low"]) for row in shown],
            [max(0.0, row["high"] - row["value"]) for row in shown],
        ]
        axis.bar(
            places,
            [row["value"] for row in shown],
            width,
            yerr=errors,
            label=column,
            color=colours(number % colours.N),
            error_kw={"elinewidth": 0.7, "ecolor": "#24292f"},
        )
    axis.axhline(0, color="#24292f", linewidth=0.8)
    axis.set_xticks(range(len(sets)), sets, rotation=20, ha="right")
    axis.set_title(title, fontsize=11, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=min(6, len(columns)), frameon=False, fontsize=8)
    return figure
