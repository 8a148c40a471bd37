"""The Revela objective and the job that adapts a retriever with it.

Source: Cai et al., "Revela: Dense Retriever Learning via Language Modeling", ICLR 2026, arXiv 2506.16552.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revela_training.config import PRESETS, AdaptConfig
    from revela_training.job import AdaptResult, adapt
    from revela_training.objective import ObjectiveOutput, RevelaObjective, load_lm, similarity_weights
    from revela_training.store import adapt_store

__all__ = [
    "PRESETS",
    "AdaptConfig",
    "AdaptResult",
    "ObjectiveOutput",
    "RevelaObjective",
    "adapt",
    "adapt_store",
    "load_lm",
    "similarity_weights",
]

_HOMES = {
    "PRESETS": "config",
    "AdaptConfig": "config",
    "AdaptResult": "job",
    "ObjectiveOutput": "objective",
    "RevelaObjective": "objective",
    "adapt": "job",
    "adapt_store": "store",
    "load_lm": "objective",
    "similarity_weights": "objective",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"revela_training.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
