"""The gate: which strength of an adapter is returned, chosen and reported on queries held back from training."""

from revela_training.gate.choose import Embed, Gate, keep_base, run_gate

__all__ = ["Embed", "Gate", "keep_base", "run_gate"]
