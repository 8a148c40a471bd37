"""The retriever whose base is embeddings behind an API: a linear map that trains on their vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revela_rag.api import CostEstimate, EmbeddingMap
from revela_rag.api.vectors import ApiVectors
from revela_rag.errors import TrainingError
from revela_rag.model.st_format import Role

from .adapters import LinearAdapter, check_strength

__all__ = ["Confirm", "VectorRetriever"]

logger = logging.getLogger(__name__)

#: Asked before anything of a corpus is sent; where it says False, nothing is.
Confirm = Callable[[CostEstimate], bool]


class VectorRetriever(nn.Module):
    """A linear adapter over embeddings behind an API.

    It stands where a `TrainableRetriever` with the linear adapter stands: embeddings of the base are unit vectors x, of
    the retriever unit vectors z; both are float32 (n, d).

    Args:
        vectors: what gives x.
        confirm: see `foresee`; None sends without asking.

    Attributes:
        base_name: name of the embeddings.
        dimension: length d.
        prompts: prompt of each role.
        roles_differ: whether a text has another x as a query than as a document.

    Raises:
        EmbeddingError: they do not answer.
    """

    kind = "linear"

    def __init__(self, vectors: ApiVectors, *, confirm: Confirm | None = None) -> None:
        super().__init__()
        self.vectors = vectors
        self._confirm = confirm
        known = self.vectors.known
        self.base_name = self.vectors.name
        self.dimension = known.dimension
        self.roles_differ = known.roles_differ
        settings = self.vectors.embeddings
        self.prompts: dict[Role, str] = {"query": settings.query_prompt, "document": settings.document_prompt}
        self.strength = 1.0
        self.adapter = LinearAdapter(self.dimension).to("cuda" if torch.cuda.is_available() else "cpu")
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the adapter is."""
        return self.adapter.weight.device

    def foresee(self, documents: Sequence[str], queries: Sequence[str]) -> CostEstimate:
        """Say what it takes to embed these texts, and ask whether to go on.

        Raises:
            TrainingError: ``confirm`` said no; nothing was sent.
        """
        estimate = self.vectors.estimate(documents, queries)
        logger.info("%s", estimate)
        if estimate.texts and self._confirm is not None and not self._confirm(estimate):
            raise TrainingError(f"Stopped before anything was sent, as was asked: {estimate}.")
        return estimate

    def embed_base(self, texts: Sequence[str], role: Role, show_progress: bool = False, **_: Any) -> Tensor:
        """Embeddings of the base: unit rows (n, d) float32, without gradient."""
        return torch.from_numpy(self.vectors.embed(texts, role, show_progress=show_progress)).to(self.device)

    def embed(self, texts: Sequence[str], role: Role, show_progress: bool = False, **_: Any) -> Tensor:
        """Like `embed_base`, with the adapter at its current strength."""
        with torch.no_grad():
            return self.adapter(self.embed_base(texts, role, show_progress))

    def adapt_embeddings(self, pooled: Tensor) -> Tensor:
        """Apply the adapter to base embeddings (n, d), with gradient: unit rows (n, d)."""
        return self.adapter(pooled)

    def set_strength(self, strength: float) -> None:
        """Scale the adapter: 0 is exactly the base, 1 what was trained."""
        self.strength = self.adapter.strength = check_strength(strength)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The adapter's parameters."""
        return list(self.adapter.parameters())

    @contextmanager
    def unadapted(self) -> Iterator[None]:
        """Inside, every embedding is the base's, without gradient."""
        before = self.strength
        self.set_strength(0.0)
        try:
            with torch.no_grad():
                yield
        finally:
            self.set_strength(before)

    def as_map(self, strength: float) -> EmbeddingMap:
        """What serves: the adapter at a strength, folded into one matrix."""
        weight = bias = None
        if strength:
            weight, bias = (None if part is None else part.numpy() for part in self.adapter.dense(strength))
        return EmbeddingMap(self.base_name, self.vectors.known, self.prompts, strength, weight, bias)
