"""What embedding some texts behind an API would take, before any is sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CostEstimate"]


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What is about to be sent.

    Attributes:
        name: of the embeddings.
        texts: that are not in the cache yet.
        cached: texts that are.
        tokens: of the texts to send, estimated at four characters each (one for Chinese and its like).
        requests: that carry them; some more where they are not full.
        price: of a million tokens, if it was given.
    """

    name: str
    texts: int
    cached: int
    tokens: int
    requests: int
    price: float | None = None

    @property
    def cost(self) -> float | None:
        """In the currency of the price; None without one."""
        return None if self.price is None else self.tokens * self.price / 1e6

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, ``cost`` among them."""
        return {**asdict(self), "cost": self.cost}

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", about {self.cost:,.4f} at {self.price:g} a million tokens"
        return (
            f"{self.name} is to embed {self.texts:,} texts ({self.cached:,} more are cached): about {self.tokens:,} "
            f"tokens in about {self.requests:,} requests{cost}"
        )
