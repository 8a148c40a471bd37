"""One call from a model and labelled data to metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela_rag.corpus.types import titled
from revela_rag.errors import CorpusError
from revela_rag.evaluation.beir import RetrievalData, load_beir
from revela_rag.evaluation.fused import fused_run
from revela_rag.evaluation.metrics import Evaluation, score_run
from revela_rag.evaluation.runs import Run, dense_run, lexical_run
from revela_rag.evaluation.vectors import cached_vectors, passages

if TYPE_CHECKING:
    import numpy as np

    from revela_rag.index import Hit, Index
    from revela_rag.model.encoder import Encoder
    from revela_rag.retriever import Retriever
    from revela_rag.terms import Analyzer

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


def evaluate(
    model: str | Path | Encoder | Index | Retriever,
    data: RetrievalData | str | Path,
    *,
    split: str | None = None,
    k: tuple[int, int] = (10, 100),
    all_at: Sequence[int] = (),
    chunk: bool = True,
    analyzer: Analyzer = "code",
    cache_dir: str | Path | None = None,
    name: str | None = None,
    show_progress: bool = False,
    **encoder_options: Any,
) -> Evaluation:
    """Measure how well a model finds what the data says is relevant.

    Search is exact. A document with the id of a query is not found by that query, as in BEIR, unless it is judged to
    answer it; the details say how many such documents there are.

    Args:
        model: ``"bm25"``; a model directory or name; ``"hybrid:MODEL"``, that model's cosines plus weighted BM25
            (:func:`revela_rag.fusion.fused_scores`); an :class:`~revela_rag.Encoder`; or an
            :class:`~revela_rag.Index` or :class:`~revela_rag.Retriever` whose document ids are those of the data.
        data: labelled data, or the BEIR directory that holds it.
        split: which judgements to use where ``data`` is a directory; None takes the only ones there are.
        k: cutoff of nDCG and MRR, and cutoff of recall.
        all_at: cutoffs of All@k, see :func:`score_run`.
        chunk: cut documents that do not fit the model's window into chunks; a document then scores as its
            best chunk. False lets the model truncate them. BM25 always reads whole documents.
        analyzer: how BM25 splits words, see :class:`revela_rag.lexical.LexicalIndex`.
        cache_dir: keep embeddings here and reuse them for the same model and texts.
        name: what to call the result; by default what was passed as ``model``.
        show_progress: show progress bars on stderr.
        **encoder_options: for :class:`~revela_rag.Encoder` where ``model`` is a name, such as ``device`` or
            ``batch_size``.

    Returns:
        nDCG, recall and MRR of every query, and in its ``details`` the data's name, ``documents``, ``own_ignored``,
        and of a model ``vectors`` and ``fingerprint``.

    Raises:
        CorpusError: the data cannot be read, or an index shares no document id with it.
        ModelError: the model cannot be loaded.
        ValueError: encoder options were given with something that is not loaded here.
    """
    if not isinstance(data, RetrievalData):
        data = load_beir(data, split=split)
    started = time.perf_counter()
    own = data.own
    depth = max(*k, *all_at) + bool(own)
    details: dict[str, Any] = {"data": data.name, "documents": len(data.corpus), "own_ignored": len(own)}
    text_model = str(model) if isinstance(model, str | Path) else None
    if encoder_options and text_model is None:
        raise ValueError(f"encoder options {sorted(encoder_options)} only apply to a model given by name or path")

    if text_model == "bm25":
        run = _bm25(data, depth, analyzer)
    elif hasattr(model, "search"):
        run = _searched(model, data, depth)
    else:
        from revela_rag.index.words import WordIndex
        from revela_rag.model.encoder import Encoder

        hybrid = text_model is not None and text_model.startswith("hybrid:")
        encoder = model if isinstance(model, Encoder) else Encoder(_bare(model), **encoder_options)
        window = getattr(encoder, "token_window", None) or encoder.max_length or None
        texts, document_ids = passages(data.corpus, window=window if chunk else None)
        queries, documents = _vectors(encoder, data, texts, cache_dir=cache_dir, show_progress=show_progress)
        details.update(vectors=len(texts), fingerprint=encoder.fingerprint)
        if hybrid:
            words = WordIndex.build(range(len(texts)), texts, document_ids, analyzer=analyzer)
            trust = getattr(encoder, "trust", None)
            run = fused_run(queries, documents, data.queries, document_ids, words, k=depth, trust=trust)
        else:
            run = dense_run(queries, documents, list(data.queries), document_ids, k=depth)
    run = {
        id_: {found: score for found, score in of.items() if found != id_ or id_ not in own} for id_, of in run.items()
    }
    evaluation = score_run(run, data.qrels, name=name or _name(model), k=k, all_at=all_at)
    evaluation.details = {**details, "seconds": round(time.perf_counter() - started, 3)}
    return evaluation


def _bare(model: Any) -> str | Path:
    return model.removeprefix("hybrid:") if isinstance(model, str) else model


def _name(model: Any) -> str:
    if isinstance(model, str | Path):
        return str(model)
    return str(getattr(model, "model_path", None) or getattr(model, "path", None) or type(model).__name__)


def _bm25(data: RetrievalData, depth: int, analyzer: Analyzer) -> Run:
    return lexical_run(
        list(data.queries.values()), _whole(data), list(data.queries), list(data.corpus), k=depth, analyzer=analyzer
    )


def _whole(data: RetrievalData) -> list[str]:
    return [titled(title, text) for title, text in data.corpus.values()]


def _vectors(
    encoder: Encoder, data: RetrievalData, texts: list[str], *, cache_dir: str | Path | None, show_progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Of the queries and of the passages."""
    logger.info("%s: encoding %d passages of %d documents", data.name, len(texts), len(data.corpus))
    documents = cached_vectors(encoder, "document", texts, cache_dir=cache_dir, show_progress=show_progress)
    queries = cached_vectors(
        encoder, "query", list(data.queries.values()), cache_dir=cache_dir, show_progress=show_progress
    )
    return queries, documents


def _searched(searcher: Any, data: RetrievalData, depth: int) -> Run:
    """The run of an index: documents by their best chunk, asking for more chunks where documents repeat."""
    run: Run = {}
    pending, wanted = list(data.queries), depth * 2
    while pending:
        repeating = []
        for query_id, hits in zip(pending, _hits(searcher, [data.queries[q] for q in pending], wanted), strict=True):
            scores: dict[str, float] = {}
            for hit in hits:
                scores.setdefault(hit.chunk.document_id, hit.score)
            run[query_id] = dict(list(scores.items())[:depth])
            if len(scores) < depth and len(hits) >= wanted:
                repeating.append(query_id)
        pending, wanted = repeating, wanted * 4
    found = {document_id for scores in run.values() for document_id in scores}
    if found and found.isdisjoint(data.corpus):
        raise CorpusError(
            f"the index holds other documents than {data.name}: it found {min(found)!r} where the data has "
            f"ids such as {next(iter(data.corpus))!r}. Build it from the data's own corpus.jsonl"
        )
    return run


def _hits(searcher: Any, queries: list[str], k: int) -> list[list[Hit]]:
    if hasattr(searcher, "search_many"):
        return searcher.search_many(queries, k=k)
    return [searcher.search(query, k=k) for query in queries]
