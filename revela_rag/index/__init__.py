"""Store chunks and their vectors on disk, keep them in step with a corpus, and search them."""

from revela_rag.index.facade import Index
from revela_rag.index.types import Hit, Mode, SyncReport

__all__ = ["Hit", "Index", "Mode", "SyncReport"]
