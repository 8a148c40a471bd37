"""The Revela objective and the job that adapts a retriever with it."""
