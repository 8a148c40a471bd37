"""Searches of many threads and tasks while writers are at work, and memory over many queries.

    python benchmarks/fire/traffic.py

The same writes are done twice: once alone, with the result of every query after every write, and once while threads
and tasks search. Each of their results must be equal, hit for hit and score for score, to one of the first run, of no
earlier state than the one that was reported as written before the search began.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import RandomEncoder, chunk, chunks, in_child, show

from revela_rag.index import Index

QUERIES = [f"calls getUser{number}Name" for number in (3, 70, 150, 301)]
MODES: tuple[Any, ...] = ("dense", "lexical", "hybrid")
_START = 200


def writes(index: Index, number: int) -> None:
    """The n-th write: adds, deletes and syncs in turn."""
    if number % 3 == 0:
        index.add(chunks(_START + number + 5, _START + number))
    elif number % 3 == 1:
        index.delete([chunk(number).id, chunk(_START + number).id])
    else:
        index.sync(chunks(_START + number, number))


def answer(index: Index, query: str, mode: Any) -> list[tuple[str, float]]:
    """Ids and scores of a search."""
    return [(hit.chunk.id, hit.score) for hit in index.search(query, k=20, mode=mode)]


def _open(path: Path, store: str) -> Index:
    options: Any = {"encoder": RandomEncoder(), "store": store}
    return Index.build(chunks(_START), path=path, **options)


def serial(path: Path, store: str, count: int) -> list[dict[tuple[str, str], Any]]:
    """The results of every query in every state."""
    with _open(path, store) as index:
        states = []
        for number in range(-1, count):
            if number >= 0:
                writes(index, number)
            states.append({(query, mode): answer(index, query, mode) for query in QUERIES for mode in MODES})
        return states


def busy(path: Path, store: str, count: int, threads: int, queries: int, tasks: int) -> dict[str, Any]:
    """Search while the writes go on; gives what was found and how many writes were done before each search began."""
    done, found, errors = 0, [], []
    with _open(path, store) as index:

        def search(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(queries):
                query, mode, before = draw.choice(QUERIES), draw.choice(MODES), done
                try:
                    found.append((query, mode, before, answer(index, query, mode)))
                except Exception as error:
                    errors.append(repr(error))

        async def ask() -> None:
            async def one(seed: int) -> None:
                draw = random.Random(seed)
                for _ in range(5):
                    query, mode, before = draw.choice(QUERIES), draw.choice(MODES), done
                    try:
                        found.append((query, mode, before, await asyncio.to_thread(answer, index, query, mode)))
                    except Exception as error:
                        errors.append(repr(error))

            await asyncio.gather(*(one(1000 + number) for number in range(tasks)))

        workers = [threading.Thread(target=search, args=(number,)) for number in range(threads)]
        workers.append(threading.Thread(target=lambda: asyncio.run(ask())))
        for worker in workers:
            worker.start()
        for number in range(count):
            writes(index, number)
            done = number + 1
        for worker in workers:
            worker.join()
    return {"found": found, "errors": errors}


def traffic(store: str, count: int, threads: int, queries: int, tasks: int) -> dict[str, Any]:
    """One row: how many searches, and how many of them were wrong."""
    with tempfile.TemporaryDirectory() as folder:
        states = in_child(partial(serial, Path(folder) / "serial", store, count))
        told = in_child(partial(busy, Path(folder) / "busy", store, count, threads, queries, tasks))
    wrong = seen = 0
    for query, mode, before, result in told["found"]:
        fits = [number for number, state in enumerate(states) if state[query, mode] == result]
        wrong += not fits or max(fits) < before
        seen = max(seen, min(fits, default=0))
    names = {"threads": threads, "tasks": tasks, "writes": count, "searches": len(told["found"])}
    return {"store": store, **names, "wrong": wrong, "errors": len(told["errors"]), "latest": seen}


def memory(store: str, queries: int) -> dict[str, Any]:
    """Resident memory over so many queries, from when a fifth of them are done."""
    with tempfile.TemporaryDirectory() as folder:
        return {"store": store, **in_child(partial(_memory, Path(folder) / "index", store, queries), 900)}


def _memory(path: Path, store: str, queries: int) -> dict[str, Any]:
    sizes, started = [], time.perf_counter()
    with _open(path, store) as index:
        for number in range(queries):
            index.search(f"getUser{number}Name and text {number}", mode=MODES[number % 3])
            if number % (queries // 10) == queries // 10 - 1:
                sizes.append(_resident())
    grown = sizes[-1] - sizes[1]
    seconds = round(time.perf_counter() - started, 1)
    return {"queries": queries, "MB": round(sizes[-1] / 1e6, 1), "grown KB": round(grown / 1e3), "seconds": seconds}


def _resident() -> int:
    import resource

    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Run as the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", nargs="*", default=["faiss", "chroma"])
    parser.add_argument("--writes", type=int, default=12)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--queries", type=int, default=200, help="of each thread")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--memory", type=int, default=10_000, help="queries over which memory is watched")
    arguments = parser.parse_args()
    shape = (arguments.writes, arguments.threads, arguments.queries, arguments.tasks)
    rows = [traffic(store, *shape) for store in arguments.store]
    show(rows, None)
    kept = [memory(store, arguments.memory) for store in arguments.store if arguments.memory]
    show(kept, None)
    sys.exit(any(row["wrong"] or row["errors"] for row in rows))


if __name__ == "__main__":
    main()
