"""Kinds of index that keep vectors in little memory, against an exact search: memory, recall, latency.

    python benchmarks/speed/compact.py                                    # 20,000 vectors
    python benchmarks/speed/compact.py --chunks 1000000 --queries 50      # full size, 2 GB on disk
    python benchmarks/speed/compact.py --sets SETS/cranfield SETS/tools   # and nDCG@10 on folders in BEIR layout

Vectors are those of chunks of the standard library by all-MiniLM-L6-v2, embedded once and kept in ``--cache``. Where
more are asked for than there are, the rest are mixtures of two of them with some noise. A search is one of the vector
store, without texts; its milliseconds are processor time, as others may use the machine. Memory is what a fresh process
has of the structure after its searches: the pages of the mapped file, and what the process allocated for the store.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from report import machine, table, write

from revela_rag.corpus import load_corpus
from revela_rag.evaluation import load_beir
from revela_rag.evaluation.metrics import score_run
from revela_rag.evaluation.vectors import cached_vectors, passages
from revela_rag.index.rotation import Rotation
from revela_rag.index.stores import STORES
from revela_rag.index.stores.faiss_store import FaissStore
from revela_rag.model.encoder import Encoder

BATCH = 65_536
KEPT = (192, 128, 96)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=10_000, help="to embed")
    parser.add_argument("--queries", type=int, default=200, help="texts that are no chunks")
    parser.add_argument("--kinds", nargs="+", default=list(STORES["faiss"].kinds), choices=STORES["faiss"].kinds)
    parser.add_argument("--sets", nargs="*", type=Path, default=[], help="folders in BEIR layout")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-results"), help="where embeddings are kept")
    parser.add_argument("--folder", type=Path, help="where indexes are written; default: a temporary one")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a store, in a process of its own
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if options.measure:
        print(json.dumps(searched(json.loads(options.measure))))
        return
    work = Path(tempfile.mkdtemp(prefix="benchmark-compact-", dir=options.folder))
    try:
        results = run(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(options.output, "compact", results, tables(results), lambda figure: plot(results, figure))


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All kinds over the same vectors, then the sets."""
    real = standard_library(options.texts + options.queries, options.cache)
    base, queries = real[: -options.queries], real[-options.queries :]
    np.save(work / "queries.npy", queries)
    results: dict[str, Any] = {
        "machine": machine(),
        "faiss": faiss.__version__,
        "chunks": options.chunks,
        "dimension": int(base.shape[1]),
        "real": min(len(base), options.chunks),
        "kinds": {},
        "sets": {},
    }
    for kind in ["flat", *(kind for kind in options.kinds if kind != "flat")]:  # flat says what is right
        seconds = build(base, options.chunks, work / kind, kind)
        asked = {"folder": str(work / kind), "kind": kind, "count": options.chunks, "dimension": int(base.shape[1])}
        said = subprocess.run(
            [sys.executable, __file__, "--measure", json.dumps(asked)], check=True, capture_output=True, text=True
        )
        results["kinds"][kind] = {"build_s": seconds, **json.loads(said.stdout)}
        if kind != "flat":
            shutil.rmtree(work / kind)
        print(kind, {name: round(value, 4) for name, value in results["kinds"][kind].items()}, flush=True)
    for folder in options.sets:
        results["sets"][folder.name] = ranked(folder, options, work)
    return results


def standard_library(count: int, cache: Path) -> np.ndarray:
    """(count, 384) unit vectors of the first tokens of chunks, in an order drawn once."""
    file = cache / f"standard-library-{count}.npy"
    if file.exists():
        return np.load(file, allow_pickle=False)
    folder = Path(sysconfig.get_path("stdlib"))
    texts: list[str] = []
    for package in sorted(entry.parent for entry in folder.glob("*/__init__.py")):
        texts += [chunk.text for chunk in load_corpus(package).chunks]
        if len(texts) > 2 * count:
            break
    places = np.random.default_rng(0).permutation(len(texts))[:count]
    vectors = Encoder("all-MiniLM-L6-v2", max_length=48).encode_documents([texts[place] for place in places])
    if len(vectors) < count:
        raise SystemExit(f"{folder} gives {len(vectors)} texts; ask for fewer with --texts.")
    cache.mkdir(parents=True, exist_ok=True)
    np.save(file, vectors, allow_pickle=False)
    return vectors


def batches(base: np.ndarray, count: int) -> Any:
    """Rows and vectors: all of ``base``, then mixtures."""
    random = np.random.default_rng(1)
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(start + BATCH, count))
        first, second = (base[random.integers(len(base), size=len(rows))] for _ in range(2))
        share = random.uniform(0.5, 1, size=(len(rows), 1)).astype(np.float32)
        noise = random.normal(scale=0.4 / base.shape[1] ** 0.5, size=first.shape).astype(np.float32)
        mixed = share * first + (1 - share) * second + noise
        known = rows < len(base)
        mixed[known] = base[rows[known]]
        yield rows, mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def build(base: np.ndarray, count: int, folder: Path, kind: str) -> float:
    """Write a store; gives the seconds of processor time that making its structure took."""
    folder.mkdir(parents=True)
    flat = folder.parent / "flat"
    if kind == "flat":
        store = FaissStore.create(folder, dimension=base.shape[1], kind=kind)
        for rows, vectors in batches(base, count):
            store.add(rows, vectors)
    else:  # links the vectors
        store = FaissStore.create(folder, dimension=base.shape[1], kind=kind, source=flat)
    start = time.process_time()
    store.save(least=1)
    return time.process_time() - start


def searched(asked: dict[str, Any]) -> dict[str, float]:
    """Recall@10 and milliseconds of one query at a time, and what the process then has in memory."""
    folder, count = Path(asked["folder"]), asked["count"]
    queries, truth = np.load(folder.parent / "queries.npy"), folder.parent / "truth.npy"
    before = anonymous()
    store = FaissStore.open(folder, dimension=asked["dimension"], count=count, kind=asked["kind"])
    store.search(queries[:1], 10)
    times, found = [], []
    for query in queries:
        start = time.process_time()
        hits = store.search(query[None], 10)[0]
        times.append(time.process_time() - start)
        found.append([row for row, _ in hits])
    if asked["kind"] == "flat":
        np.save(truth, np.array(found))
    wanted = np.load(truth)
    shares = [len(set(some) & set(best.tolist())) / 10 for some, best in zip(found, wanted, strict=True)]
    structure = "approximate.faiss" if (folder / "approximate.faiss").exists() else "vectors-"
    return {
        "recall": float(np.mean(shares)),
        "median_ms": float(np.median(times)) * 1e3,
        "mapped_bytes": mapped(structure) / count,
        "allocated_bytes": (anonymous() - before) / count,
    }


def anonymous() -> int:
    """Bytes that this process has allocated."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def mapped(name: str) -> int:
    """Bytes that this process has in memory of the mapped files whose names hold ``name``."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = name in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total


def ranked(folder: Path, options: argparse.Namespace, work: Path) -> dict[str, float]:
    """nDCG@10 of dense search by kind, and of kinds ``flat`` and ``rabitq`` with fewer dimensions."""
    data, encoder = load_beir(folder), Encoder("all-MiniLM-L6-v2")
    asked = [query for query in data.queries if query in data.qrels]
    texts, names = passages(data.corpus, window=None)
    documents = cached_vectors(encoder, "document", texts, cache_dir=options.cache)
    queries = cached_vectors(encoder, "query", [data.queries[query] for query in asked], cache_dir=options.cache)
    found = {}
    for kept in (None, *KEPT):
        turn = (lambda vectors: vectors) if kept is None else Rotation.fit([documents], kept).apply
        for kind in options.kinds if kept is None else ("flat", "rabitq"):
            place = work / folder.name / f"{kind}-{kept}"
            place.mkdir(parents=True)
            length = turn(documents[:1]).shape[1]
            draft = FaissStore.create(place, dimension=length, kind=kind)
            draft.add(np.arange(len(documents)), turn(documents))
            draft.save(least=1)
            store = FaissStore.open(place, dimension=length, count=len(documents), kind=kind)
            hits = store.search(turn(queries), 10)
            run = {query: {names[row]: score for row, score in some} for query, some in zip(asked, hits, strict=True)}
            name = kind if kept is None else f"{kind}, {kept} dimensions"
            found[name] = score_run(run, data.qrels).mean("nDCG@10")
    print(folder.name, found, flush=True)
    return found


def tables(results: dict[str, Any]) -> str:
    """What matters, in Markdown."""
    columns = ["kind", "bytes a vector", "of them mapped", "recall@10", "ms a query", "build s"]
    rows = []
    for kind, found in results["kinds"].items():
        size, recall = found["mapped_bytes"] + found["allocated_bytes"], f"{found['recall']:.4f}"
        rows.append([kind, size, found["mapped_bytes"], recall, found["median_ms"], found["build_s"]])
    parts = [f"{results['chunks']:,} vectors of {results['dimension']}, {results['real']:,} of them real, one thread"]
    parts.append(table(columns, rows))
    if results["sets"]:
        kinds = list(next(iter(results["sets"].values())))
        lines = [[kind, *(f"{found[kind]:.4f}" for found in results["sets"].values())] for kind in kinds]
        parts.append(table(["nDCG@10, dense", *results["sets"]], lines))
    return "\n\n".join(parts)


def plot(results: dict[str, Any], figure: Any) -> None:
    """Recall against memory."""
    axes = figure.subplots()
    for kind, found in results["kinds"].items():
        size = (found["mapped_bytes"] + found["allocated_bytes"]) * results["chunks"] / 1e6
        axes.plot(size, found["recall"], "o", label=f"{kind}, {found['median_ms']:.1f} ms")
    axes.set(xscale="log", xlabel="MB in memory", ylabel="recall@10", title=f"{results['chunks']:,} vectors")
    axes.legend()


if __name__ == "__main__":
    main()
