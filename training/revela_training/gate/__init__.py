"""The gate: which strength of an adapter is returned, chosen and reported on queries held back from training."""

from revela_training.gate.choose import FEWEST_TO_CHOOSE, Embed, Gate, keep_base, run_gate

__all__ = ["FEWEST_TO_CHOOSE", "Embed", "Gate", "keep_base", "run_gate"]
