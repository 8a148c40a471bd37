"""In-batch attention as pure tensor functions: which pairs matter, and what text i reads in text j."""

from revela_training.attention.choice import Implementation, cross_attention
from revela_training.attention.pairs import Pairs, select_pairs
from revela_training.attention.reference import read_twice, reference_attention

__all__ = ["Implementation", "Pairs", "cross_attention", "read_twice", "reference_attention", "select_pairs"]
