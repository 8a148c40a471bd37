"""Any reranker of revela-rag behind any retriever of LlamaIndex."""

from __future__ import annotations

from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import PrivateAttr

from revela_rag.errors import IndexingError
from revela_rag.index.types import check_k
from revela_rag.parts import as_reranker
from revela_rag.parts.protocols import Reranker
from revela_rag.parts.rerank import Rerank, reranked

__all__ = ["RevelaRerank"]


class RevelaRerank(BaseNodePostprocessor):
    """Ranks the nodes of any retriever anew, by the query and each node's text read together.

    Texts are as the embedding model sees them, with the metadata that it sees. Scores become the reranker's; nodes stay
    what they are. Of equal scores the first stays first, and a score of ``-inf`` leaves a node out.

    Args:
        rerank: a function of a query and a list of texts that gives one score each, a ``CrossEncoder`` of
            sentence-transformers, :class:`revela_rag.parts.MaxSim`, or a document compressor of LangChain; see
            :func:`revela_rag.parts.as_reranker`.
        top_n: how many nodes stay; None keeps all.

    Raises:
        IndexingError: ``rerank`` is no reranker, ``top_n`` is below 1; later, the scores cannot be used.

    Example:
        >>> RevelaRerank(lambda query, texts: [-len(text) for text in texts], top_n=3).top_n
        3
    """

    top_n: int | None = None
    _reranker: Reranker = PrivateAttr()

    def __init__(self, rerank: Rerank, *, top_n: int | None = None, **kwargs: Any) -> None:
        if top_n is not None:
            check_k(top_n, "top_n")
        super().__init__(top_n=top_n, **kwargs)  # type: ignore[call-arg]
        self._reranker = as_reranker(rerank)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in LlamaIndex."""
        return "RevelaRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise IndexingError("A reranker reads the query; give query_str or query_bundle.")
        texts = [node.node.get_content(MetadataMode.EMBED) for node in nodes]
        ranked = reranked(self._reranker, query_bundle.query_str, texts)
        return [NodeWithScore(node=nodes[place].node, score=score) for place, score in ranked[: self.top_n]]
