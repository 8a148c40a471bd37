"""The page around the plots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from revela_rag.corpus.text import word_spans
from revela_rag.errors import DiskError
from revela_rag.report import plots

__all__ = ["write_report"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #24292f }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
.summary { font-size: 1.15rem; border-left: 4px solid #0b62a4; padding: .4rem 1rem; background: #f2f7fb }
table { border-collapse: collapse }
td, th { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #d8dee4 }
td:first-child, th:first-child { text-align: left } .text td, .text th { text-align: left; vertical-align: top }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem } svg { max-width: 100% }
.up { color: #1a7f37 } .down { color: #b3261e } small { color: #57606a }
"""


def write_report(report: Mapping[str, Any], path: str | Path, *, title: str, examples: int = 8) -> Path:
    """Write the report of an adaptation as one HTML file that needs nothing else.

    Args:
        report: ``AdaptResult.report``.
        path: file to write.
        title: heading of the page.
        examples: how many queries that rose, and how many that fell, to show.

    Returns:
        The path written.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DiskError: the file cannot be written.
    """
    path = Path(path)
    gate, evaluations = report["gate"], report["gate"]["evaluations"]
    final = evaluations.get("adapted", evaluations["base"])
    groups = _groups(report["queries"], evaluations["base"]["per_query"]["nDCG@10"], final["per_query"]["nDCG@10"])
    figures = [
        plots.systems(evaluations),
        plots.strengths(gate["choosing"]),
        plots.losses(report["log"]),
        plots.before_after(groups),
    ]
    if any("max_weight" in entry for entry in report["log"]):
        figures.append(plots.saturation(report["log"], group_size=report["config"]["group_size"]))
    weak = "<p><small>Queries were cropped out of the texts: weaker evidence.</small></p>" if gate.get("weak") else ""
    body = f"""<h1>{escape(title)}</h1><p class="summary">{escape(gate["summary"])}</p>{weak}
<h2>Reporting half</h2>{_table(evaluations)}
<p><small>Means over {final["queries"]} queries with 95 % bootstrap intervals. These queries were seen neither in
training nor when the strength was chosen.</small></p>
<div class="plots">{"".join(f"<div>{figure}</div>" for figure in figures)}</div>
<h2>Queries that rose and fell</h2>{_moved(report["queries"], evaluations["base"], final, examples)}
<h2>Corpus and settings</h2>{_facts(report)}"""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DiskError(f"Cannot write the report {path}: {error.strerror}") from error
    return path


def _table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    metrics = list(next(iter(evaluations.values()))["metrics"])
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td>"
        + "".join(
            f"<td>{value['mean']:.4f} <small>{value['low']:.3f}-{value['high']:.3f}</small></td>"
            for value in (evaluation["metrics"][metric] for metric in metrics)
        )
        + "</tr>"
        for name, evaluation in evaluations.items()
    )
    head = "".join(f"<th>{metric}</th>" for metric in metrics)
    return f"<table><tr><th>system</th>{head}</tr>{rows}</table>"


def _groups(
    queries: Sequence[Mapping[str, str]], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, tuple[float, float, int]]:
    """Queries by role and by length in words; groups of fewer than five are left out."""
    members: dict[str, list[str]] = defaultdict(list)
    for query in queries:
        length = len(word_spans(query["query"]))
        members[query["role"]].append(query["id"])
        members["up to 5 words" if length <= 5 else "6 to 12 words" if length <= 12 else "over 12 words"].append(
            query["id"]
        )
    return {
        name: (fmean(before[i] for i in ids), fmean(after[i] for i in ids), len(ids))
        for name, ids in sorted(members.items())
        if len(ids) >= 5
    }


def _moved(queries: Sequence[Mapping[str, str]], base: Mapping[str, Any], final: Mapping[str, Any], count: int) -> str:
    before, after = base["per_query"]["nDCG@10"], final["per_query"]["nDCG@10"]
    ranked = sorted(queries, key=lambda query: after[query["id"]] - before[query["id"]])
    risen = [q for q in reversed(ranked[-count:]) if after[q["id"]] > before[q["id"]]]
    fallen = [q for q in ranked[:count] if after[q["id"]] < before[q["id"]]]
    if not risen and not fallen:
        return "<p>No query moved: the returned model is the base model.</p>"
    rows = "".join(
        f'<tr><td class="{css}">{after[q["id"]] - before[q["id"]]:+.3f}</td><td>{escape(q["query"][:300])}</td></tr>'
        for css, group in (("up", risen), ("down", fallen))
        for q in group
    )
    return f'<table class="text"><tr><th>nDCG@10</th><th>query</th></tr>{rows}</table>'


def _facts(report: Mapping[str, Any]) -> str:
    corpus = {name: value for name, value in report["corpus"].items() if name != "skipped"}
    facts = {**corpus, **report["training"], "seconds": report["seconds"], **report["config"]}
    rows = "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    return f"<details><summary>everything that was set and counted</summary><table>{rows}</table></details>"
