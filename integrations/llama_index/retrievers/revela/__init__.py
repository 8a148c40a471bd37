"""LlamaIndex retriever of revela-rag."""
