"""The summary as Markdown: scores per set and system, then what changed against whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from summary import AGAINST, METRIC


def markdown(summary: Mapping[str, Any]) -> str:
    """One table of scores per backbone, then gains, then what the gate did, then what was not run."""
    parts = []
    for backbone in dict.fromkeys(row["backbone"] for row in summary["rows"]):
        rows = [row for row in summary["rows"] if row["backbone"] == backbone]
        means = [entry for entry in summary["means"] if entry["backbone"] == backbone]
        parts.append(
            f"## {backbone}\n\n{METRIC}, mean over seeds; * differs from the unadapted model (hybrids: from bm25+base) "
            f"with p < 0.05.\n\n{_scores(_own(rows), _own(means))}"
        )
        parts.append(f"Against others, mean over sets [95 % interval]:\n\n{_gains(means)}")
        gate = [row for row in rows if row["strengths"] or "," in row["column"]]
        if gate:
            text = "As trained (full) and as the gate chose (gated; strengths of all seeds in brackets):"
            parts.append(f"{text}\n\n{_gate(gate)}")
    if summary["missing"]:
        parts.append(f"Not run:\n\n{_missing(summary['missing'])}")
    return "\n\n".join(parts) + "\n"


def _own(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if "," not in row["column"]]


def _scores(rows: Sequence[Mapping[str, Any]], means: Sequence[Mapping[str, Any]]) -> str:
    names = [entry["column"] for entry in means]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    found = {(row["set"], row["column"]): row for row in rows}
    body = []
    for name in sets:
        queries = max(row["queries"] for row in rows if row["set"] == name)
        body.append([f"{name} ({queries:,})", *(_cell(found.get((name, column)), column) for column in names)])
    last = [_cell(entry, entry["column"]) for entry in means]
    last = [
        f"{cell} (of {entry['sets']})" if entry["sets"] < len(sets) else cell
        for cell, entry in zip(last, means, strict=True)
    ]
    return _table(["set (queries)", *names], [*body, ["**mean**", *last]])


def _cell(row: Mapping[str, Any] | None, column: str) -> str:
    if row is None:
        return "–"
    against = row.get("vs_base")
    return f"{row['metrics'][METRIC]:.3f}{'*' if against and against['p_value'] < 0.05 else ''}"


def _gains(means: Sequence[Mapping[str, Any]]) -> str:
    others = [name for name in AGAINST[1:] if any(f"vs_{name}" in entry for entry in means)]
    heads = ["system", "against base", "better / worse / sets", "worst set", "Recall@100"]
    body = []
    for entry in means:
        if not any(f"vs_{name}" in entry for name in AGAINST):
            continue
        cells = ["–"] * 4
        if base := entry.get("vs_base"):
            count = f"{base['better']} / {base['worse']} / {base['compared']}"
            cells = [_change(base), count, f"{base['worst']:+.4f}", f"{base['recall_difference']:+.4f}"]
        cells += [_change(entry[f"vs_{name}"]) if f"vs_{name}" in entry else "–" for name in others]
        body.append([entry["column"], *cells])
    return _table([*heads, *(f"against {name}" for name in others)], body)


def _change(found: Mapping[str, float]) -> str:
    p = "< 0.001" if found["p_value"] < 0.001 else f"= {found['p_value']:.3f}"
    return f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}], p {p}"


def _gate(rows: Sequence[Mapping[str, Any]]) -> str:
    sets = list(dict.fromkeys(row["set"] for row in rows))
    columns = sorted({row["column"] for row in rows})
    found = {(row["set"], row["column"]): row for row in rows}
    body = []
    for name in sets:
        cells = []
        for column in columns:
            row = found.get((name, column))
            chosen = ", ".join(f"{value:g}" for value in row["strengths"].values()) if row else ""
            cells.append(f"{_cell(row, column)}{f' ({chosen})' if chosen else ''}")
        body.append([name, *cells])
    return _table(["set", *columns], body)


def _missing(entries: Iterable[Mapping[str, Any]]) -> str:
    lines: dict[str, list[str]] = {}
    for entry in entries:
        system = f"{entry['system']}/{entry['adapter']} ({entry['backbone']}, {entry['status']})"
        lines.setdefault(f"- {system}: {entry['reason']}", []).append(f"{entry['set']}, seed {entry['seed']}")
    return "\n".join(f"{line} [{'; '.join(places)}]" for line, places in lines.items())


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
