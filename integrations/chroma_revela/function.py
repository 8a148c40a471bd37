"""The embedding function itself, as Chroma registers it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from revela_rag.errors import IndexingError, IndexMismatchError, MissingExtraError, ModelError
from revela_rag.index.stores.chroma_safety import named_functions, stored_settings
from revela_rag.model.encoder import Encoder

try:
    from chromadb.api.types import Documents, EmbeddingFunction
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise MissingExtraError("chromadb", "chroma", "RevelaEmbeddingFunction") from error

__all__ = ["RevelaEmbeddingFunction"]


def _lasting(model: str | Path) -> str:
    """A folder in full, since the model is loaded later, perhaps from another working directory."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.is_dir() else str(model)


@register_embedding_function
class RevelaEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embeds documents behind the document prompt and queries behind the query prompt, as unit vectors.

    The model is loaded on first use. The fingerprint is stored in the collection's configuration; a function that
    Chroma rebuilds from there refuses a model that has changed since. Chroma itself compares functions by name only:
    call :meth:`check` on a collection that was opened with a function of your own making.

    Args:
        model: a directory, a hub id, ``"all-MiniLM-L6-v2"``, or an :class:`~revela_rag.Encoder`.
        fingerprint: what the model must have; None takes it as it is.
        max_length: tokens kept of a text; None keeps the model's own setting.
    """

    def __init__(
        self, model: str | Path | Encoder, *, fingerprint: str | None = None, max_length: int | None = None
    ) -> None:
        given = None if isinstance(model, str | Path) else model
        self._encoder = given
        self._model = _lasting(model) if isinstance(model, str | Path) else (model.name or model.model_path)
        self._max_length = max_length if given is None else given.chosen_max_length
        self._expected = fingerprint
        self._checked = False
        self._lock = threading.Lock()

    @property
    def encoder(self) -> Encoder:
        """The encoder; made and checked on first use.

        Raises:
            ModelError: the model does not exist.
            IndexMismatchError: it is not the one the collection was built by.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = Encoder(self._model, max_length=self._max_length)
            if not self._checked:
                found = self._encoder.fingerprint
                if self._expected is not None and found != self._expected:
                    raise IndexMismatchError(
                        f"The collection was built by a model with fingerprint {self._expected[:12]}, {self._model!r} "
                        f"now has {found[:12]}. Put the old model back, or embed the documents again."
                    )
                self._checked = True
            return self._encoder

    def __call__(self, input: Documents) -> Any:
        """Embed documents: a list of (d,) float32 unit vectors."""
        return list(self.encoder.encode_documents(list(input)))

    def embed_query(self, input: Documents) -> Any:
        """Embed queries: a list of (d,) float32 unit vectors."""
        return list(self.encoder.encode_queries(list(input)))

    def check(self, collection: Any) -> None:
        """Make sure that a collection was built by this model, and that Chroma would build no other function for it.

        Raises:
            IndexMismatchError: it was built by another one; both are named.
            IndexingError: its configuration or schema names another function, which could run code.
        """
        others = {*named_functions(stored_settings(collection))} - {self.name()}
        if others:
            raise IndexingError(
                f"The collection {collection.name!r} names the embedding function {min(others)!r}, which Chroma would "
                "build and which could run code. Make a new collection and embed the documents again."
            )
        stored = (collection.configuration_json.get("embedding_function") or {}).get("config") or {}
        ours = self.encoder.fingerprint
        if stored.get("fingerprint") != ours:
            raise IndexMismatchError(
                f"The collection {collection.name!r} was built by {stored.get('model')!r} (fingerprint "
                f"{str(stored.get('fingerprint'))[:12]}), not by {self._model!r} (fingerprint {ours[:12]})."
            )

    @staticmethod
    def name() -> str:
        """The name Chroma stores: ``"revela"``."""
        return "revela"

    def default_space(self) -> Any:
        """Cosine."""
        return "cosine"

    def supported_spaces(self) -> list[Any]:
        """Vectors are of unit length, so the inner product and L2 rank alike; cosine gives readable scores."""
        return ["cosine", "ip", "l2"]

    def get_config(self) -> dict[str, Any]:
        """What Chroma stores with the collection: model, fingerprint, max_length."""
        fingerprint = self._expected or self.encoder.fingerprint
        return {"model": self._model, "fingerprint": fingerprint, "max_length": self._max_length}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> RevelaEmbeddingFunction:
        """Make the function again; the model is looked for on first use."""
        RevelaEmbeddingFunction.validate_config(config)
        return RevelaEmbeddingFunction(
            config["model"], fingerprint=config["fingerprint"], max_length=config.get("max_length")
        )

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse a configuration that :meth:`get_config` did not write."""
        for key in ("model", "fingerprint"):
            if not isinstance(config.get(key), str):
                raise ModelError(f"The embedding function's {key!r} is {config.get(key)!r}; it must be a string.")
        length = config.get("max_length")
        if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
            raise ModelError(f"The embedding function's 'max_length' is {length!r}; it must be a number of tokens.")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """A model may move to another place, but must stay the same model.

        Raises:
            IndexMismatchError: the fingerprint would change under vectors that are there already.
        """
        old, new = old_config.get("fingerprint"), new_config.get("fingerprint")
        if old != new:
            raise IndexMismatchError(
                f"The collection was built by a model with fingerprint {str(old)[:12]}; {new_config.get('model')!r} "
                f"has {str(new)[:12]}. Make a new collection and embed the documents again."
            )
