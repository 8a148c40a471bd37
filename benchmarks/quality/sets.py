"""What is measured on: folders in BEIR layout, and docstrings of the standard library drawn anew for every seed.

A task is one set at one seed. Its corpus is all that training sees; queries and judgements are used to score alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from revela_rag.corpus import Corpus, load_corpus, structural_pairs
from revela_rag.demo.stdlib import stdlib_corpus
from revela_rag.evaluation import RetrievalData, load_beir, structural_data

logger = logging.getLogger(__name__)

_REPORTED = 0.25
_FIRST_SPLITS = ("dev", "test")


@dataclass
class Task:
    """One set at one seed.

    Attributes:
        name: of the set.
        data: documents, queries and judgements that score.
        make_corpus: reads the corpus that trains.
    """

    name: str
    data: RetrievalData
    make_corpus: Callable[[], Corpus] = field(repr=False)

    @cached_property
    def corpus(self) -> Corpus:
        """The chunks that training sees; read on first use."""
        return self.make_corpus()

    @cached_property
    def digest(self) -> str:
        """Hash of documents, queries and judgements."""
        state = hashlib.sha256()
        for part in (self.data.corpus, self.data.queries, self.data.qrels):
            state.update(repr(sorted(part.items())).encode("utf-8", "surrogatepass"))
        return state.hexdigest()[:16]


class BeirSet:
    """A folder in BEIR layout; the same task for every seed.

    Args:
        folder: holds ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/``.
        split: file in ``qrels/``; None takes all but ``train`` together (a query judged in several counts with its
            judgements in dev before test before others).
        queries: at most so many queries, drawn at random; None takes all.
        documents: at most so many documents, the relevant ones and random others; None takes all.
    """

    seeded = False

    def __init__(
        self, folder: Path, *, split: str | None = None, queries: int | None = None, documents: int | None = None
    ) -> None:
        self.name = folder.resolve().name
        self._folder = folder
        self._split = split
        self._limits = (queries, documents)
        self._task: Task | None = None

    def task(self, seed: int) -> Task:
        """Read the set, once."""
        if self._task is None:
            data = _limited(_read(self._folder, self._split), *self._limits)

            def corpus() -> Corpus:
                records = [{"_id": id_, "title": t, "text": text} for id_, (t, text) in data.corpus.items()]
                return load_corpus(records)

            self._task = Task(self.name, data, corpus)
        return self._task


class StdlibSet:
    """Docstrings of the standard library find their function's body.

    Every seed draws which quarter of the docstrings reports. Those are gone from the corpus that trains; of the rest
    `adapt` holds some back itself to choose by.

    Args:
        functions: documented functions to take.
        queries: at most so many reporting docstrings; None takes a quarter of all.
    """

    seeded = True
    name = "stdlib"

    def __init__(self, functions: int, *, queries: int | None = None) -> None:
        self._functions = functions
        self._queries = queries

    @cached_property
    def _corpus(self) -> Corpus:
        return stdlib_corpus(functions=self._functions, show_progress=False)

    def task(self, seed: int) -> Task:
        """The draw of a seed."""
        corpus = self._corpus
        pairs = structural_pairs(corpus.chunks)
        count = min(round(len(pairs) * _REPORTED), self._queries or len(pairs))
        drawn = np.random.default_rng((seed, 5)).permutation(len(pairs))[:count]
        report = [pairs[i] for i in sorted(drawn.tolist())]
        data = structural_data(report, corpus.chunks, name=self.name)
        # a query is named by its function, so that seeds can be averaged query by query
        named = {old: pair.chunk_id for old, pair in zip(data.queries, report, strict=True)}
        data.queries = {named[old]: text for old, text in data.queries.items()}
        data.qrels = {named[old]: grades for old, grades in data.qrels.items()}
        hidden = {pair.chunk_id: pair.answer_text for pair in report}

        def without_reporting() -> Corpus:
            chunks = [
                replace(chunk, text=hidden[chunk.id], parts=()) if chunk.id in hidden else chunk
                for chunk in corpus.chunks
            ]
            return Corpus(chunks, corpus.report)

        return Task(self.name, data, without_reporting)


def _read(folder: Path, split: str | None) -> RetrievalData:
    if split is not None:
        return load_beir(folder, split=split)
    names = [file.stem for file in sorted((folder / "qrels").glob("*.tsv")) if file.stem != "train"]
    names.sort(key=lambda name: _FIRST_SPLITS.index(name) if name in _FIRST_SPLITS else len(_FIRST_SPLITS))
    if not names:
        return load_beir(folder)  # says what is missing
    data = load_beir(folder, split=names[0])
    for name in names[1:]:
        more = load_beir(folder, split=name)
        data.queries = more.queries | data.queries
        data.qrels = more.qrels | data.qrels
    data.name = f"{folder.resolve().name}/{'+'.join(names)}"
    return data


def _limited(data: RetrievalData, queries: int | None, documents: int | None) -> RetrievalData:
    """A random part of the data for smoke runs; which documents stay depends on the judgements, so never report it."""
    rng = np.random.default_rng(0)
    if queries is not None and queries < len(data.queries):
        kept = set(rng.permutation(sorted(data.queries))[:queries].tolist())
        data.queries = {id_: text for id_, text in data.queries.items() if id_ in kept}
        data.qrels = {id_: grades for id_, grades in data.qrels.items() if id_ in kept}
    if documents is not None and documents < len(data.corpus):
        relevant = {id_ for grades in data.qrels.values() for id_ in grades}
        others = rng.permutation(sorted(data.corpus.keys() - relevant))[: max(0, documents - len(relevant))]
        kept = relevant | set(others.tolist())
        data.corpus = {id_: value for id_, value in data.corpus.items() if id_ in kept}
    return data
