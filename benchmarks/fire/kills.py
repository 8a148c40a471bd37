"""Writers of an index that are killed, at random moments and at every call, and power that fails.

    python benchmarks/fire/kills.py --count 200

Every kill is a SIGKILL. After each the index is read byte by byte (`revela doctor --verify`), found by vectors and by
words, and compared with what the writer had reported as done; then the same write runs to its end, after which nothing
of the killed one may be left. With ``--calls`` the kill comes at the n-th call of Python that opens, makes, renames,
links, copies or removes a file, for every n of one run. With ``--power`` every file that was not synced when the kill
came is cut in half, as a power cut might leave it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness import RandomEncoder, chunk, chunks, found, fresh, in_child, killed, leftovers, said, show, started

from revela_rag.index import Index
from revela_rag.index.writing import generations

Say = Callable[[str], None]
_EVENTS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "shutil.copyfile", "sqlite3.connect")
_START = 60


def _open(root: Path) -> Index:
    return Index.open(root, encoder=RandomEncoder(), lock_timeout=60)  # type: ignore[arg-type]


def _build(root: Path, store: str, count: int = _START) -> None:
    options: Any = {"encoder": RandomEncoder(), "store": store, "overwrite": True}
    Index.build(chunks(count), path=root, **options).close()


def sync(root: Path, store: str, say: Say) -> None:
    """Between two states, for as long as it lives."""
    with _open(root) as index:
        say("ready")
        while True:
            index.sync(chunks(300, _START))
            index.sync(chunks(_START))


def add(root: Path, store: str, say: Say) -> None:
    """One chunk after another, each reported when it is in."""
    with _open(root) as index:
        number = len(index)
        say("ready")
        while True:
            index.add([chunk(number)])
            say(f"done {number}")
            number += 1


def delete(root: Path, store: str, say: Say) -> None:
    """One chunk after another, each reported when it is out."""
    with _open(root) as index:
        first = min(found(root, verify=False), default=_START)
        say("ready")
        for number in range(first, _START):
            index.delete([chunk(number).id])
            say(f"done {number}")
        while True:
            signal.pause()


def build(root: Path, store: str, say: Say) -> None:
    """Two indexes in turn, each in place of the other."""
    say("ready")
    while True:
        _build(root, store, 300)
        _build(root, store)


def once(what: str, root: Path, store: str) -> None:
    """One write, to its end."""
    if what == "build":
        _build(root, store)
        return
    with _open(root) as index:
        if what == "sync":
            index.sync(chunks(300, _START))
        elif what == "add":
            index.add(chunks(1000 + len(index), 1000))
        else:
            index.delete([chunk(min(found(root, verify=False))).id])


WORK = {"build": build, "sync": sync, "add": add, "delete": delete}


def check(what: str, held: set[int] | None, done: list[int], before: set[int] | None) -> bool:
    """Whether what is there is what it was before the write that was cut off, or after it; nothing reported is lost."""
    first, second = set(range(_START)), set(range(_START, 300))
    if what == "sync":
        return held in (first, second)
    if what == "build":
        return held in (first, set(range(300)), before)
    assert held is not None and before is not None
    if what == "add":
        new = sorted(held - before)
        return (
            held >= before and set(done) <= held and new == list(range(min(new, default=0), max(new, default=-1) + 1))
        )
    return held <= before and not set(done) & held and len(before - held) <= len(done) + 1


def at_random(what: str, store: str, count: int, folder: Path, draw: random.Random, power: bool) -> dict[str, Any]:
    """Kill a writer so many times, always of the same index."""
    root = fresh(folder / f"{what}-{store}")
    tally: Counter[str] = Counter()
    _new(root, store)
    for _ in range(count):
        before = in_child(partial(found, root, verify=False))
        if what == "delete" and len(before) < 20:
            _new(root, store)
            before = set(range(_START))
        lines = killed(
            partial(_watched if power else WORK[what], *([what] if power else []), root, store), draw.uniform(0, 0.6)
        )
        tally["cut"] += _cut_unsynced(root, lines) if power else 0
        tally["left"] += bool(leftovers(root))
        _judge(what, root, store, lines, before, tally)
    return {"write": what, "store": store, "when": "power" if power else "random", "kills": count, **_told(tally)}


def at_calls(what: str, store: str, folder: Path, step: int) -> dict[str, Any]:
    """Kill a writer at every call that touches a file, or every ``step``-th."""
    root, tally, number = folder / f"{what}-{store}", Counter[str](), 0
    while True:
        number += step
        in_child(partial(_build, fresh(root), store))
        before = set(range(_START))
        child, read = started(partial(_dies_at, number, what, root, store))
        lines = said(read)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            if status:
                raise RuntimeError("\n".join(lines))
            break
        tally["kills"] += 1
        tally["left"] += bool(leftovers(root))
        held = in_child(partial(found, root))
        after = {"sync": set(range(_START, 300)), "add": before | set(range(1000, 1060)), "delete": before - {0}}
        tally["lost"] += held not in (before, after.get(what, before))
        in_child(partial(once, what, root, store))
        tally["orphans"] += bool(leftovers(root))
        tally["broken"] += not in_child(partial(found, root))
    kills = tally.pop("kills")
    return {"write": what, "store": store, "when": "calls", "kills": kills, **_told(tally)}


def _judge(what: str, root: Path, store: str, lines: list[str], before: set[int], tally: Counter[str]) -> None:
    done = [int(line.split()[1]) for line in lines if line.startswith("done")]
    held = in_child(partial(found, root))
    tally["lost"] += not check(what, held, done, before)
    in_child(partial(once, what, root, store))
    tally["orphans"] += bool(leftovers(root))
    tally["broken"] += in_child(partial(found, root)) is None
    _all_synced(root)
    if what == "add" and len(held) > 400:
        _new(root, store)
    elif what == "add":
        in_child(partial(_keep, root, held))
        _all_synced(root)


def _keep(root: Path, held: set[int]) -> None:
    with _open(root) as index:
        index.sync([chunk(number) for number in sorted(held)])


def _told(tally: Counter[str]) -> dict[str, int]:
    return {name: tally[name] for name in ("left", "cut", "lost", "orphans", "broken")}


def _dies_at(number: int, what: str, root: Path, store: str, say: Say) -> None:
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _EVENTS and str(root) in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    once(what, root, store)


def _watched(what: str, root: Path, store: str, say: Say) -> None:
    """A writer that says which files it has synced."""
    before = generations._sync

    def sync_and_say(path: Path) -> None:
        before(path)
        about = path.stat()
        say(f"synced {about.st_ino} {about.st_mtime_ns}")

    generations._sync = sync_and_say  # type: ignore[assignment]
    WORK[what](root, store, say)


def _new(root: Path, store: str) -> None:
    """Build the index; all of it counts as synced, as of whatever ran to its end."""
    in_child(partial(_build, root, store))
    _all_synced(root)


def _all_synced(root: Path) -> None:
    for file in root.rglob("*"):
        about = file.stat()
        _synced[about.st_ino] = about.st_mtime_ns


_synced: dict[int, int] = {}


def _cut_unsynced(root: Path, lines: list[str]) -> int:
    """Cut every file in half that was written after it was last synced; gives how many.

    SQLite syncs by itself what Chroma's readers write into a published database.
    """
    _synced.update(tuple(map(int, line.split()[1:])) for line in lines if line.startswith("synced"))  # type: ignore[misc]
    cut = 0
    for file in root.rglob("*"):
        if not file.is_file() or file.name in (".lock", ".queue"):
            continue
        about = file.stat()
        by_readers = file.name == "chroma.sqlite3" and about.st_ino in _synced
        if about.st_size and _synced.get(about.st_ino) != about.st_mtime_ns and not by_readers:
            os.truncate(file, about.st_size // 2)
            cut += 1
    return cut


def main() -> None:
    """Run as the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="kills at random moments, over all writes and stores")
    parser.add_argument("--what", nargs="*", choices=WORK, default=list(WORK))
    parser.add_argument("--store", nargs="*", default=["faiss", "chroma"])
    parser.add_argument("--calls", type=int, default=0, metavar="STEP", help="also at every STEP-th call; 1 is all")
    parser.add_argument("--power", type=int, default=0, metavar="COUNT", help="also this many power cuts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="write the rows as JSON")
    arguments = parser.parse_args()
    draw, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as folder:
        cases = [(what, store) for store in arguments.store for what in arguments.what]
        for count, power in ((arguments.count, False), (arguments.power, True)):
            for what, store in cases if count else ():
                rows.append(at_random(what, store, -(-count // len(cases)), Path(folder), draw, power))
                show(rows[-1:], None)
        for what, store in cases if arguments.calls else ():
            rows.append(at_calls(what, store, Path(folder), arguments.calls))
            show(rows[-1:], None)
    show(rows, arguments.output)
    sys.exit(any(row["lost"] or row["orphans"] or row["broken"] for row in rows))


if __name__ == "__main__":
    main()
