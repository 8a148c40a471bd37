"""The Revela objective: a language model that reads its neighbours says who they should be.

`RevelaObjective` is the door. Behind it: weights from similarities (`weights`), how a language model is reached into
(`interface`) and what its attention layers do then (`readers`, `attention`), and which language model (`lm`).
"""

from revela_training.objective.lm import BUNDLED, bundled_lm_path, load_lm
from revela_training.objective.revela import AttentionName, ObjectiveOutput, ReadName, RevelaObjective
from revela_training.objective.weights import ObjectiveError, similarity_weights

__all__ = [
    "BUNDLED",
    "AttentionName",
    "ObjectiveError",
    "ObjectiveOutput",
    "ReadName",
    "RevelaObjective",
    "bundled_lm_path",
    "load_lm",
    "similarity_weights",
]
