from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from revela_rag.errors import DiskError
from revela_rag.report import write_report


def evaluation(values: list[float]) -> dict[str, Any]:
    per_query = {str(i): value for i, value in enumerate(values)}
    mean = sum(values) / len(values)
    return {
        "queries": len(values),
        "metrics": {"nDCG@10": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}},
        "per_query": {"nDCG@10": per_query},
    }


@pytest.fixture
def report() -> dict[str, Any]:
    base, adapted = [0.5] * 10, [0.9] + [0.5] * 8 + [0.2]
    return {
        "config": {"group_size": 16, "seed": 0},
        "corpus": {"documents": 3, "chunks": 12, "skipped": {}},
        "training": {"units": 12},
        "log": [{"step": s, "lm_loss": 3.0, "baseline_loss": 3.2, "max_weight": 0.6} for s in (1, 10)],
        "gate": {
            "summary": "adapted: 0.50 → 0.51",
            "choosing": {"0.0": 0.5, "1.0": 0.51},
            "evaluations": {"bm25": evaluation(base), "base": evaluation(base), "adapted": evaluation(adapted)},
        },
        "queries": [
            {"id": str(i), "query": f"query <number> {i}", "chunk_id": "c", "role": "docstring"} for i in range(10)
        ],
        "seconds": 3.0,
    }


def test_the_page_stands_alone_and_shows_both_directions(report: dict[str, Any], tmp_path: Path) -> None:
    page = write_report(report, tmp_path / "new" / "report.html", title="A <title>").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "A &lt;title&gt;" in page
    assert "query &lt;number&gt; 0" in page
    assert '<td class="up">+0.400</td>' in page
    assert '<td class="down">-0.300</td>' in page


def test_without_a_language_model_it_shows_the_contrastive_loss(report: dict[str, Any], tmp_path: Path) -> None:
    report["log"] = [{"step": s, "contrastive_loss": 3.0 / s} for s in (1, 10)]
    page = write_report(report, tmp_path / "report.html", title="t").read_text(encoding="utf-8")
    assert page.count("<svg") == 4 and "Contrastive loss" in page and "Saturation" not in page


def test_a_kept_base_says_that_nothing_moved(report: dict[str, Any], tmp_path: Path) -> None:
    del report["gate"]["evaluations"]["adapted"]
    page = write_report(report, tmp_path / "report.html", title="t").read_text(encoding="utf-8")
    assert "No query moved" in page


def test_a_full_disk_is_named(report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskError, match="No space left"):
        write_report(report, tmp_path / "report.html", title="t")
