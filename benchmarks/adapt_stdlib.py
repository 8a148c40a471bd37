"""Adapt on the Python standard library with any settings and print what the held-back docstrings say.

    python benchmarks/adapt_stdlib.py --output out
    python benchmarks/adapt_stdlib.py --output out --set contrastive_weight=0   # the pure objective
    python benchmarks/adapt_stdlib.py --output out --set revela_weight=0        # the contrastive control

The same adaptation as `revela demo`, without indexes and report. `--cache` keeps the embeddings of the base
model between runs, so that runs which differ in training alone take only the time of training.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.demo.stdlib import stdlib_corpus
from revela_training import adapt
from revela_training.workspace import Workspace


def main() -> None:
    """Parse, run, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="directory of the adapted model")
    parser.add_argument("--functions", type=int, default=3000, help="documented functions to take (default 3000)")
    parser.add_argument("--cache", type=Path, help="folder that keeps base embeddings between runs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of AdaptConfig")
    arguments = parser.parse_args()
    if arguments.cache:
        _share_arrays(arguments.cache / str(arguments.functions))
    settings = {name: _value(value) for name, _, value in (entry.partition("=") for entry in arguments.set)}
    corpus = stdlib_corpus(functions=arguments.functions, show_progress=False)
    result = adapt(corpus, output=arguments.output, **{"preset": "code", "holdout": 0.5, **settings})
    gate = result.report["gate"]
    log = [entry for entry in result.report["log"] if "lm_loss" in entry]
    print(
        json.dumps(
            {
                "settings": settings,
                "summary": result.summary,
                "choosing": {strength: round(value, 4) for strength, value in gate["choosing"].items()},
                "report": {name: round(e["metrics"]["nDCG@10"]["mean"], 4) for name, e in gate["evaluations"].items()},
                "first": _shown(log[0]),
                "last": _shown(log[-1]),
                "seconds": result.report["seconds"],
            }
        )
    )


def _share_arrays(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def array(self: Workspace, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        path = folder / f"{name}.npy"
        if not path.is_file():
            np.save(path, compute(), allow_pickle=False)
        return np.load(path, allow_pickle=False)

    Workspace.array = array  # type: ignore[method-assign]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _shown(entry: dict[str, float]) -> dict[str, float]:
    names = ("step", "lm_loss", "baseline_loss", "max_weight", "contrastive_loss", "retriever_grad_norm")
    return {name: round(entry[name], 4) for name in names if name in entry}


if __name__ == "__main__":
    main()
