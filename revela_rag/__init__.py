"""A dense retriever that learns your corpus without labels.

Everything here is imported on first use, so ``import revela_rag`` stays cheap and serving never loads training code.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revela_rag.api import ApiEmbeddings
    from revela_rag.corpus import Chunk, Corpus, Document, load_corpus
    from revela_rag.errors import RevelaError
    from revela_rag.evaluation import evaluate
    from revela_rag.index import Hit, Index
    from revela_rag.model.encoder import Encoder
    from revela_rag.retriever import Retriever

try:
    __version__ = version("revela-rag")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ApiEmbeddings",
    "Chunk",
    "Corpus",
    "Document",
    "Encoder",
    "Hit",
    "Index",
    "Retriever",
    "RevelaError",
    "__version__",
    "evaluate",
    "load_corpus",
]

_HOMES = {
    "ApiEmbeddings": "revela_rag.api",
    "Chunk": "revela_rag.corpus",
    "Corpus": "revela_rag.corpus",
    "Document": "revela_rag.corpus",
    "Encoder": "revela_rag.model.encoder",
    "Hit": "revela_rag.index",
    "Index": "revela_rag.index",
    "Retriever": "revela_rag.retriever",
    "RevelaError": "revela_rag.errors",
    "evaluate": "revela_rag.evaluation",
    "load_corpus": "revela_rag.corpus",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
