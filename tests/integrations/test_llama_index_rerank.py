"""Any reranker behind any retriever of LlamaIndex."""

from __future__ import annotations

import asyncio
import math

import pytest

pytest.importorskip("llama_index.core")

from langchain_core.documents import BaseDocumentCompressor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index.postprocessor.revela import RevelaRerank
from revela_rag.errors import IndexingError

TEXTS = ["a river", "a long river in the north", "bridge", "the north bridge"]


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=f"n{place}", text=text, metadata={"place": place}), score=0.9 - place / 10)
        for place, text in enumerate(TEXTS)
    ]


def shared(query: str, texts: list[str]) -> list[float]:
    return [float(len(set(query.split()) & set(text.split()))) for text in texts]


def test_nodes_are_ranked_anew_and_stay_what_they_are() -> None:
    given = nodes()
    found = RevelaRerank(shared, top_n=2).postprocess_nodes(given, query_str="the north river")
    assert [(one.node.node_id, one.score) for one in found] == [("n1", 3.0), ("n3", 2.0)]
    assert found[0].node is given[1].node and given[1].score == 0.8, "what was given is left alone"
    assert [one.node.node_id for one in RevelaRerank(shared).postprocess_nodes(given, QueryBundle("river"))] == [
        "n0",
        "n1",
        "n2",
        "n3",
    ]
    again = asyncio.run(RevelaRerank(shared, top_n=2).apostprocess_nodes(given, query_str="the north river"))
    assert [one.score for one in again] == [3.0, 2.0]


def test_the_reranker_reads_what_the_embedding_model_reads() -> None:
    node = TextNode(text="words", metadata={"title": "Seen", "path": "hidden"}, excluded_embed_metadata_keys=["path"])
    read: list[str] = []
    rerank = RevelaRerank(lambda query, texts: read.extend(texts) or [1.0] * len(texts))
    rerank.postprocess_nodes([NodeWithScore(node=node)], query_str="q")
    assert read == ["title: Seen\n\nwords"]


def test_rerankers_of_other_libraries() -> None:
    class CrossEncoder:
        def predict(self, pairs: list[tuple[str, str]], *, show_progress_bar: bool) -> list[float]:
            return [float(len(text)) for _, text in pairs]

    class Last(BaseDocumentCompressor):
        def compress_documents(self, documents, query, callbacks=None):
            return [documents[-1]]

    by_length = RevelaRerank(CrossEncoder(), top_n=1).postprocess_nodes(nodes(), query_str="q")
    assert [one.node.node_id for one in by_length] == ["n1"]
    assert [one.node.node_id for one in RevelaRerank(Last()).postprocess_nodes(nodes(), query_str="q")] == ["n3"]


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(IndexingError, match="top_n=0"):
        RevelaRerank(shared, top_n=0)
    with pytest.raises(IndexingError, match="no function"):
        RevelaRerank("bge-reranker")
    with pytest.raises(IndexingError, match="give query_str"):
        RevelaRerank(shared).postprocess_nodes(nodes())
    with pytest.raises(IndexingError, match=r"shape \(1,\) for 4 texts"):
        RevelaRerank(lambda query, texts: [1.0]).postprocess_nodes(nodes(), query_str="q")
    assert RevelaRerank(shared).postprocess_nodes([], query_str="q") == []
    out = RevelaRerank(lambda query, texts: [-math.inf, 1, -math.inf, 2]).postprocess_nodes(nodes(), query_str="q")
    assert [one.node.node_id for one in out] == ["n3", "n1"]
