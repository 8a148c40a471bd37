"""From chunks to batches: texts that belong together, queries made of them, groups that read each other, tokens."""
