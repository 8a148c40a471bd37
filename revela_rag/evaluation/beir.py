"""Labelled retrieval data in BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from revela_rag.errors import CorpusError

__all__ = ["RetrievalData", "load_beir"]

_COLUMNS = ("query-id", "corpus-id", "score")

logger = logging.getLogger(__name__)


@dataclass
class RetrievalData:
    """Documents, queries and the judgements that say which document answers which query.

    Attributes:
        corpus: document id to (title, text); the title may be empty.
        queries: query id to text; only the queries that are judged in the chosen split.
        qrels: query id to {document id: relevance}; a relevance of 1 or more is relevant.
        name: what to call the data in tables, for example ``"scifact/test"``.
        unknown_documents: judgements left out because the corpus has no such document.
        unknown_queries: judgements left out because there is no such query.
        conflicts: pairs of query and document that are judged more than once, and differently; the last one counts.
    """

    corpus: dict[str, tuple[str, str]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    name: str
    unknown_documents: int = 0
    unknown_queries: int = 0
    conflicts: int = 0

    @property
    def own(self) -> set[str]:
        """Ids of the queries that are documents, too, and no answer to themselves: no search may find those."""
        return {id_ for id_ in self.queries if id_ in self.corpus and self.qrels.get(id_, {}).get(id_, 0) < 1}

    def limited(self, queries: int) -> RetrievalData:
        """The same data with the first ``queries`` queries only; the corpus stays whole."""
        kept = dict(list(self.queries.items())[:queries])
        qrels = {query_id: self.qrels[query_id] for query_id in kept if query_id in self.qrels}
        return replace(self, queries=kept, qrels=qrels)


def load_beir(path: str | Path, *, split: str | None = None) -> RetrievalData:
    """Read a BEIR directory.

    Args:
        path: directory that holds ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/``.
        split: name of the file in ``qrels/`` without ``.tsv``; None takes ``test``, or the only one there is.

    Returns:
        The documents, the queries judged in the split and the judgements. Judgements that name an unknown
        query or document are left out, counted and logged; so are pairs that are judged in different ways, of which
        the last one counts, as in BEIR.

    Raises:
        CorpusError: a file is missing or malformed (the message names the line), the split does not exist, or
            several exist, none of them ``test``, and none was asked for.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a directory. Pass a BEIR directory: corpus.jsonl, queries.jsonl, qrels/")
    qrels_file = _qrels_file(folder, split)
    corpus = {
        id_: (_string(record, "title", place), _string(record, "text", place, required="title" not in record))
        for id_, record, place in _records(folder / "corpus.jsonl")
    }
    queries = {
        id_: _string(record, "text", place, required=True) for id_, record, place in _records(folder / "queries.jsonl")
    }
    data = RetrievalData(corpus, {}, {}, f"{folder.resolve().name}/{qrels_file.stem}")
    conflicts: dict[tuple[str, str], tuple[int, int]] = {}
    for query_id, document_id, relevance in _judgements(qrels_file):
        if query_id not in queries:
            data.unknown_queries += 1
        elif document_id not in corpus:
            data.unknown_documents += 1
        else:
            before = data.qrels.setdefault(query_id, {}).get(document_id, relevance)
            data.qrels[query_id][document_id] = relevance
            if before != relevance:
                conflicts[query_id, document_id] = (before, relevance)
    data.conflicts = len(conflicts)
    if not data.qrels:
        raise CorpusError(
            f"{qrels_file} holds no judgement of a known query and document ({data.unknown_queries} with an "
            f"unknown query, {data.unknown_documents} with an unknown document). Its ids must be those of "
            "the _id fields"
        )
    if conflicts:
        (query_id, document_id), (before, relevance) = next(iter(conflicts.items()))
        logger.warning(
            "%s judges %d pairs more than once and differently, query %r and document %r with %d and %d for one: the "
            "last one counts. Leave one of each",
            *(qrels_file, len(conflicts), query_id, document_id, before, relevance),
        )
    data.queries = {query_id: text for query_id, text in queries.items() if query_id in data.qrels}
    if data.unknown_queries or data.unknown_documents:
        logger.warning(
            "%s: left out %d judgements of unknown queries and %d of unknown documents",
            qrels_file,
            data.unknown_queries,
            data.unknown_documents,
        )
    return data


def _qrels_file(folder: Path, split: str | None) -> Path:
    splits = {file.stem: file for file in sorted((folder / "qrels").glob("*.tsv"))}
    if not splits:
        raise CorpusError(f"{folder / 'qrels'} holds no .tsv file. Judgements belong in qrels/<split>.tsv")
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split is None and "test" in splits:
        logger.info("%s has the splits %s: taking test", folder, ", ".join(splits))
        return splits["test"]
    if split is None:
        raise CorpusError(f"{folder} has several splits, choose one of: {', '.join(splits)}")
    if split not in splits:
        raise CorpusError(f"{folder} has no split {split!r}, choose one of: {', '.join(splits)}")
    return splits[split]


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Id and object of every line of a JSONL file, with "file, line n" for messages."""
    if not file.is_file():
        raise CorpusError(
            f"{file} is missing. A BEIR directory holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"
        )
    seen: set[str] = set()
    for number, line in _lines(file):
        place = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{place} is not JSON ({error}). Every line must be one object") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{place} is a {type(record).__name__}, not an object with _id and text")
        id_ = _id(record, place)
        if id_ in seen:
            raise CorpusError(f"{place} repeats the _id {id_!r}. Give every object an _id of its own")
        seen.add(id_)
        yield id_, record, place


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Number and content of every line that is not blank."""
    number = 0
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file} is not UTF-8 after line {number} ({error.reason}). Convert it to UTF-8") from error


def _id(record: dict[str, Any], place: str) -> str:
    value = record.get("_id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise CorpusError(f"{place} has no usable _id (found {value!r}). Give every object an _id that is a string")
    return str(value)


def _string(record: dict[str, Any], key: str, place: str, *, required: bool = False) -> str:
    """A text; empty where a table had no value: null, or the NaN that pandas writes."""
    value = record.get(key)
    if (value is None and not required) or value != value:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{place}: {key!r} must be a string (found {value!r})")
    return value


def _judgements(file: Path) -> Iterator[tuple[str, str, int]]:
    """(query id, document id, relevance) of every line of three or TREC's four columns, less the header.

    Columns are parted by tabs, or by spaces in a line without tabs. Where the header has BEIR's names it says which
    column is which.
    """
    order: tuple[str, ...] = _COLUMNS
    for number, line in _lines(file):
        fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        if len(fields) == 4:
            del fields[1]
        names = [field.strip().lower().replace("_", "-") for field in fields]
        if number == 1 and sorted(names) == sorted(_COLUMNS):
            order = tuple(names)
            continue
        if order != _COLUMNS and len(fields) == len(order):
            fields = [fields[order.index(name)] for name in _COLUMNS]
        try:
            query_id, document_id, relevance = fields
            grade = int(float(relevance))
            if grade != float(relevance):
                raise ValueError(f"{relevance} is no whole number")
        except (ValueError, OverflowError) as error:
            if number == 1 and len(fields) == 3:
                continue
            raise CorpusError(
                f"{file}, line {number}: expected query-id, corpus-id and an integer score separated by "
                f"tabs or spaces, found {line.strip()!r}"
            ) from error
        yield query_id.strip(), document_id.strip(), grade
