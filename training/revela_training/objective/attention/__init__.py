"""In-batch attention as pure tensor functions: which pairs matter, and what text i reads in text j."""

from revela_training.objective.attention.choice import Implementation, cross_attention
from revela_training.objective.attention.joint import Bucket, causal_mask, joint_attention, plan_buckets
from revela_training.objective.attention.pairs import Pairs, select_pairs
from revela_training.objective.attention.reference import read_twice, reference_attention

__all__ = [
    "Bucket",
    "Implementation",
    "Pairs",
    "causal_mask",
    "cross_attention",
    "joint_attention",
    "plan_buckets",
    "read_twice",
    "reference_attention",
    "select_pairs",
]
