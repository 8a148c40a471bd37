"""Loss terms that train a retriever on pairs of texts."""

from revela_training.losses.contrastive import ContrastiveLoss

__all__ = ["ContrastiveLoss"]
