"""Adapting to what a vector store holds, from the vectors that it holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from revela_rag.api.stores import StoredVectors, check_base, read_vectors
from revela_rag.api.vectors import ApiVectors
from revela_rag.corpus import Chunk, Corpus, CorpusReport
from revela_rag.corpus.types import chunk_id
from revela_training.job import AdaptResult, adapt
from revela_training.retriever.vectors import Confirm

__all__ = ["adapt_store"]

logger = logging.getLogger(__name__)

_MOST_DOCUMENTS = 2000  # of which the gate embeds a half each
_AS_THEY_ARE = 0.999


def adapt_store(
    store: Any,
    *,
    base: Any,
    output: str | Path,
    limit: int = 50_000,
    cache: str | Path | bool | None = None,
    confirm: Confirm | None = None,
    **options: Any,
) -> AdaptResult:
    """Adapt embeddings behind an API to the texts of a vector store, from the vectors that it has for them.

    Texts of the store are not embedded again. Queries made of them are, some thousand short texts, and of those that
    are held back for the evaluation the halves that answer. `revela_rag.api.map_collection` writes the adapted vectors
    of a Chroma collection; of other stores map `StoredVectors` with ``Encoder.over(base, output).mapped``.

    Args:
        store: a Chroma collection, LangChain's Chroma, FAISS or InMemoryVectorStore, or
            `revela_rag.api.StoredVectors`.
        base: the embeddings that filled it, as for `adapt`.
        output: directory to write the map to.
        limit: texts to read, drawn at random.
        cache: as for `adapt`.
        confirm: as for `adapt`; eight texts of the store are sent before, to see whether ``base`` filled it.
        **options: what else `adapt` takes, any field of `AdaptConfig` among it.

    Returns:
        As of `adapt`.

    Raises:
        IndexingError: the store gives no vectors or texts.
        EmbeddingError: another model filled it, or the embeddings fail.
        TrainingError: as for `adapt`.
    """
    stored = read_vectors(store, limit=limit)
    vectors = ApiVectors(base, cache=cache)
    cosine = check_base(vectors, stored)
    if cosine < _AS_THEY_ARE:
        logger.warning(
            "The store's vectors are near those of %r for the same texts, but not equal (median cosine %.3f): its "
            "texts were embedded with something beside them, perhaps their metadata.",
            vectors.name,
            cosine,
        )
    vectors.give(stored.texts, stored.vectors)
    options.setdefault("max_eval_documents", _MOST_DOCUMENTS)
    return adapt(_corpus(stored), base=vectors, output=output, confirm=confirm, **options)


def _corpus(stored: StoredVectors) -> Corpus:
    """Its texts as they are, equal ones once."""
    chunks: dict[str, Chunk] = {}
    for position, (text, document) in enumerate(zip(stored.texts, stored.documents, strict=True)):
        chunks.setdefault(text, Chunk(chunk_id(document, text), text, document, position))
    report = CorpusReport(
        documents=len(set(stored.documents)), chunks=len(chunks), exact_duplicates=len(stored) - len(chunks)
    )
    return Corpus(list(chunks.values()), report)
