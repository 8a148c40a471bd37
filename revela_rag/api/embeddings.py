"""What is known of embeddings behind an API: how to ask for them, how they are called, how fast they may be asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from revela_rag.errors import ModelError
from revela_rag.model.st_format import Role

__all__ = ["ApiEmbeddings", "is_api"]

#: Texts in, one vector for each out: a list of lists, or an array.
Embed = Callable[[list[str]], Any]

_MODEL = ("model", "model_name", "model_id", "azure_deployment", "deployment_name", "deployment")
_LENGTH = ("dimensions", "output_dimension", "output_dimensionality")
_BATCH = ("embed_batch_size", "chunk_size", "batch_size")


@dataclass(frozen=True, kw_only=True)
class ApiEmbeddings:
    """Embeddings of a service, a server of your own or a function: anything that turns texts into vectors.

    :meth:`of` makes one of LangChain ``Embeddings`` and of a LlamaIndex ``BaseEmbedding``.

    Attributes:
        name: of the model, which tells its vectors from those of other models, in the cache and in what is adapted.
        embed_documents: takes up to ``batch_size`` texts and gives as many vectors of one length.
        embed_queries: the same for queries; None where queries and documents are embedded alike.
        dimension: length of the vectors; None takes what comes first.
        query_prompt: put before every query.
        document_prompt: put before every document.
        max_tokens: longer texts are cut, by an estimate of four characters to a token; None sends them whole.
        batch_size: texts in one request.
        query_batch_size: queries in one request; None for ``batch_size``.
        workers: requests at a time; more than one where ``embed_documents`` may be called by several threads.
        requests_per_minute: at most so many; None for no limit.
        tokens_per_minute: at most so many, estimated; None for no limit.
        retries: how often a request that failed for a reason that may pass (429, 5xx, time-outs, lost connections) is
            sent again, after 1, 2, 4, ... up to 60 seconds and a random part of one, or what the server asks for.
        timeout: seconds after which an answer is not waited for any more; None waits for ever.
        price: of a million tokens, in any currency, for the estimate of costs; None leaves costs out.

    Raises:
        ModelError: a value is out of range.
    """

    name: str
    embed_documents: Embed
    embed_queries: Embed | None = None
    dimension: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    max_tokens: int | None = None
    batch_size: int = 64
    query_batch_size: int | None = None
    workers: int = 1
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    retries: int = 6
    timeout: float | None = 300.0
    price: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ModelError(f"name={self.name!r} must name the model, for it tells its vectors from those of others.")
        for field in ("embed_documents", "embed_queries"):
            value = getattr(self, field)
            if not callable(value) and not (value is None and field == "embed_queries"):
                raise ModelError(f"{field}={value!r} must be a function that takes texts and gives their vectors.")
        for field in ("dimension", "max_tokens", "batch_size", "query_batch_size", "workers", "retries"):
            value, least = getattr(self, field), 0 if field == "retries" else 1
            optional = field in ("dimension", "max_tokens", "query_batch_size")
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (optional and value is None):
                raise ModelError(f"{field}={value!r} must be a whole number from {least} up.")
        for field in ("requests_per_minute", "tokens_per_minute", "timeout", "price"):
            value = getattr(self, field)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ModelError(f"{field}={value!r} must be a number above 0, or None.")

    @classmethod
    def of(cls, embeddings: Any, **settings: Any) -> ApiEmbeddings:
        """Take embeddings as they come: LangChain's, LlamaIndex', or an ``ApiEmbeddings``.

        A framework embeds one query per request. Where its queries turn out to be embedded as documents are, they are
        sent in batches, as documents.

        Args:
            embeddings: an object with ``embed_documents`` and ``embed_query``, or with ``get_text_embedding_batch`` and
                ``get_query_embedding``. It is named by its class and its model.
            **settings: any field of this class, to replace what is found.

        Raises:
            ModelError: it is of no such kind, or a setting is unknown or out of range.
        """
        unknown = sorted(set(settings) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ModelError(f"Unknown setting {', '.join(unknown)}. Settings of embeddings behind an API are: {known}")
        if isinstance(embeddings, cls):
            return dataclasses.replace(embeddings, **settings)
        if _has(embeddings, "embed_documents", "embed_query"):
            documents, query = embeddings.embed_documents, embeddings.embed_query
        elif _has(embeddings, "get_text_embedding_batch", "get_query_embedding"):
            documents, query = embeddings.get_text_embedding_batch, embeddings.get_query_embedding
        else:
            raise ModelError(_REFUSED.format(type(embeddings).__name__))
        found: dict[str, Any] = {
            "name": _name(embeddings),
            "embed_documents": documents,
            "embed_queries": _OneByOne(query),
            "batch_size": min(cls.batch_size, _found(embeddings, _BATCH, int) or cls.batch_size),
            "query_batch_size": 1,
        }
        return cls(**{**found, **settings})

    def prompt(self, role: Role) -> str:
        """What is put before a text of a role."""
        return self.query_prompt if role == "query" else self.document_prompt

    def __call__(self, texts: list[str], role: Role) -> Any:
        """One request."""
        return (self.embed_queries if role == "query" and self.embed_queries else self.embed_documents)(texts)


_REFUSED = (
    "Embeddings of type {} cannot be called: give LangChain Embeddings, a LlamaIndex BaseEmbedding, or a function: "
    "revela_rag.ApiEmbeddings(name='my-model', embed_documents=function). A model on disk or a hub is a string."
)


@dataclass(frozen=True)
class _OneByOne:
    """A function of one query as a function of several; a class, so that it can be pickled where the function can."""

    embed_query: Callable[[str], Any]

    def __call__(self, texts: list[str]) -> list[Any]:
        return [self.embed_query(text) for text in texts]


def is_api(base: Any) -> bool:
    """Whether a base is embeddings to be called, and no name or path of a model.

    Raises:
        ModelError: it is neither.
    """
    if base is None or isinstance(base, str) or hasattr(base, "__fspath__"):
        return False
    if isinstance(base, ApiEmbeddings) or _has(base, "embed_documents") or _has(base, "get_text_embedding_batch"):
        return True
    raise ModelError(_REFUSED.format(type(base).__name__))


def _has(thing: Any, *methods: str) -> bool:
    return all(callable(getattr(thing, method, None)) for method in methods)


def _name(embeddings: Any) -> str:
    model, length = _found(embeddings, _MODEL, str), _found(embeddings, _LENGTH, int)
    name = type(embeddings).__name__ + (f":{model}" if model else "")
    return f"{name}:{length}" if length else name


def _found(embeddings: Any, names: tuple[str, ...], kind: type) -> Any:
    values = (getattr(embeddings, name, None) for name in names)
    return next((value for value in values if isinstance(value, kind) and not isinstance(value, bool) and value), None)
