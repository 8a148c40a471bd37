"""Build, sync and search indexes of random vectors, against raw FAISS and against what the memory allows.

    python benchmarks/speed/index.py                       # 20,000 chunks, a minute
    python benchmarks/speed/index.py --chunks 1000000      # full size
    python benchmarks/speed/index.py --kinds hnsw --output results

No model is involved: vectors are clustered at random, so that figures are about the index alone. A rebuild that also
embeds is given for a rate of texts per second that ``--texts-per-second`` names. One JSON file and a plot beside it.

Floor of an exact search: bytes of the vectors divided by the bandwidth that a dot product over as many bytes reaches in
the same run.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from report import machine, write

from revela_rag.corpus.types import Chunk
from revela_rag.index import Index
from revela_rag.index.stores import approximate

SYNC_SHARE = 0.01
WORDS = [
    "the",
    "index",
    "of",
    "a",
    "text",
    "is",
    "what",
    "it",
    "says",
    "about",
    "keys",
    "files",
    "pages",
    "vectors",
    "hits",
    "and",
    "the",
    "time",
    "they",
    "take",
]


class Vectors:
    """A model that costs nothing: clustered unit vectors, drawn by the number at the head of the text."""

    query_prompt = document_prompt = ""
    fingerprint, model_path, name = "0" * 64, "random", "random"

    def __init__(self, dimension: int, clusters: int) -> None:
        self.dimension = dimension
        self.centres = np.random.default_rng(0).normal(size=(clusters, dimension)).astype(np.float32)
        self.embedded = 0

    def draw(self, seed: int, count: int) -> np.ndarray:
        """(count, d) vectors; near a centre, as texts on one subject are."""
        random = np.random.default_rng(seed)
        near = self.centres[random.integers(len(self.centres), size=count)]
        rows = near + random.normal(size=near.shape).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_documents(self, texts: list[str], *, show_progress: bool = False) -> np.ndarray:
        """One draw per batch."""
        self.embedded += len(texts)
        return self.draw(int(texts[0].partition(" ")[0]) + 1, len(texts))


def chunks(count: int, *, changed: int = 0) -> Iterator[Chunk]:
    """Chunks of 60 words; the first ``changed`` have other texts than they would have."""
    random = np.random.default_rng(1)
    for number in range(count):
        said = number + 10_000_000 if number < changed else number
        words = " ".join(WORDS[place] for place in random.integers(len(WORDS), size=60))
        yield Chunk(
            id=f"{said:032x}",
            text=f"{said} {words}",
            document_id=f"doc-{number // 20}",
            position=number % 20,
            kind="prose",
            title="",
            metadata={"language": ("en", "de")[number % 2], "year": 2000 + number % 25},
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--kinds", nargs="+", default=["flat", "hnsw", "ivf-sq8"])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="of FAISS")
    parser.add_argument("--texts-per-second", type=float, default=40.0, help="of the model, see encode.py")
    parser.add_argument("--folder", type=Path, help="where indexes are written; default: a temporary one")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    work = Path(tempfile.mkdtemp(prefix="benchmark-index-", dir=options.folder))
    try:
        results = run(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(options.output, "index", results, table(results), lambda figure: plot(results, figure))


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All kinds, then raw FAISS, over the same vectors."""
    model = Vectors(options.dimension, max(10, options.chunks // 100))
    bandwidth = read_bandwidth(options.chunks * options.dimension)
    results: dict[str, Any] = {
        "machine": machine(),
        "faiss": faiss.__version__,
        "threads": options.threads,
        "chunks": options.chunks,
        "dimension": options.dimension,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "floor_ms": options.chunks * options.dimension * 4 / bandwidth * 1e3,
        "kinds": {},
    }
    for kind in options.kinds:
        results["kinds"][kind] = measure(kind, options, work / kind, model)
    results["raw_faiss"] = raw(options, model, work / options.kinds[0])
    return results


def measure(kind: str, options: argparse.Namespace, path: Path, model: Vectors) -> dict[str, Any]:
    """Build, search, sync."""
    before = peak()
    built, index = timed(lambda: Index.build(chunks(options.chunks), encoder=model, path=path, kind=kind))
    found: dict[str, Any] = {
        "build_s": built,
        "peak_rss_mb": peak() / 2**20,
        "peak_rss_growth_mb": (peak() - before) / 2**20,
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }
    queries = model.draw(-options.queries % 2**31, options.queries)
    truth = exact(index, queries)
    found["curve"] = curve(kind, index, queries, truth)
    changed = max(1, round(SYNC_SHARE * options.chunks))
    model.embedded = 0
    incoming = list(chunks(options.chunks, changed=changed)) if options.chunks <= 50_000 else None
    seconds, report = timed(lambda: index.sync(incoming or chunks(options.chunks, changed=changed)))
    found["sync"] = {"seconds": seconds, "summary": report.summary(), "share_of_rebuild": seconds / built}
    embedding = options.chunks / options.texts_per_second
    found["sync"]["share_with_embedding"] = (seconds + model.embedded / options.texts_per_second) / (built + embedding)
    more = chunks_after(options.chunks, changed)
    seconds, _ = timed(lambda: (index.delete([chunk.id for chunk in more[1]]), index.add(more[0])))
    found["change_named"] = {"seconds": seconds, "share_of_rebuild": seconds / built}
    index.close()
    return found


def chunks_after(count: int, changed: int) -> tuple[list[Chunk], list[Chunk]]:
    """As many new chunks as old ones to delete: what a caller does who knows what changed."""
    new = [chunk for place, chunk in enumerate(chunks(count + changed)) if place >= count]
    old = [chunk for place, chunk in enumerate(chunks(3 * changed)) if place >= 2 * changed][:changed]
    return new, old


def curve(kind: str, index: Index, queries: np.ndarray, truth: np.ndarray) -> list[dict[str, float]]:
    """Recall@10 and latency of one query at a time, over the setting that trades them."""
    name = {"hnsw": "_EF_SEARCH", "ivf-sq8": "_PROBES"}.get(kind)
    values = {"hnsw": (16, 32, 64, 128, 256, 512), "ivf-sq8": (1, 4, 8, 16, 24, 32, 64, 128)}.get(kind, (0,))
    default = getattr(approximate, name) if name else 0
    points = []
    for value in values:
        if name:
            setattr(approximate, name, value)
        points.append({"setting": value, "default": value == default, **searched(index, queries, truth)})
    if name:
        setattr(approximate, name, default)
    return points


def searched(index: Index, queries: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """One search after the other through the vector store, without the texts."""
    store = index._current().vectors
    store.search(queries[:1], 10)
    times, hits = [], []
    for query, wanted in zip(queries, truth, strict=True):
        seconds, found = timed(lambda query=query: store.search(query[None], 10))
        times.append(seconds)
        hits.append(len({row for row, _ in found[0]} & set(wanted.tolist())) / 10)
    return {
        "recall": float(np.mean(hits)),
        "median_ms": float(np.median(times)) * 1e3,
        "p95_ms": float(np.quantile(times, 0.95)) * 1e3,
    }


def exact(index: Index, queries: np.ndarray) -> np.ndarray:
    """Rows of the true ten, (q, 10)."""
    found = index._current().vectors
    parts = found._exact(queries, 10, None, new=False)
    rows, scores = (np.concatenate(some, axis=1) for some in zip(*parts, strict=True))
    return np.take_along_axis(rows, np.argsort(-scores, axis=1)[:, :10], 1)


def raw(options: argparse.Namespace, model: Vectors, path: Path) -> dict[str, Any]:
    """The same vectors in FAISS indexes without anything around them."""
    with Index.open(path) as index:
        rows = np.concatenate([segment.living()[1] for segment in index._current().vectors._segments])
    queries = model.draw(-options.queries % 2**31, options.queries)
    lists = approximate.clusters(len(rows))
    factories = {"flat": "Flat", "hnsw": f"HNSW{approximate._LINKS},Flat", "ivf-sq8": f"IVF{lists},SQ8"}
    results = {}
    for kind in options.kinds:
        index = faiss.index_factory(options.dimension, factories[kind], faiss.METRIC_INNER_PRODUCT)
        if kind == "hnsw":
            index.hnsw.efConstruction, index.hnsw.efSearch = approximate._EF_CONSTRUCTION, approximate._EF_SEARCH
        sample = rows[np.random.default_rng(0).permutation(len(rows))[: approximate._SAMPLE * lists]]
        seconds, _ = timed(lambda index=index, sample=sample: (index.train(sample), index.add(rows)))
        if kind == "ivf-sq8":
            index.nprobe = approximate._PROBES
        times = [timed(lambda index=index, query=query: index.search(query[None], 10))[0] for query in queries]
        results[kind] = {"build_s": seconds, "median_ms": float(np.median(times)) * 1e3}
    return results


def read_bandwidth(count: int) -> float:
    """Bytes per second of a dot product over as many floats as the vectors have, so that caches help both alike."""
    data = np.ones(count, dtype=np.float32)
    return data.nbytes / min(timed(lambda: np.dot(data, data))[0] for _ in range(10))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def peak() -> int:
    """Most bytes this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(results: dict[str, Any]) -> str:
    """What matters, in Markdown."""
    lines = [
        f"{results['chunks']:,} chunks x {results['dimension']}, {results['threads']} thread(s), exact search floor "
        f"{results['floor_ms']:.2f} ms",
        "",
        "| kind | build s | peak MB | MB on disk | recall@10 | ms | raw FAISS ms | sync 1 % | with embedding | named |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, found in results["kinds"].items():
        point = next(point for point in found["curve"] if point["default"])
        sync = found["sync"]
        lines.append(
            f"| {kind} | {found['build_s']:.1f} | {found['peak_rss_mb']:.0f} | {found['bytes'] / 1e6:.0f} | "
            f"{point['recall']:.3f} | {point['median_ms']:.2f} | {results['raw_faiss'][kind]['median_ms']:.2f} | "
            f"{sync['share_of_rebuild']:.1%} | {sync['share_with_embedding']:.2%} | "
            f"{found['change_named']['share_of_rebuild']:.1%} |"
        )
    for kind, found in results["kinds"].items():
        points = ", ".join(f"{p['setting']}: {p['recall']:.3f} {p['median_ms']:.2f} ms" for p in found["curve"])
        lines.append(f"\n{kind}: {points}")
    return "\n".join(lines)


def plot(results: dict[str, Any], figure: Any) -> None:
    """Recall against latency."""
    axes = figure.subplots()
    for kind, found in results["kinds"].items():
        axes.plot([p["median_ms"] for p in found["curve"]], [p["recall"] for p in found["curve"]], "o-", label=kind)
    axes.axvline(results["floor_ms"], linestyle=":", color="grey", label="floor of exact search")
    axes.set(xscale="log", xlabel="median ms per query", ylabel="recall@10", title=f"{results['chunks']:,} chunks")
    axes.legend()


if __name__ == "__main__":
    main()
