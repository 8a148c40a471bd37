"""LlamaIndex embedding of revela-rag."""
