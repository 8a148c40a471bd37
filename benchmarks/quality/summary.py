"""From result files to a summary and a Markdown table.

Seeds are averaged query by query before anything is compared; the last row is the mean over sets, each set counting
the same, with queries resampled inside every set.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.evaluation import METRICS, Evaluation, compare

METRIC = METRICS[0]
_SAMPLES = 10_000
_ORDER = (
    *("bm25", "base", "ict", "simcse", "tsdae", "contrastive", "published", "revela", "no-revela", "both", "default"),
    *("bm25+base", "bm25+default"),
)
_GATED = ("default", "both", "no-revela")  # what a user gets is what the gate let through
_HYBRIDS = ("base", "default")
#: What every column is compared with, where both are there.
AGAINST = ("base", "contrastive", "no-revela")

#: Seed (None where nothing is random) to metric to {query id: value}.
BySeed = dict[int | None, dict[str, dict[str, float]]]


def read(folder: Path) -> list[dict[str, Any]]:
    """Every result below ``folder``."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*/*.json"))]


def columns(result: Mapping[str, Any]) -> dict[str, str]:
    """Column to variant: what a result is called in the table. The first is the system's own name."""
    suffix = f"/{result['adapter']}" if result["adapter"] in ("linear", "lora") else ""
    name, scores = f"{result['system']}{suffix}", result["scores"]
    wanted = "gated" if result["system"] in _GATED else "full"
    own = wanted if wanted in scores else next((variant for variant in ("full", "gated") if variant in scores), None)
    found = {name: own} if own else {}
    found |= {f"{name}, {other}": other for other in ("full", "gated") if other in scores and other != own}
    if result["system"] in _HYBRIDS and "hybrid" in scores:
        found[f"bm25+{name}"] = "hybrid"
    return found


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means, intervals and comparisons, per (backbone, set, column) and over sets."""
    scores: dict[tuple[str, str], dict[str, BySeed]] = defaultdict(lambda: defaultdict(dict))
    strengths: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for result in results:
        place = (result["backbone"], result["set"])
        for column, variant in columns(result).items():
            scores[place][column][result["seed"]] = result["scores"][variant]
            if variant == "gated":
                strengths[(*place, column)][str(result["seed"])] = result["strength"]
    rows = []
    gains: dict[tuple[str, str, str], dict[str, np.ndarray]] = defaultdict(dict)
    for (backbone, name), by_column in sorted(scores.items()):
        for column in sorted(by_column, key=_rank):
            row = _row(by_column[column])
            for against in AGAINST:
                other = _reference(against, column, by_column)
                if other is None:
                    continue
                before, after = _paired(by_column[other], by_column[column])
                if before is not None and after is not None:
                    row[f"vs_{against}"] = _difference(before, after)
                    values = after.values(METRIC)
                    gains[backbone, column, against][name] = np.array(
                        [values[query] - old for query, old in before.values(METRIC).items()]
                    )
            chosen = strengths.get((backbone, name, column), {})
            rows.append({"backbone": backbone, "set": name, "column": column, **row, "strengths": chosen})
    missing = [
        {key: result[key] for key in ("backbone", "set", "system", "adapter", "seed", "status", "reason")}
        for result in results
        if result["status"] != "done"
    ]
    return {"rows": rows, "means": _means(rows, gains), "missing": missing}


def mean(values: Mapping[str, float]) -> float:
    """Mean over queries."""
    return sum(values.values()) / len(values)


def over_sets(gains: Sequence[np.ndarray], *, seed: int = 0) -> dict[str, float]:
    """Mean over sets of mean gains, with a 95 % interval and the p value of "no difference" (bootstrap-shift).

    Args:
        gains: per set the differences of its queries, each (n,).
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    means = np.zeros(_SAMPLES)
    for gain in gains:
        for start in range(0, _SAMPLES, 500):  # a block at a time: queries x samples need not fit in memory
            means[start : start + 500] += gain[rng.integers(0, len(gain), size=(500, len(gain)))].mean(axis=1)
    means /= len(gains)
    difference = float(np.mean([gain.mean() for gain in gains]))
    low, high = np.quantile(means, [0.025, 0.975])
    extreme = int(np.count_nonzero(np.abs(means - difference) >= abs(difference) - 1e-9))
    p_value = (extreme + 1) / (_SAMPLES + 1)
    return {"difference": difference, "low": float(low), "high": float(high), "p_value": p_value}


def _row(by_seed: BySeed) -> dict[str, Any]:
    evaluation = _averaged(by_seed, list(by_seed))
    low, high = evaluation.interval(METRIC)
    return {
        "seeds": [seed for seed in by_seed if seed is not None],
        "queries": evaluation.queries,
        "metrics": {metric: evaluation.mean(metric) for metric in METRICS},
        "low": low,
        "high": high,
    }


def _averaged(by_seed: BySeed, seeds: Sequence[int | None]) -> Evaluation:
    """Every query's mean over the seeds that have it."""
    per_query: dict[str, dict[str, float]] = {}
    for metric in METRICS:
        values = defaultdict(list)
        for seed in seeds:
            for query, value in by_seed[seed][metric].items():
                values[query].append(value)
        per_query[metric] = {query: sum(found) / len(found) for query, found in values.items()}
    return Evaluation("mean over seeds", per_query)


def _paired(before: BySeed, after: BySeed) -> tuple[Evaluation | None, Evaluation | None]:
    """Both over the seeds they share; a result without seed stands for every one."""
    old = list(before) if None in before or None in after else [seed for seed in before if seed in after]
    new = list(after) if None in before or None in after else old
    return (_averaged(before, old), _averaged(after, new)) if old and new else (None, None)


def _reference(against: str, column: str, by_column: Mapping[str, BySeed]) -> str | None:
    """What a column is compared with: the hybrid's base is the unadapted hybrid, LoRA's contrastive is LoRA's."""
    adapter = "".join(column.partition(",")[0].partition("/")[1:])
    if column == "bm25" or column.partition(",")[0] == against:
        return None
    if column.startswith("bm25+"):
        name = "bm25+base" if against == "base" else None
    else:
        name = against if against == "base" else f"{against}{adapter}"
    return name if name in by_column and name != column else None


def _difference(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    found = compare(before, after, metric=METRIC)
    recall = after.mean("Recall@100") - before.mean("Recall@100")
    values = {name: getattr(found, name) for name in ("difference", "low", "high", "p_value")}
    return {**values, "recall_difference": recall, "risen": len(found.risen), "fallen": len(found.fallen)}


def _means(
    rows: Sequence[Mapping[str, Any]], gains: Mapping[tuple[str, str, str], Mapping[str, np.ndarray]]
) -> list[dict[str, Any]]:
    by_column: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_column[row["backbone"], row["column"]].append(row)
    means = []
    for (backbone, column), found in sorted(by_column.items(), key=lambda item: (item[0][0], _rank(item[0][1]))):
        entry: dict[str, Any] = {"backbone": backbone, "column": column, "sets": len(found)}
        entry["metrics"] = {metric: float(np.mean([row["metrics"][metric] for row in found])) for metric in METRICS}
        for against in AGAINST:
            compared = [row[f"vs_{against}"] for row in found if f"vs_{against}" in row]
            if compared:
                entry[f"vs_{against}"] = {
                    **over_sets(list(gains[backbone, column, against].values())),
                    "better": sum(each["p_value"] < 0.05 and each["difference"] > 0 for each in compared),
                    "worse": sum(each["p_value"] < 0.05 and each["difference"] < 0 for each in compared),
                    "worst": min(each["difference"] for each in compared),
                    "compared": len(compared),
                    "recall_difference": float(np.mean([each["recall_difference"] for each in compared])),
                }
        means.append(entry)
    return means


def _rank(column: str) -> tuple[int, str]:
    name = column.partition(",")[0].partition("/")[0]
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), column)
