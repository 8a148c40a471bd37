"""Several indexes searched as one: what it costs not to know which index holds the answer.

python benchmarks/quality/several.py --data cosqa/ --data cranfield/ --data tools/ --limit-documents 1200
python benchmarks/quality/several.py --data cosqa/=models/code --data cranfield/ --limit-queries 150

Each set is an index of its own, by the model behind ``=`` or ``--backbone``. Prints the nDCG@10 of its queries in its
own index, which a perfect router would give; in all of them by ``Retriever.over``; by reciprocal rank fusion of what
each index finds; and, where all have one model, in one index of all documents.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones import resolve_backbone
from sets import BeirSet

from revela_rag import Encoder, Index, Retriever
from revela_rag.corpus import load_corpus
from revela_rag.evaluation import RetrievalData, Run, evaluate, score_run
from revela_rag.several import IndexGroup

METRIC = "nDCG@10"
_RANK_CONSTANT, _DEPTH = 60, 100


@dataclass(frozen=True)
class Part:
    """A set, its documents renamed so that no two sets share one."""

    data: RetrievalData
    model: str

    @property
    def records(self) -> list[dict[str, str]]:
        """For :func:`load_corpus`."""
        return [{"_id": id_, "title": title, "text": text} for id_, (title, text) in self.data.corpus.items()]


def read(folder: Path, model: str, *, queries: int | None, documents: int | None) -> Part:
    """A set in BEIR layout."""
    data = BeirSet(folder, queries=queries, documents=documents).task(0).data
    name = folder.resolve().name
    data.corpus = {f"{name}/{id_}": value for id_, value in data.corpus.items()}
    data.qrels = {
        query: {f"{name}/{id_}": grade for id_, grade in grades.items()} for query, grades in data.qrels.items()
    }
    return Part(data, model)


def by_rank(indexes: Sequence[Index], data: RetrievalData) -> Run:
    """Reciprocal rank fusion of what each index finds."""
    run: Run = {query: {} for query in data.queries}
    for index in indexes:
        for query, hits in zip(run, index.search_many(list(data.queries.values()), k=_DEPTH), strict=True):
            for hit in hits:
                run[query].setdefault(hit.chunk.document_id, 1 / (_RANK_CONSTANT + hit.rank))
    return run


def measure(parts: Sequence[Part], folder: Path, *, dtype: str = "float32") -> dict[str, list[float]]:
    """nDCG@10 of each set's queries, by way."""
    models = {part.model: Encoder(resolve_backbone(part.model, folder), dtype=dtype) for part in parts}  # type: ignore[arg-type]

    def build(name: str, records: Sequence[dict[str, str]], model: str) -> Index:
        encoder = models[model]
        chunks = load_corpus(records, window=encoder.token_window or encoder.max_length).chunks
        return Index.build(chunks, encoder=encoder, path=folder / name)

    indexes = [build(str(place), part.records, part.model) for place, part in enumerate(parts)]
    group = Retriever.over(indexes).index
    assert isinstance(group, IndexGroup)
    ways = {
        "its own index": [evaluate(index, part.data) for index, part in zip(indexes, parts, strict=True)],
        "all indexes": [evaluate(group, part.data) for part in parts],
        "all, by rank": [score_run(by_rank(indexes, part.data), part.data.qrels) for part in parts],
    }
    if len(models) == 1:
        whole = build("whole", [record for part in parts for record in part.records], parts[0].model)
        ways["one index"] = [evaluate(whole, part.data) for part in parts]
    return {way: [found.mean(METRIC) for found in of] for way, of in ways.items()}


def table(parts: Sequence[Part], found: dict[str, list[float]]) -> str:
    """Markdown, with the mean over sets."""
    names = [part.data.name + (f" ({part.model})" if len({p.model for p in parts}) > 1 else "") for part in parts]
    rows = [["", *names, "mean"], ["---", *["---:"] * (len(names) + 1)]]
    rows += [[way, *(f"{v:.3f}" for v in values), f"{sum(values) / len(values):.3f}"] for way, values in found.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="DIR[=MODEL]", help="a set in BEIR layout")
    parser.add_argument("--backbone", default="all-MiniLM-L6-v2", help="model of sets that name none (%(default)s)")
    parser.add_argument("--limit-queries", type=int, metavar="N")
    parser.add_argument("--limit-documents", type=int, metavar="N")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or auto (%(default)s)")
    given = parser.parse_args(arguments)
    limits = {"queries": given.limit_queries, "documents": given.limit_documents}
    named = [each.partition("=") for each in given.data]
    parts = [read(Path(folder), model or given.backbone, **limits) for folder, _, model in named]
    with tempfile.TemporaryDirectory() as folder:
        print(table(parts, measure(parts, Path(folder), dtype=given.dtype)))


if __name__ == "__main__":
    main()
