"""What a search costs: against encode + raw FAISS, through adapters, from threads, and from a cold start.

    python benchmarks/speed/search.py                     # 5,000 chunks, about a minute
    python benchmarks/speed/search.py --chunks 100000 --queries 1000

The named alternative is ``Encoder.encode_queries`` and ``IndexFlatIP.search``, nothing else. Turns are taken query by
query, so that what else the machine does falls on all ways alike; processor time is given beside the clock. A cold
start is a process that answers one question; its alternative is the same through sentence-transformers, its floor
importing torch.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from report import machine, table, write

from revela_rag.corpus.types import Chunk
from revela_rag.index import Index
from revela_rag.model.encoder import Encoder
from revela_rag.model.find import DEFAULT_BASE

QUESTION = "how do I {} the {} of a {}"
VERBS, THINGS = ("open", "close", "read", "rotate", "find", "sort"), ("file", "key", "socket", "list", "page", "lock")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_BASE)
    parser.add_argument("--chunks", type=int, default=5_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--cold-starts", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="benchmark-search-"))
    try:
        results = run(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(options.output, "search", results, shown(results), lambda figure: plot(results, figure))


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Build one index and ask it in every way."""
    encoder = Encoder(options.model, device="cpu")
    vectors = np.random.default_rng(0).normal(size=(options.chunks, encoder.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index.build(chunks(options.chunks), encoder=encoder, path=work / "index", vectors=vectors)
    bare = faiss.IndexFlatIP(encoder.dimension)
    bare.add(vectors)
    asked = [
        QUESTION.format(VERBS[i % 6], THINGS[i // 6 % 6], THINGS[i // 36 % 6]) + f" {i}" for i in range(options.queries)
    ]
    ways: dict[str, Callable[[str], Any]] = {
        "encode + FAISS": lambda query: bare.search(encoder.encode_queries([query]), 5),
        "forward + FAISS": forward(encoder, bare),
        "Index.search, dense": lambda query: index.search(query, k=5, mode="dense"),
        "Index.search, hybrid (default)": lambda query: index.search(query, k=5, mode="hybrid"),
        **adapters(index),
    }
    return {
        "machine": machine(),
        "model": options.model,
        "chunks": options.chunks,
        "latency": compare(ways, asked),
        "threads": scaling(index, asked, options.threads),
        "cold": cold(work / "index", options.cold_starts),
    }


def forward(encoder: Encoder, bare: Any) -> Callable[[str], Any]:
    """Tokenising, one forward pass and the search, without any check."""
    backend = encoder._ready
    return lambda query: bare.search(backend.embed(backend.tokenize([query], encoder.query_prompt), "query"), 5)


def adapters(index: Index) -> dict[str, Callable[[str], Any]]:
    """The retrievers of LangChain and LlamaIndex, where they are installed."""
    found: dict[str, Callable[[str], Any]] = {}
    try:
        from langchain_revela import RevelaRetriever

        found["LangChain retriever, dense"] = RevelaRetriever(index=index, k=5, search_type="dense").invoke
    except ImportError as error:
        print(f"no LangChain: {error}", file=sys.stderr)
    try:
        from llama_index.retrievers.revela import RevelaRetriever as LlamaRetriever

        found["LlamaIndex retriever, dense"] = LlamaRetriever(index=index, similarity_top_k=5, mode="dense").retrieve
    except ImportError as error:
        print(f"no LlamaIndex: {error}", file=sys.stderr)
    return found


def chunks(count: int) -> list[Chunk]:
    """Short chunks; their vectors come from elsewhere."""
    return [
        Chunk(
            id=f"{n:032x}",
            text=f"{VERBS[n % 6]} the {THINGS[n // 6 % 6]} of page {n}",
            document_id=f"d{n // 9}",
            position=n,
            kind="prose",
        )
        for n in range(count)
    ]


def compare(ways: dict[str, Callable[[str], Any]], asked: list[str]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each way by the clock and of the processor, and ratios to encode + FAISS."""
    for call in ways.values():
        call(asked[0])
    clock: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for query in asked:
        for name, call in ways.items():
            start, before = time.perf_counter(), time.process_time()
            call(query)
            used[name].append(time.process_time() - before)
            clock[name].append(time.perf_counter() - start)
    middle = {name: (float(np.median(clock[name])) * 1e3, float(np.median(used[name])) * 1e3) for name in ways}
    first = middle["encode + FAISS"]
    return {
        name: {"median_ms": wall, "ratio": wall / first[0], "cpu_ms": cpu, "cpu_ratio": cpu / first[1]}
        for name, (wall, cpu) in middle.items()
    }


def scaling(index: Index, asked: list[str], counts: list[int]) -> dict[str, dict[str, float]]:
    """Queries per second from several threads, and from as many tasks of an event loop."""
    found: dict[str, dict[str, float]] = {}
    for count in counts:
        with ThreadPoolExecutor(count) as pool:
            start = time.perf_counter()
            list(pool.map(lambda query: index.search(query, k=5), asked))
            found[f"{count} threads"] = {"per_second": len(asked) / (time.perf_counter() - start)}

    async def ask() -> None:
        await asyncio.gather(*(asyncio.to_thread(index.search, query, k=5) for query in asked))

    start = time.perf_counter()
    asyncio.run(ask())
    found["asyncio"] = {"per_second": len(asked) / (time.perf_counter() - start)}
    first = found[f"{counts[0]} threads"]["per_second"]
    return {name: {**some, "ratio": some["per_second"] / first} for name, some in found.items()}


COLD = {
    "revela search": "from revela_rag.cli import main\nmain()",
    "revela search --dense": "sys.argv.append('--dense')\nfrom revela_rag.cli import main\nmain()",
    "revela search --lexical": "sys.argv.append('--lexical')\nfrom revela_rag.cli import main\nmain()",
    "through sentence-transformers": (
        "from revela_rag.model.encoder import Encoder\nEncoder._read = lambda self: None\n"
        "from revela_rag.cli import main\nmain()"
    ),
    "import sentence_transformers": "import sentence_transformers",
    "import torch": "import torch",
    "import revela_rag": "import revela_rag",
    "python": "pass",
}


def cold(index: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Best seconds of a new process, by the clock and of the processor."""
    found = {}
    for name, code in COLD.items():
        script = f"import sys\nsys.argv = ['revela', 'search', {str(index)!r}, 'rotate the key']\n{code}"
        clock, processor = float("inf"), float("inf")
        for _ in range(repeats):
            before, start = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
            after = os.times()
            clock = min(clock, time.perf_counter() - start)
            used = after.children_user + after.children_system - before.children_user - before.children_system
            processor = min(processor, used)
        found[name] = {"seconds": clock, "cpu_seconds": processor}
    return found


def shown(results: dict[str, Any]) -> str:
    """The tables."""
    latency = table(
        ["way", "median ms", "ratio"], [[name, *some.values()] for name, some in results["latency"].items()]
    )
    threads = table(
        ["callers", "per second", "ratio"], [[name, *some.values()] for name, some in results["threads"].items()]
    )
    start = table(["process", "s", "CPU s"], [[name, *some.values()] for name, some in results["cold"].items()])
    return f"{results['chunks']:,} chunks, {results['model']}\n\n{latency}\n\n{threads}\n\n{start}"


def plot(results: dict[str, Any], figure: Any) -> None:
    """Latency of every way, and cold starts."""
    left, right = figure.subplots(2, 1)
    left.barh(list(results["latency"]), [some["median_ms"] for some in results["latency"].values()])
    left.set(xlabel="median ms per query")
    right.barh(list(results["cold"]), [some["seconds"] for some in results["cold"].values()])
    right.set(xlabel="seconds of a new process")


if __name__ == "__main__":
    main()
