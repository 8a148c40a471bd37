"""What a search can do beside finding: feed back, rerank, select, highlight. Each is optional, and none the default."""

from revela_rag.parts.feedback import Feedback
from revela_rag.parts.highlights import Highlight, highlights
from revela_rag.parts.pipeline import PartOptions
from revela_rag.parts.protocols import Candidates, Refiner, Reranker, Selector
from revela_rag.parts.rerank import as_reranker
from revela_rag.parts.selection import MMR, Coverage
from revela_rag.parts.tokens import MaxSim, TokenVectors

__all__ = [
    "MMR",
    "Candidates",
    "Coverage",
    "Feedback",
    "Highlight",
    "MaxSim",
    "PartOptions",
    "Refiner",
    "Reranker",
    "Selector",
    "TokenVectors",
    "as_reranker",
    "highlights",
]
