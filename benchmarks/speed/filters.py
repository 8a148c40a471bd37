"""What a filter costs: searches filtered to one chunk in a hundred against the same searches unfiltered.

    python benchmarks/speed/filters.py                      # 100,000 chunks, about a minute
    python benchmarks/speed/filters.py --kind hnsw          # where an unfiltered search is quickest

Queries are vectors, so that no time of a model hides that of a filter, and turns are taken filter by filter. Each
filter is also timed by its first search, which reads what it asks for from disk; ``values`` changes what is asked for
from one query to the next, as tenants do.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, table, write

from revela_rag.corpus.types import Chunk
from revela_rag.index import Index

START = datetime(2015, 1, 1)
WORDS = ("cache", "key", "socket", "list", "page", "lock", "token", "file", "query", "thread")
DIMENSION = 384


class Model:
    """Stands for the model of an index whose vectors are made up."""

    query_prompt = document_prompt = ""
    fingerprint, name, model_path, chosen_max_length, dimension = "f" * 64, "random", "random", None, DIMENSION


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--kind", choices=("flat", "hnsw", "ivf-sq8"), default="flat")
    parser.add_argument("--store", choices=("faiss", "chroma"), default="faiss")
    parser.add_argument("--modes", nargs="+", default=["dense", "hybrid"], choices=("dense", "lexical", "hybrid"))
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="benchmark-filters-"))
    try:
        results = run(options, work / "index")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(options.output, "filters", results, shown(results), lambda figure: plot(results, figure))


def run(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Build one index and ask it through every filter."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(options.chunks, DIMENSION)).astype(np.float32)
    model: Any = Model()
    settings: dict[str, Any] = {"store": options.store, "kind": options.kind, "vectors": vectors}
    Index.build(chunks(options.chunks), encoder=model, path=path, **settings).close()
    queries = generator.normal(size=(options.queries, DIMENSION)).astype(np.float32)
    found = {mode: compare(path, model, mode, queries) for mode in options.modes}
    settings = {"chunks": options.chunks, "store": options.store, "kind": options.kind}
    return {"machine": machine(), **settings, "modes": found}


def chunks(count: int) -> list[Chunk]:
    """Short chunks with metadata of every kind; their vectors come from elsewhere."""
    draw = random.Random(0)
    return [
        Chunk(
            id=f"{n:032x}",
            text=f"{draw.choice(WORDS)} {draw.choice(WORDS)} of page {n % 997}",
            document_id=f"d{n // 9}",
            position=n,
            metadata={
                "tenant": f"tenant-{draw.randrange(100)}",
                "language": draw.choice(("python", "go", "java")),
                "year": draw.randrange(2000, 2025),
                "price": round(draw.random(), 6),
                "added": (START + timedelta(minutes=draw.randrange(5_256_000))).isoformat(),
                "tags": [f"tag-{draw.randrange(200)}" for _ in range(2)],
                "url": f"https://example.org/{draw.randrange(100)}/{n}.html",
                "file": {"owner": f"owner-{draw.randrange(100)}", "size": n},
            },
        )
        for n in range(count)
    ]


def filters() -> dict[str, Callable[[int], Any]]:
    """Filters by name; each takes the number of the query."""
    since, until = START + timedelta(days=400), START + timedelta(days=436)
    either = [{"tenant": "tenant-3", "price": {"$lt": 0.5}}, {"year": 2004, "language": "go", "price": {"$gte": 0.6}}]
    broad = {"language": ["go", "java"], "year": {"$gte": 2012}, "price": {"$gt": 0.5, "$lt": 0.53}}
    return {
        "value": lambda n: {"tenant": "tenant-7"},
        "values": lambda n: {"tenant": f"tenant-{n % 100}"},
        "list": lambda n: {"tags": "tag-9"},
        "nested": lambda n: {"file.owner": "owner-3"},
        "range": lambda n: {"price": {"$lt": 0.01}},
        "dates": lambda n: {"added": {"$gte": since, "$lt": until}},
        "and": lambda n: broad,
        "or": lambda n: {"$or": either},
        "not": lambda n: {"tenant": {"$nin": [f"tenant-{m}" for m in range(99)]}},
        "text in a text": lambda n: {"url": {"$contains": "/7/"}},
        "99 in 100": lambda n: {"tenant": {"$ne": "tenant-7"}},
        "function": lambda n: lambda metadata: metadata["tenant"] == "tenant-7",
    }


def compare(path: Path, model: Any, mode: Any, queries: np.ndarray) -> dict[str, dict[str, float]]:
    """Share of the chunks, first and median milliseconds of each filter, and the ratio to no filter."""
    ways: dict[str, Callable[[int], Any]] = {"no filter": lambda n: None, **filters()}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    first, share = dict[str, float](), dict[str, float]()

    def ask(index: Index, n: int, filter: Any) -> float:
        start = time.perf_counter()
        hits = index.search(f"{WORDS[n % 10]} {WORDS[n % 7]}", k=10, filter=filter, mode=mode, vector=queries[n])
        assert len(hits) == 10
        return (time.perf_counter() - start) * 1e3

    with Index.open(path, encoder=model) as index:
        for name, filter in ways.items():
            ask(index, 0, None)
            first[name] = ask(index, 0, filter(0))
            share[name] = len(index.search("", k=len(index), filter=filter(0), mode="dense", vector=queries[0]))
        for n in range(len(queries)):
            for name, filter in ways.items():
                if name != "function" or n < 3:
                    spent[name].append(ask(index, n, filter(n)))
        count = len(index)
    median = {name: float(np.median(some)) for name, some in spent.items()}
    return {
        name: {"share": share[name] / count, "first_ms": first[name], "ms": ms, "ratio": ms / median["no filter"]}
        for name, ms in median.items()
    }


def shown(results: dict[str, Any]) -> str:
    """A table for each mode."""
    tables = [
        f"{mode}\n\n"
        + table(
            ["filter", "of the chunks", "first ms", "median ms", "ratio"],
            [[name, *some.values()] for name, some in found.items()],
        )
        for mode, found in results["modes"].items()
    ]
    return f"{results['chunks']:,} chunks, {results['store']}, {results['kind']}\n\n" + "\n\n".join(tables)


def plot(results: dict[str, Any], figure: Any) -> None:
    """Ratios of every filter."""
    axes = np.atleast_1d(figure.subplots(len(results["modes"]), 1))
    for part, (mode, found) in zip(axes, results["modes"].items(), strict=True):
        part.barh(list(found), [some["ratio"] for some in found.values()])
        part.set(xlabel=f"{mode}: times an unfiltered search")


if __name__ == "__main__":
    main()
