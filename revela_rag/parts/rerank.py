"""Rerankers of every kind as one: a function of a query and texts that gives scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.parts.protocols import Reranker

__all__ = ["RERANKED", "Rerank", "as_reranker", "reranked"]

#: How many of the best a reranker reads.
RERANKED = 50

_PLACE = "revela_place"

#: What :meth:`revela_rag.Index.search` takes as ``rerank``: a function, or an object of one of three libraries.
Rerank = Reranker | Any


def as_reranker(rerank: Rerank) -> Reranker:
    """A reranker of whatever is one.

    Args:
        rerank: a function of a query and a list of texts; a ``CrossEncoder`` of sentence-transformers; a
            ``BaseDocumentCompressor`` of LangChain; a node postprocessor of LlamaIndex. What the last two leave out is
            left out here, so set their ``top_n`` to as many as shall be shown. They read texts alone, not cosines.
            Where they give no scores, their order counts. Texts that they rewrite stay what they were.

    Raises:
        IndexingError: it is none of these.
    """
    for method, adapter in (
        ("compress_documents", _compressor),
        ("postprocess_nodes", _postprocessor),
        ("predict", _cross_encoder),
    ):
        if callable(getattr(rerank, method, None)):
            return adapter(rerank)
    if isinstance(rerank, type) or not callable(rerank):
        raise IndexingError(
            f"rerank={rerank!r} is no function of a query and texts, CrossEncoder, LangChain document compressor or "
            "LlamaIndex postprocessor."
        )
    return rerank


def reranked(reranker: Reranker, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Places of texts and their scores, best first; of equal ones the first. Those at ``-inf`` are left out.

    Raises:
        IndexingError: the reranker gave something else than one number for each text.
    """
    if not texts:
        return []
    given = reranker(query, list(texts))
    try:
        scores = np.asarray(_on_cpu(given), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise IndexingError(f"The reranker gave {type(given).__name__} where scores were expected: {error}.") from error
    if scores.shape != (len(texts),):
        raise IndexingError(
            f"The reranker gave scores of shape {scores.shape} for {len(texts)} texts; it must give one for each."
        )
    if (bad := np.flatnonzero(np.isnan(scores) | np.isposinf(scores))).size:
        raise IndexingError(
            f"The reranker gave {scores[bad[0]]} for text {int(bad[0])} of {len(texts)}, "
            f"{texts[int(bad[0])][:60]!r}; scores must be finite, or -inf to leave a text out."
        )
    order = np.argsort(-scores, kind="stable")
    return [(int(place), float(scores[place])) for place in order if scores[place] > -math.inf]


def _on_cpu(scores: Any) -> Any:
    """A tensor on a GPU as one that numpy can read."""
    detach = getattr(scores, "detach", None)
    return scores if detach is None else detach().cpu()


def _cross_encoder(model: Any) -> Reranker:
    def rerank(query: str, texts: Sequence[str], /) -> np.ndarray:
        scores: np.ndarray = model.predict([(query, text) for text in texts], show_progress_bar=False)
        return scores

    return rerank


def _compressor(compressor: Any) -> Reranker:
    def rerank(query: str, texts: Sequence[str], /) -> np.ndarray:
        document = import_module("langchain_core.documents").Document
        given = [document(page_content=text, metadata={_PLACE: place}) for place, text in enumerate(texts)]
        kept = compressor.compress_documents(given, query)
        return _placed(
            [(one.metadata, one.metadata.get("relevance_score")) for one in kept], len(texts), type(compressor).__name__
        )

    return rerank


def _postprocessor(postprocessor: Any) -> Reranker:
    def rerank(query: str, texts: Sequence[str], /) -> np.ndarray:
        schema = import_module("llama_index.core.schema")
        given = [
            schema.NodeWithScore(node=schema.TextNode(text=text, metadata={_PLACE: place}))
            for place, text in enumerate(texts)
        ]
        for one in given:  # the place is for the way back, no model shall read it
            one.node.excluded_llm_metadata_keys = one.node.excluded_embed_metadata_keys = [_PLACE]
        kept = postprocessor.postprocess_nodes(given, query_str=query)
        return _placed([(one.node.metadata, one.score) for one in kept], len(texts), type(postprocessor).__name__)

    return rerank


def _placed(kept: Sequence[tuple[dict[str, Any], Any]], count: int, name: str) -> np.ndarray:
    """Scores by place; by order where some have none or they do not fall."""
    places = [metadata.get(_PLACE) for metadata, _ in kept]
    if any(not isinstance(place, int) or not 0 <= place < count for place in places):
        raise IndexingError(f"{name} lost the metadata of the texts that it was given; it cannot rerank here.")
    scores = [score for _, score in kept]
    usable = all(isinstance(score, int | float) for score in scores) and scores == sorted(scores, reverse=True)
    result = np.full(count, -np.inf)
    for rank, (place, score) in enumerate(zip(places, scores, strict=True)):
        if result[place] == -np.inf:  # a text that comes back in several pieces counts by its first
            result[place] = score if usable else count - rank
    return result
