"""Vectors that come from outside, of which it must be known that the index's own model made them.

Vectors of two models may be equally long, and a search among them finds nonsense without a word. Those of queries say
by which model they are (:class:`~llama_index.embeddings.revela.ModelVector`) or are compared with the model's own; of
those of nodes, which LlamaIndex copies into plain lists, some are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import VectorStoreQuery

from llama_index.embeddings.revela.vector import check_maker
from revela_rag.errors import IndexMismatchError
from revela_rag.index import Index

__all__ = ["node_vectors", "query_vector"]

#: Cosine from which two vectors of a text are of one model. Over 260 texts MiniLM in bfloat16 has at least .99995 with
#: itself in float32, and a random linear map that moves its vectors by 5 % at most .99905.
_SAME = 0.9995
_ONE_IN = 50  # so many vectors of nodes one is compared, and at least one of each call

_REMEDY = "VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model()) embeds with the index's model"


def node_vectors(index: Index, nodes: Sequence[BaseNode]) -> np.ndarray:
    """(n, d) float32: the nodes' embeddings, by the index's model where they have none.

    Raises:
        IndexMismatchError: an embedding has another length than the model's, or is by another model.
    """
    texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
    length = index.manifest.query_dimension
    vectors = np.empty((len(nodes), length), dtype=np.float32)
    given, missing = [], []
    for place, node in enumerate(nodes):
        if node.embedding is None:
            missing.append(place)
            continue
        if len(node.embedding) != length:
            raise IndexMismatchError(
                f"The embedding of node {node.node_id!r} has length {len(node.embedding)}, the index "
                f"{str(index.path)!r} has {length}; {_REMEDY}."
            )
        given.append(place)
        vectors[place] = node.embedding
    looked_at = given[_ONE_IN // 2 :: _ONE_IN] or given[:1]
    own = index.encoder.encode_documents([texts[place] for place in (*looked_at, *missing)])
    vectors[missing] = own[len(looked_at) :]
    for place, vector in zip(looked_at, own, strict=False):
        if (cosine := _cosine(vectors[place], vector)) < _SAME:
            raise IndexMismatchError(
                f"The embedding of node {nodes[place].node_id!r} is not the one that the index's model "
                f"{index.encoder.name!r} makes of it (their cosine is {cosine:.3f}): another model made it, or the "
                f"node changed since. {_REMEDY}; a node whose embedding is None is embedded by the store."
            )
    return vectors


def query_vector(index: Index, query: VectorStoreQuery) -> np.ndarray | None:
    """(d,) float32: the query's embedding; None where it has none, so that the index embeds the text.

    Raises:
        IndexMismatchError: it is by another model.
    """
    given = query.query_embedding
    if given is None:
        return None
    vector = np.asarray(given, dtype=np.float32)
    known = check_maker(given, index)
    # of another length: the search says what is wrong
    if not known and query.query_str and vector.shape == (index.manifest.query_dimension,):
        cosine = _cosine(vector, index.encoder.encode_queries([query.query_str])[0])
        if cosine < _SAME:
            raise IndexMismatchError(
                f"The query's embedding is not the one that the index's model {index.encoder.name!r} makes of "
                f"{query.query_str!r:.100} (their cosine is {cosine:.3f}): another model made it. {_REMEDY}; a vector "
                "of your own is taken in a query without text, or as a ModelVector with the model's fingerprint."
            )
    return vector


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0
