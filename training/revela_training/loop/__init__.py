"""The training loop: model, step, trainer, checkpoints, and the processes that share them."""
