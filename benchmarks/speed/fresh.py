"""What a write costs the searches after it: a hybrid index of random texts, after a sync and after small adds.

    python benchmarks/speed/fresh.py                        # 20,000 chunks, a minute
    python benchmarks/speed/fresh.py --chunks 200000        # as many as keep BM25

No model is involved, see index.py. Words are drawn by Zipf's law, so that BM25 has lists as long and as short as those
of real texts. Compared are the first search of the writer after an add and one of before, and the first search of a new
reader (open, load, search) after an add and after a sync. Medians over ``--writes`` adds of one percent of the chunks.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from index import Vectors, timed
from report import machine, write

from revela_rag.corpus.types import Chunk
from revela_rag.index import Index

SHARE = 0.01
VOCABULARY = 50_000
NAMES = ["".join(chr(ord("a") + int(digit)) for digit in str(place)) + "z" for place in range(VOCABULARY)]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=120, help="of a chunk")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--writes", type=int, default=5)
    parser.add_argument("--store", choices=["faiss", "chroma"], default="faiss")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="benchmark-fresh-"))
    try:
        results = run(options, work / "index")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(options.output, "fresh", results, table(results), lambda figure: plot(results, figure))


def run(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Build, then add one percent after the other, then sync."""
    model = Vectors(options.dimension, max(10, options.chunks // 100))
    more = max(1, round(SHARE * options.chunks))
    source = list(chunks(options.chunks + (options.writes + 1) * more, options.words))
    queries = [" ".join(chunk.text.split()[3:11]) for chunk in source[: options.queries]]
    vectors = model.draw(7, options.queries)
    held = options.chunks
    built, index = timed(lambda: Index.build(source[:held], encoder=model, path=path, store=options.store))
    opened = [first_search(path, queries, vectors) for _ in range(options.writes)]
    times: dict[str, list[float]] = {"add": [], "next": [], "open": [], "plain": []}
    for _ in range(options.writes):
        search(index, queries, vectors, 0)
        times["plain"] += [timed(lambda i=i: search(index, queries, vectors, i))[0] for i in range(1, options.queries)]
        times["add"].append(timed(lambda held=held: index.add(source[held : held + more]))[0])
        held += more
        times["next"].append(timed(lambda: search(index, queries, vectors, 0))[0])
        times["open"].append(first_search(path, queries, vectors))
    synced, _ = timed(lambda: index.sync(source[: held + more]))
    opened += [first_search(path, queries, vectors) for _ in range(options.writes)]
    index.close()
    median = {name: float(np.median(some)) for name, some in times.items()}
    after_sync = float(np.median(opened))
    return {
        "machine": machine(),
        "chunks": options.chunks,
        "words": options.words,
        "store": options.store,
        "build_s": built,
        "sync_s": synced,
        "add_s": median["add"],
        "plain_search_ms": median["plain"] * 1e3,
        "search_after_add_ms": median["next"] * 1e3,
        "search_ratio": median["next"] / median["plain"],
        "open_after_sync_s": after_sync,
        "open_after_add_s": median["open"],
        "open_ratio": median["open"] / after_sync,
    }


def chunks(count: int, words: int) -> Iterator[Chunk]:
    """Chunks of random words, twenty to a document."""
    random = np.random.default_rng(1)
    for number in range(count):
        drawn = random.zipf(1.2, size=4 * words)
        said = " ".join(NAMES[place] for place in drawn[drawn < VOCABULARY][:words])
        yield Chunk(
            id=f"{number:032x}",
            text=f"{number} {said}",
            document_id=f"doc-{number // 20}",
            position=number % 20,
            kind="prose",
            title="",
            metadata={},
        )


def search(index: Index, queries: list[str], vectors: np.ndarray, place: int) -> None:
    """One hybrid search."""
    index.search(queries[place], mode="hybrid", vector=vectors[place])


def first_search(path: Path, queries: list[str], vectors: np.ndarray) -> float:
    """Seconds until a new reader has answered."""

    def answer() -> None:
        with Index.open(path) as index:
            search(index, queries, vectors, 0)

    return timed(answer)[0]


def table(results: dict[str, Any]) -> str:
    """What matters, in Markdown."""
    return "\n".join(
        [
            f"{results['chunks']:,} chunks of {results['words']} words, {results['store']}; adds of {SHARE:.0%}",
            "",
            "| build s | sync s | add s | search ms | after add ms | ratio | open after sync s | after add s | ratio |",
            "|---|---|---|---|---|---|---|---|---|",
            f"| {results['build_s']:.1f} | {results['sync_s']:.2f} | {results['add_s']:.2f} | "
            f"{results['plain_search_ms']:.1f} | {results['search_after_add_ms']:.1f} | "
            f"{results['search_ratio']:.2f} | "
            f"{results['open_after_sync_s']:.2f} | {results['open_after_add_s']:.2f} | {results['open_ratio']:.2f} |",
        ]
    )


def plot(results: dict[str, Any], figure: Any) -> None:
    """The two ratios."""
    axes = figure.subplots()
    names = ["search after add / plain", "open after add / after sync"]
    axes.bar(names, [results["search_ratio"], results["open_ratio"]])
    axes.axhline(1, linestyle=":", color="grey")
    axes.set(ylabel="ratio", title=f"{results['chunks']:,} chunks")


if __name__ == "__main__":
    main()
