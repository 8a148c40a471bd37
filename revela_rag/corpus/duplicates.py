"""Exact and near duplicates, found without comparing every pair."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from revela_rag.corpus.types import Chunk

__all__ = ["Duplicates", "find_duplicates"]

#: Texts are compared by their sets of this many consecutive words (punctuation marks count as words).
SHINGLE = 4
#: A text is compared with at most this many earlier ones, those sharing its rarest shingles first.
MAX_CANDIDATES = 500

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(slots=True)
class Duplicates:
    """Positions of chunks to drop: each equals, or nearly equals, one that comes earlier and stays."""

    exact: list[int]
    near: list[int]


def find_duplicates(
    chunks: Sequence[Chunk], *, threshold: float = 0.9, progress: Callable[[int], None] | None = None
) -> Duplicates:
    """Find chunks that repeat an earlier one.

    Exact: equal titles and texts up to case and whitespace. Near: the Jaccard similarity of the sets of four-word
    shingles of title and text is at least ``threshold``. The search is exact, by prefix filtering (Chaudhuri et al.
    2006, Bayardo et al. 2007): two sets that similar must share one of their few rarest shingles. It is deterministic:
    the first of several stays. Tools (``tool`` in the metadata) are dropped for exact repetition alone: ``update_user``
    may read nearly like ``delete_user``.

    Args:
        chunks: in the order in which they win.
        threshold: similarity in (0, 1] from which a text is a near duplicate; 1 finds none.
        progress: called with the number of chunks done.
    """
    exact: list[int] = []
    seen: set[str] = set()
    tokens: list[list[str]] = []
    kept: list[int] = []
    for position, chunk in enumerate(chunks):
        key = " ".join(chunk.embedding_text.casefold().split())
        if key in seen:
            exact.append(position)
            continue
        seen.add(key)
        if "tool" in chunk.metadata:
            continue
        kept.append(position)
        tokens.append(_TOKEN.findall(key))
    near = [] if threshold >= 1 else _near(tokens, threshold, progress)
    return Duplicates(exact, [kept[index] for index in near])


def _near(texts: Sequence[list[str]], threshold: float, progress: Callable[[int], None] | None) -> list[int]:
    sets = _shingles(texts)
    # rank shingles by how many texts hold them, rarest first; the value breaks ties, so the order is total
    values, frequency = np.unique(np.concatenate(sets) if sets else np.zeros(0, np.uint64), return_counts=True)
    order = np.lexsort((values, frequency))
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values))
    shared_from = int(np.searchsorted(frequency[order], 2))  # ranks below occur in a single text
    index: defaultdict[int, list[int]] = defaultdict(list)
    ranked: dict[int, frozenset[int]] = {}
    dropped = []
    for number, shingles in enumerate(sets):
        if progress is not None:
            progress(number)
        size = len(shingles)
        if size == 0:
            continue
        ranks = np.sort(rank[np.searchsorted(values, shingles)])
        prefix = ranks[: size - int(np.ceil(threshold * size)) + 1]
        rare = prefix[prefix >= shared_from].tolist()
        if not rare:
            continue
        mine = frozenset(ranks.tolist())
        if any(_similar(mine, ranked[other], threshold) for other in _candidates(rare, index)):
            dropped.append(number)
            continue
        ranked[number] = mine
        for shingle in rare:
            index[shingle].append(number)
    return dropped


def _candidates(rare: Iterable[int], index: defaultdict[int, list[int]]) -> list[int]:
    found: dict[int, None] = {}
    for shingle in rare:
        for number in index.get(shingle, ()):
            found[number] = None
            if len(found) >= MAX_CANDIDATES:
                return list(found)
    return list(found)


def _similar(a: frozenset[int], b: frozenset[int], threshold: float) -> bool:
    if min(len(a), len(b)) < threshold * max(len(a), len(b)):
        return False
    common = len(a & b)
    return common >= threshold * (len(a) + len(b) - common)


def _shingles(texts: Sequence[list[str]]) -> list[np.ndarray]:
    """Sorted unique hashes of the shingles of each text; a text shorter than a shingle is one shingle."""
    words: dict[str, int] = {}
    sets = []
    with np.errstate(over="ignore"):
        for tokens in texts:
            ids = np.array([words.setdefault(token, len(words) + 1) for token in tokens], np.uint64)
            width = min(SHINGLE, len(ids))
            count = len(ids) - width + 1
            if width == 0:
                sets.append(np.zeros(0, np.uint64))
                continue
            hashes = np.zeros(count, np.uint64)
            for offset in range(width):
                hashes = (hashes ^ ids[offset : offset + count]) * np.uint64(0x9E3779B97F4A7C15)
                hashes ^= hashes >> np.uint64(29)
            sets.append(np.unique(hashes))
    return sets
