"""What each part of a search gains on labelled data, and what it costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revela_rag.errors import CorpusError
from revela_rag.evaluation.beir import RetrievalData
from revela_rag.evaluation.bootstrap import Comparison, compare
from revela_rag.evaluation.metrics import Evaluation, score_run
from revela_rag.evaluation.runs import Run
from revela_rag.evaluation.vectors import cached_vectors, passages

if TYPE_CHECKING:
    from revela_rag.index import Index
    from revela_rag.model.encoder import Encoder
    from revela_rag.parts import PartOptions, TokenVectors

__all__ = ["ALL_AT", "PLAIN", "PartResult", "compare_parts", "known_parts"]

#: The search without any part, which the others are compared with.
PLAIN = "hybrid"
#: All@K that parts are measured by beside the usual metrics.
ALL_AT = 5

_DEPTH = 200  # chunks; documents may have several
_KEPT = 5000  # texts whose token vectors are kept
_TIMED, _SECONDS = 50, 5.0


@dataclass(frozen=True)
class PartResult:
    """One part on one set of queries.

    Attributes:
        name: of the part.
        evaluation: nDCG, recall, MRR and All@k of every query.
        milliseconds: of a search for ten hits by a query's vector, the median.
        comparisons: metric to the difference from the search without it, query by query; empty for that itself.
    """

    name: str
    evaluation: Evaluation
    milliseconds: float
    comparisons: Mapping[str, Comparison]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        compared = {metric: found.as_dict() for metric, found in self.comparisons.items()}
        return {**self.evaluation.as_dict(), "milliseconds": self.milliseconds, "comparison": compared}


def known_parts(tokens: TokenVectors) -> dict[str, PartOptions]:
    """The parts that need nothing but an index and its model, by name; the last reads tokens, which takes longer."""
    from revela_rag.parts import MaxSim

    return {
        "feedback": {"feedback": 3},
        "mmr": {"select": "mmr"},
        "coverage": {"select": "coverage"},
        "maxsim": {"rerank": MaxSim(tokens)},
    }


def compare_parts(
    model: str | Path | Encoder,
    data: RetrievalData,
    *,
    parts: Sequence[str] | Mapping[str, PartOptions] = (),
    cache_dir: str | Path | None = None,
    show_progress: bool = False,
    **encoder_options: Any,
) -> list[PartResult]:
    """Search labelled data with each part of a search, and without any.

    Every query is asked of an index as users have it, in a temporary directory. Documents count by their best place.

    Args:
        model: a model directory or name, or an encoder.
        data: labelled data.
        parts: names of :func:`known_parts`, or parts of your own by name; none means all that are known.
        cache_dir: keep embeddings here, as in :func:`revela_rag.evaluation.evaluate`.
        show_progress: show progress bars on stderr.
        **encoder_options: for :class:`~revela_rag.Encoder` where ``model`` is a name.

    Returns:
        The search without a part first, then the parts in their order.

    Raises:
        CorpusError: there is no part of a name, or the data has no query.
        ModelError: the model cannot be loaded.
    """
    from revela_rag.model.encoder import Encoder
    from revela_rag.parts import TokenVectors

    if not data.queries:
        raise CorpusError(f"{data.name} has no query, nothing can be compared")
    encoder = Encoder(model, **encoder_options) if isinstance(model, str | Path) else model
    kept = known_parts(TokenVectors(encoder, keep=_KEPT))
    anew = known_parts(TokenVectors(encoder, keep=0))  # what a query costs whose texts were never seen
    if not isinstance(parts, Mapping):
        if unknown := sorted(set(parts) - set(kept)):
            raise CorpusError(f"{', '.join(unknown)}: there is no such part. There are: {', '.join(kept)}")
        parts = {name: options for name, options in kept.items() if not parts or name in parts}
    vectors = cached_vectors(
        encoder, "query", list(data.queries.values()), cache_dir=cache_dir, show_progress=show_progress
    )
    found: list[PartResult] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _index_of(data, encoder, Path(folder) / "index", cache_dir, show_progress) as index,
    ):
        plain: PartOptions = {}
        _timed(index, data, vectors, plain)  # reads what it needs
        for name, options in {PLAIN: plain, **parts}.items():
            run = _run(index, data, vectors, options)
            evaluation = score_run(run, data.qrels, name=name, all_at=(ALL_AT,))
            before = found[0].evaluation if found else None
            compared = {m: compare(before, evaluation, metric=m) for m in evaluation.metrics} if before else {}
            same = options is kept.get(name)
            milliseconds = _timed(index, data, vectors, anew[name] if same else options)
            found.append(PartResult(name, evaluation, milliseconds, compared))
    return found


def _index_of(
    data: RetrievalData, encoder: Encoder, path: Path, cache_dir: str | Path | None, show_progress: bool
) -> Index:
    from revela_rag.corpus.types import Chunk
    from revela_rag.index import Index

    window = encoder.token_window or encoder.max_length or None
    texts, document_ids = passages(data.corpus, window=window)
    vectors = cached_vectors(encoder, "document", texts, cache_dir=cache_dir, show_progress=show_progress)
    chunks = [Chunk(str(place), text, document_ids[place]) for place, text in enumerate(texts)]
    return Index.build(chunks, encoder=encoder, path=path, vectors=vectors)


def _run(index: Index, data: RetrievalData, vectors: np.ndarray, options: PartOptions) -> Run:
    """The documents of every query, scored by their places alone."""
    run: Run = {}
    for (query_id, query), vector in zip(data.queries.items(), vectors, strict=True):
        hits = index.search(query, k=_DEPTH, vector=vector, mode="hybrid", **options)
        documents = dict.fromkeys(hit.chunk.document_id for hit in hits)
        if query_id in data.own:
            documents.pop(query_id, None)
        run[query_id] = {document: 1 / place for place, document in enumerate(documents, start=1)}
    return run


def _timed(index: Index, data: RetrievalData, vectors: np.ndarray, options: PartOptions) -> float:
    """Milliseconds of a search for ten hits: the median of up to 50 queries, fewer after some seconds."""
    taken: list[float] = []
    for query, vector in zip(list(data.queries.values())[:_TIMED], vectors, strict=False):
        started = time.perf_counter()
        index.search(query, k=10, vector=vector, mode="hybrid", **options)
        taken.append(time.perf_counter() - started)
        if sum(taken) > _SECONDS:
            break
    return round(1000 * float(np.median(taken)), 2)
