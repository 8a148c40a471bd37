"""How a model behind an API is known again: by the vectors that it gives for a few fixed texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from revela_rag.errors import EmbeddingError

__all__ = ["PROBES", "Known"]

#: Texts whose vectors tell whether the same model answers as before, in both roles.
PROBES = (
    "How is a file opened for reading, and who closes it again?",
    "The river rose by two metres overnight, and the bridge was closed until the evening.",
    "def mean(values): return sum(values) / len(values)",
)
_SAME_ROLE = 1e-4  # 1 - cosine up to which queries are embedded as documents; some services are not quite repeatable
_SAME_MODEL = 1e-3


@dataclass(frozen=True)
class Known:
    """What is known of a model once it has answered.

    Attributes:
        dimension: length d of its vectors.
        roles_differ: whether a text has another vector as a query than as a document.
        probes: (p, d) unit vectors of `PROBES` as documents and, where queries are asked for apart, as queries.
    """

    dimension: int
    roles_differ: bool
    probes: np.ndarray

    @classmethod
    def of(cls, documents: np.ndarray, queries: np.ndarray | None) -> Known:
        """Of the probes' vectors (3, d) in each role; None where queries are asked for as documents."""
        probes = documents if queries is None else np.concatenate([documents, queries])
        return cls(documents.shape[1], _gap(probes) > _SAME_ROLE, probes)

    def check(self, now: Known, name: str, where: str, remedy: str) -> None:
        """Raise EmbeddingError unless the same model answers ``now``.

        Args:
            now: what answers.
            name: of the model.
            where: what this was known from, for the message.
            remedy: what to do about another model.
        """
        if now.dimension != self.dimension:
            raise EmbeddingError(
                f"{name!r} gives vectors of length {now.dimension}, {where} has {self.dimension}: another model "
                f"answers under that name. {remedy}"
            )
        count = min(len(self.probes), len(now.probes))
        cosine = float(np.einsum("nd,nd->n", self.probes[:count], now.probes[:count]).min(initial=1))
        if cosine < 1 - _SAME_MODEL:
            raise EmbeddingError(
                f"{name!r} gives other vectors than {where} has for the same texts (cosine {cosine:.4f} instead of 1): "
                f"another model answers under that name. {remedy}"
            )
        if abs(_gap(self.probes) - _gap(now.probes)) > _SAME_MODEL:
            how = "unlike" if now.roles_differ else "like"
            raise EmbeddingError(f"{name!r} now embeds queries {how} documents, {where} has it otherwise. {remedy}")


def _gap(probes: np.ndarray) -> float:
    """How far queries are from documents: 1 - cosine of the probe that differs most."""
    count = len(PROBES)
    if len(probes) < 2 * count:
        return 0.0
    return 1 - float(np.einsum("nd,nd->n", probes[:count], probes[count : 2 * count]).min())
