"""A Chroma collection whose vectors are mapped in place of embedding its texts again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from revela_rag.api.answers import checked
from revela_rag.api.encoder import ApiEncoder
from revela_rag.errors import IndexingError, IndexMismatchError
from revela_rag.index.stores.chroma_safety import named_functions, stored_settings

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["MappedCollection", "map_collection"]

logger = logging.getLogger(__name__)

_PAGE = 1000
_GRAPH = ("space", "ef_construction", "ef_search", "max_neighbors", "batch_size", "sync_threshold")
_SEARCHES = 50
_CLOSE = 1e-4  # of a cosine; an approximate search may return an equal text
_OWN = "default"  # the function that Chroma names where nobody chose one; building it runs nothing
_MARK = "revela:fingerprint"


@dataclass(frozen=True)
class MappedCollection:
    """A new collection with mapped vectors beside the old one, which nothing has changed yet.

    Attributes:
        client: of Chroma.
        name: of the old collection.
        new_name: of the new one.
        kept_name: what :meth:`swap` calls the old one.
        count: entries in both.
        found: share of a sample of texts whose mapped vector finds them first.
    """

    client: Any
    name: str
    new_name: str
    kept_name: str
    count: int
    found: float

    def swap(self) -> None:
        """Give the new collection the old one's name, and the old one ``kept_name``.

        A program that has the old collection open goes on with that until it opens it again. These are two renamings:
        for a moment nothing has the name, and a process that is killed there leaves ``kept_name`` and ``new_name``.

        Raises:
            IndexingError: one of them is gone or was written to since; nothing is renamed.
        """
        _check_free(self.client, self.kept_name)
        old, new = _open(self.client, self.name), _open(self.client, self.new_name)
        for collection in (old, new):
            if (count := collection.count()) != self.count:
                raise IndexingError(
                    f"The collection {collection.name!r} has {count:,} entries instead of {self.count:,}: it was "
                    f"written to. Delete {self.new_name!r} and map again."
                )
        old.modify(name=self.kept_name)
        try:
            new.modify(name=self.name)
        except BaseException:
            old.modify(name=self.name)
            raise

    def undo(self) -> None:
        """Take :meth:`swap` back: both have the names they had before it."""
        new, old = _open(self.client, self.name), _open(self.client, self.kept_name)
        if not _is_mapped(new):
            raise IndexingError(f"{self.name!r} is not a mapped collection; nothing was swapped.")
        new.modify(name=self.new_name)
        try:
            old.modify(name=self.name)
        except BaseException:
            new.modify(name=self.name)
            raise

    def drop_old(self) -> None:
        """Delete the old collection for good, once it was swapped.

        Raises:
            IndexingError: it was not swapped.
        """
        if not _is_mapped(_open(self.client, self.name)):
            raise IndexingError(f"{self.name!r} is the old collection still; swap() first.")
        _open(self.client, self.kept_name)
        self.client.delete_collection(self.kept_name)


def map_collection(
    client: Any, name: str, encoder: Encoder, *, new_name: str | None = None, kept_name: str | None = None
) -> MappedCollection:
    """Write the mapped vectors of a collection to a new one beside it, and verify them.

    Ids, texts and metadata go along. Nothing is embedded: mapping is a matrix product. The old collection is not
    touched. Open the new one with the encoder's embeddings, such as ``RevelaEmbeddings.from_encoder(encoder)``.

    Args:
        client: of Chroma, embedded or of a server.
        name: of the collection, whose vectors the encoder's base gave.
        encoder: ``Encoder.over(EMBEDDINGS, FOLDER)``.
        new_name: None for ``name`` with ``-adapted``.
        kept_name: what the old collection will be called after :meth:`MappedCollection.swap`; None for ``name`` with
            ``-before``.

    Raises:
        IndexMismatchError: the vectors have another length, or are mapped already.
        IndexingError: the collection is empty, names an embedding function that could run code, was written to
            meanwhile, or the new one is not what it should be; the new one is deleted then.
    """
    if not isinstance(encoder, ApiEncoder):
        raise IndexMismatchError(f"{encoder!r} is no map over embeddings; give Encoder.over(EMBEDDINGS, FOLDER).")
    new_name, kept_name = new_name or f"{name}-adapted", kept_name or f"{name}-before"
    old = _open(client, name)
    if _is_mapped(old):
        raise IndexMismatchError(f"The vectors of {name!r} are mapped already; a second map would spoil them.")
    for other in (new_name, kept_name):
        _check_free(client, other)
    count = old.count()
    if not count:
        raise IndexingError(f"The collection {name!r} is empty.")
    graph = {"space": "cosine", **(old.configuration_json.get("hnsw") or {})}
    metadata = {key: value for key, value in (old.metadata or {}).items() if not key.startswith("hnsw:")}
    new = client.create_collection(
        new_name,
        embedding_function=None,
        configuration={"hnsw": {option: graph[option] for option in _GRAPH if graph.get(option) is not None}},
        metadata={**metadata, _MARK: encoder.fingerprint},
    )
    try:
        _copy(old, new, encoder, min(_PAGE, client.get_max_batch_size()))
        found = _verify(old, new, encoder, count)
    except BaseException:
        client.delete_collection(new_name)
        raise
    logger.info(
        "%d vectors of %r are mapped into %r; %.0f %% of a sample find themselves", count, name, new_name, 100 * found
    )
    return MappedCollection(client, name, new_name, kept_name, count, found)


def _copy(old: Any, new: Any, encoder: ApiEncoder, size: int) -> None:
    ids = old.get(include=[])["ids"]
    for start in range(0, len(ids), size):
        page = old.get(ids=ids[start : start + size], include=["documents", "embeddings", "metadatas"])
        given = {"documents": page["documents"], "metadatas": page["metadatas"]}
        new.add(
            ids=page["ids"],
            embeddings=_mapped(page, encoder),
            **{field: values for field, values in given.items() if any(value is not None for value in values or ())},
        )


def _mapped(page: Any, encoder: ApiEncoder) -> np.ndarray:
    vectors = np.asarray(page["embeddings"], dtype=np.float32)
    if vectors.shape[1] != encoder.dimension:
        raise IndexMismatchError(
            f"The collection holds vectors of length {vectors.shape[1]}, {encoder!r} has {encoder.dimension}: it was "
            "filled by other embeddings."
        )
    return encoder.mapped(checked(vectors, page["ids"], "The collection", encoder.dimension))


def _verify(old: Any, new: Any, encoder: ApiEncoder, count: int) -> float:
    """Counts, and of a sample ids, norms, vectors and searches; gives the share of searches that found their own."""
    for collection in (old, new):
        if (now := collection.count()) != count:
            raise IndexingError(
                f"The collection {collection.name!r} has {now:,} entries instead of {count:,}: it was written to "
                "meanwhile. Stop what writes to it, and map again."
            )
    ids = old.get(include=[])["ids"]
    sample = [ids[i] for i in np.random.default_rng(0).permutation(len(ids))[:_SEARCHES].tolist()]
    pages = [of.get(ids=sample, include=["documents", "embeddings", "metadatas"]) for of in (old, new)]
    order = [{id_: row for row, id_ in enumerate(page["ids"])} for page in pages]
    expected = _mapped(pages[0], encoder)[[order[0][id_] for id_ in sample]]
    written = np.asarray(pages[1]["embeddings"], dtype=np.float32)[[order[1][id_] for id_ in sample]]
    same = all(
        [pages[0][field][order[0][id_]] for id_ in sample] == [pages[1][field][order[1][id_]] for id_ in sample]
        for field in ("documents", "metadatas")
    )
    if (
        not same
        or not np.allclose(written, expected, atol=_CLOSE)
        or not np.allclose(np.linalg.norm(written, axis=1), 1, atol=_CLOSE)
    ):
        raise IndexingError(
            f"The new collection {new.name!r} does not hold what was written to it; look at the disk, and map again."
        )
    hits = new.query(query_embeddings=expected, n_results=1, include=["embeddings"])
    first = np.array([found[0] for found in hits["embeddings"]], dtype=np.float32)
    found = float((np.einsum("nd,nd->n", first, expected) > 1 - _CLOSE).mean())
    if found < 0.9:
        raise IndexingError(
            f"Only {found:.0%} of a sample of texts are found by their own vector in {new.name!r}; map again."
        )
    return found


def _open(client: Any, name: str) -> Any:
    """A collection that names no function which Chroma would build and which could run code."""
    try:
        collection = client.get_collection(name, embedding_function=None)
    except Exception as error:  # NotFoundError or ValueError, by version
        raise IndexingError(f"There is no collection {name!r}: {error}") from error
    if others := {*named_functions(stored_settings(collection))} - {_OWN}:
        raise IndexingError(
            f"The collection {name!r} names the embedding function {min(others)!r}, which Chroma would build and which "
            "could run code. Copy its vectors into a collection without one (embedding_function=None), and map that."
        )
    return collection


def _check_free(client: Any, name: str) -> None:
    if name in {getattr(collection, "name", collection) for collection in client.list_collections()}:
        raise IndexingError(f"There is a collection {name!r} already; delete it, or choose another name.")


def _is_mapped(collection: Any) -> bool:
    return bool((collection.metadata or {}).get(_MARK))
