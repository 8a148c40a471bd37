"""Errors a user can act on.

Every message names the value that was wrong and what to do about it; the command line prints it without
a traceback and exits with status 1.
"""

__all__ = [
    "CorpusError",
    "DiskError",
    "EmbeddingError",
    "IndexMismatchError",
    "IndexingError",
    "MissingExtraError",
    "ModelError",
    "RevelaError",
    "TrainingError",
]


class RevelaError(Exception):
    """Base of every error this library raises on purpose."""


class CorpusError(RevelaError, ValueError):
    """The source cannot be read as a corpus: it is missing, empty or holds nothing usable."""


class ModelError(RevelaError, ValueError):
    """The model does not exist, is unsafe to load, or is not of a kind that can be used here."""


class EmbeddingError(ModelError):
    """Embeddings behind an API fail, or are not those that they were."""


class IndexingError(RevelaError):
    """The index does not exist, is damaged, or is being written by somebody else."""


class IndexMismatchError(IndexingError):
    """The index was built by another model than the one it is opened with."""


class TrainingError(RevelaError):
    """Training cannot go on: the loss is not finite, no gradient reaches the retriever, memory ran out."""


class DiskError(RevelaError, OSError):
    """Writing failed, for example on a full disk; whatever was half-written has been removed."""


class MissingExtraError(RevelaError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: the import name that is missing.
        extra: the extra of ``revela-rag`` that brings it.
        purpose: what it is needed for, to complete "... is needed for".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{package} is needed for {purpose}. Install it with: pip install 'revela-rag[{extra}]'")
        self.package = package
        self.extra = extra
