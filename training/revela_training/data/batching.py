"""Which texts share a batch: that decides what in-batch attention can teach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from torch.utils.data import Dataset

from revela_rag.errors import CorpusError
from revela_training.data.pseudo_queries import KINDS, PseudoQuery
from revela_training.data.units import Unit

__all__ = ["Group", "GroupDataset", "bm25_neighbours", "interleave_order", "prefers_interleave"]

Neighbours = Callable[[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Group:
    """Texts that may read each other in one step.

    Attributes:
        texts: (B,) indices into ``GroupDataset.texts``.
        pairs: (P, 2) indices of (query text, answer text) for the contrastive term; a query of -1 stands before an
            answer that nobody asks for here, a further negative.
        pseudo: (Q, 3) rows of kind (index into `pseudo_queries.KINDS`), query or -1, and passage, for the same term;
            the indices go on behind ``GroupDataset.texts``, into ``pseudo_texts``.
    """

    texts: np.ndarray
    pairs: np.ndarray
    pseudo: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))


class GroupDataset(Dataset[Group]):
    """Groups of exactly B texts, each a function of (seed, index) alone, so that a resumed run sees the same ones.

    Args:
        units: texts that must stay together.
        group_size: B.
        length: number of groups.
        neighbours: for a unit, indices of related units, best first; None fills groups at random.
        neighbour_count: related units to put beside each seed.
        interleave: cut groups out of the interleaved documents instead.
        extra_pairs: pairs drawn from the whole corpus for the contrastive term of each group, and as many pseudo
            queries of each kind; 0 takes the group's own pairs.
        extra_negatives: further answers of each kind, drawn with them.
        pseudo: queries made of passages, with the passages they index.
        seed: seed of the draw.

    Attributes:
        texts: the texts of all units, N of them, unit after unit.
        pseudo_texts: pseudo queries and their passages, each once.
        owners: (N,) index of the unit each text belongs to.

    Raises:
        CorpusError: fewer texts than one group.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        group_size: int,
        length: int,
        neighbours: Neighbours | None = None,
        neighbour_count: int = 3,
        interleave: bool = False,
        extra_pairs: int = 0,
        extra_negatives: int = 0,
        pseudo: tuple[Sequence[PseudoQuery], Sequence[str]] = ((), ()),
        seed: int = 0,
    ) -> None:
        self.texts: list[str] = [text for unit in units for text in unit.texts]
        queries, passages = pseudo
        known: dict[str, int] = {}
        place = [
            [known.setdefault(text, len(self.texts) + len(known)) for text in (query.text, passages[query.passage])]
            for query in queries
        ]
        self.pseudo_texts = list(known)
        self._pseudo = [
            np.array([p for p, q in zip(place, queries, strict=True) if q.kind == kind], dtype=np.int64).reshape(-1, 2)
            for kind in KINDS
        ]
        if len(self.texts) < group_size:
            raise CorpusError(
                f"The corpus gives {len(self.texts)} texts to train on and one group needs {group_size}. "
                "Add documents, or set a smaller group_size."
            )
        self.owners = np.repeat(np.arange(len(units)), [len(unit.texts) for unit in units])
        ends = np.cumsum([len(unit.texts) for unit in units])
        self._members = [np.arange(end - len(unit.texts), end) for unit, end in zip(units, ends, strict=True)]
        self._pairs = np.array(
            [members[:2] for unit, members in zip(units, self._members, strict=True) if unit.is_pair],
            dtype=np.int64,
        ).reshape(-1, 2)
        self._pair_units = frozenset(index for index, unit in enumerate(units) if unit.is_pair)
        self._order = interleave_order(units, seed=seed) if interleave else None
        self._group_size = group_size
        self._length = length
        self._neighbours = neighbours
        self._neighbour_count = neighbour_count
        self._extra_pairs = extra_pairs
        self._extra_negatives = extra_negatives
        self._seed = seed

    @property
    def contrasts(self) -> int:
        """Pairs of the kind of query that has most of them, structural or pseudo."""
        return max(len(rows) for rows in (self._pairs, *self._pseudo))

    @property
    def asking(self) -> np.ndarray:
        """Indices, into ``texts`` and behind them ``pseudo_texts``, of what asks in the contrastive term; sorted."""
        return np.unique(np.concatenate([rows[:, 0] for rows in (self._pairs, *self._pseudo)]))

    def resize(self, length: int) -> None:
        """Have ``length`` groups."""
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Group:
        rng = np.random.default_rng((self._seed, index))
        chosen: list[int] = []
        texts: list[int] = []
        for unit in self._candidates(index, rng):
            if unit in chosen:
                continue
            chosen.append(unit)
            texts.extend(self._members[unit])
            if len(texts) >= self._group_size:
                break
        pairs, pseudo = self._pairs, np.zeros((0, 3), dtype=np.int64)
        if self._extra_pairs and (len(pairs) or self.pseudo_texts):
            pairs = self._contrast(pairs, rng)
            kinds = [self._contrast(rows, rng) for rows in self._pseudo]
            pseudo = np.concatenate([np.insert(rows, 0, kind, axis=1) for kind, rows in enumerate(kinds)])
        else:
            inside = set(texts[: self._group_size])
            members = [self._members[unit][:2] for unit in chosen if unit in self._pair_units]
            pairs = np.array([pair for pair in members if inside.issuperset(pair)], dtype=np.int64).reshape(-1, 2)
        return Group(np.array(texts[: self._group_size], dtype=np.int64), pairs, pseudo)

    def _contrast(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Pairs of one kind, and answers to be told apart from theirs."""
        negatives = _drawn(rows, self._extra_negatives, rng).copy()
        negatives[:, 0] = -1
        return np.concatenate([_drawn(rows, self._extra_pairs, rng), negatives])

    def _candidates(self, index: int, rng: np.random.Generator) -> list[int]:
        """Unit indices in the order they are offered to group ``index``."""
        count = len(self._members)
        if self._order is not None:
            start = index * max(1, self._group_size * count // len(self.texts))
            return [self._order[(start + step) % count] for step in range(count)]
        epoch, place = divmod(index, count)
        seed_unit = int(np.random.default_rng((self._seed, 1, epoch)).permutation(count)[place])
        related: list[int] = []
        if self._neighbours is not None and self._neighbour_count:
            related = [unit for unit in self._neighbours(seed_unit) if unit != seed_unit][: self._neighbour_count]
        return [seed_unit, *related, *rng.permutation(count).tolist()]


def _drawn(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    chosen: np.ndarray = rows[rng.choice(len(rows), size=min(count, len(rows)), replace=False)] if len(rows) else rows
    return chosen


def interleave_order(units: Sequence[Unit], *, documents_at_once: int = 4, seed: int = 0) -> list[int]:
    """Units in the paper's order d11, d21, ..., dn1, d12, ..., over a few documents at a time.

    With all n documents in one round a group would never hold two texts of one document; with four it holds about
    four of each, so that there is something to read in the neighbours.

    Args:
        units: texts with their document and position.
        documents_at_once: n, documents interleaved with each other.
        seed: seed of the order of documents.
    """
    by_document: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(units)), key=lambda i: (units[i].document_id, units[i].position)):
        by_document[units[index].document_id].append(index)
    documents = list(by_document.values())
    order = np.random.default_rng((seed, 2)).permutation(len(documents))
    result = []
    for start in range(0, len(documents), documents_at_once):
        block = [documents[i] for i in order[start : start + documents_at_once]]
        result += [index for row in zip_longest(*block) for index in row if index is not None]
    return result


def prefers_interleave(units: Sequence[Unit]) -> bool:
    """Whether documents are long and carry no pairs, so that neighbours are best taken from the same document."""
    documents = len({unit.document_id for unit in units})
    pairs = sum(unit.is_pair for unit in units)
    return len(units) >= 8 * documents and pairs < len(units) / 10


def bm25_neighbours(units: Sequence[Unit], *, count: int = 8) -> Neighbours:
    """Lexical neighbours of a unit, best first; a unit is never its own neighbour and equal texts are left out."""
    from revela_rag.lexical import LexicalIndex

    joined = ["\n".join(unit.texts) for unit in units]
    index = LexicalIndex.build([str(i) for i in range(len(units))], joined)

    def neighbours(unit: int) -> list[int]:
        found = [int(identifier) for identifier, _ in index.search(joined[unit], k=count + 1)]
        return [other for other in found if other != unit and joined[other] != joined[unit]]

    return neighbours
