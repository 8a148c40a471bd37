"""LangChain components of revela-rag."""
