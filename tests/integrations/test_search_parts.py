"""Rerankers of the frameworks inside an index, and an index's parts inside the frameworks."""

from __future__ import annotations

import json

import pytest
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from llama_index.core.postprocessor import LongContextReorder, SentenceEmbeddingOptimizer
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore

from langchain_revela import RevelaRetriever, RevelaVectorStore
from llama_index.retrievers.revela import RevelaRetriever as LlamaRetriever
from revela_rag.errors import IndexingError
from revela_rag.parts import MaxSim, as_reranker

QUERY = "how do I call the cache again?"
TEXTS = ["one two", "one", "one two three"]


class Longest(BaseDocumentCompressor):
    """Keeps the longest; says how long where asked."""

    top_n: int = 2
    scored: bool = False

    def compress_documents(self, documents, query, callbacks=None):
        order = sorted(documents, key=lambda document: -len(document.page_content))[: self.top_n]
        assert query == "numbers"
        for document in order if self.scored else ():
            document.metadata["relevance_score"] = len(document.page_content) / 100
        return [Document(page_content=document.page_content[:3], metadata=document.metadata) for document in order]


class Forgetful(BaseDocumentCompressor):
    def compress_documents(self, documents, query, callbacks=None):
        return [Document(page_content=document.page_content) for document in documents]


class LongestNodes(BaseNodePostprocessor):
    def _postprocess_nodes(self, nodes, query_bundle=None):
        assert query_bundle.query_str == "numbers"
        assert nodes[0].node.get_content(metadata_mode="llm") == "one two"  # no place in what a model reads
        return [NodeWithScore(node=one.node, score=float(len(one.node.text))) for one in reversed(nodes)]


def test_a_langchain_compressor_reranks():
    assert as_reranker(Longest(scored=True))("numbers", TEXTS).tolist() == [0.07, -float("inf"), 0.13]
    by_order = as_reranker(Longest(top_n=3))("numbers", TEXTS)
    assert by_order.argsort()[::-1].tolist() == [2, 0, 1]
    with pytest.raises(IndexingError, match="Forgetful lost the metadata"):
        as_reranker(Forgetful())("numbers", TEXTS)


def test_a_llama_index_postprocessor_reranks():
    by_order = as_reranker(LongestNodes())("numbers", TEXTS)
    assert by_order.argsort()[::-1].tolist() == [2, 1, 0]  # its scores do not fall: its order counts
    assert len(as_reranker(LongContextReorder())("numbers", TEXTS)) == 3
    assert callable(as_reranker(SentenceEmbeddingOptimizer.__new__(SentenceEmbeddingOptimizer)))


def test_a_cross_encoder_reranks(model_path, tmp_path):
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    for labels in (1, 3):
        config = BertConfig.from_pretrained(model_path, num_labels=labels)
        BertForSequenceClassification(config).save_pretrained(tmp_path / "cross")
        AutoTokenizer.from_pretrained(model_path).save_pretrained(tmp_path / "cross")
        model = CrossEncoder(str(tmp_path / "cross"), device="cpu")
        given = as_reranker(model)("numbers", TEXTS)
        assert given.shape == ((3,) if labels == 1 else (3, 3))
        expected = model.predict([("numbers", text) for text in TEXTS])
        assert given.ravel().tolist() == pytest.approx(expected.ravel().tolist())


def test_an_index_takes_them(index):
    class Backwards(BaseDocumentCompressor):
        def compress_documents(self, documents, query, callbacks=None):
            return list(reversed(documents))

    ids = [hit.chunk.id for hit in index.search(QUERY, k=4)]
    assert [hit.chunk.id for hit in index.search(QUERY, k=4, rerank=Backwards(), rerank_top=4)] == ids[::-1]
    late = index.search(QUERY, k=4, rerank=MaxSim(index.encoder))
    assert [hit.score for hit in late] == sorted((hit.score for hit in late), reverse=True)


def test_the_langchain_retriever_has_them(faiss_index):
    plain = [hit.chunk.id for hit in faiss_index.search(QUERY, k=4)]
    for kind in ("mmr", "coverage"):
        expected = [hit.chunk.text for hit in faiss_index.search(QUERY, k=4, select=kind)]
        retriever = RevelaRetriever(index=faiss_index, k=4, search_type=kind)
        assert [document.page_content for document in retriever.invoke(QUERY)] == expected
        other = RevelaRetriever(index=faiss_index, k=4, search_kwargs={"search_type": kind})
        assert [document.page_content for document in other.invoke(QUERY)] == expected
        assert [one.page_content for one in other.invoke(QUERY, search_type=kind)] == expected
    retriever = RevelaRetriever(index=faiss_index, k=4, feedback=3, rerank=lambda query, texts: range(len(texts)))
    expected = faiss_index.search(QUERY, k=4, feedback=3, rerank=lambda query, texts: range(len(texts)))
    assert [document.page_content for document in retriever.invoke(QUERY)] == [hit.chunk.text for hit in expected]
    assert json.loads(retriever.model_dump_json())["rerank"] is None
    assert [hit.chunk.id for hit in faiss_index.search(QUERY, k=4)] == plain
    for wrong in ({"feedback": -1}, {"rerank_top": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RevelaRetriever(index=faiss_index, **wrong)
    with pytest.raises(IndexingError, match="rerank='best'"):
        RevelaRetriever(index=faiss_index, rerank="best")


async def test_the_vector_store_covers(faiss_index):
    store = RevelaVectorStore(faiss_index)
    expected = [hit.chunk.text for hit in faiss_index.search(QUERY, k=3, mode="hybrid", select="coverage")]
    retriever = store.as_retriever(search_type="coverage", search_kwargs={"k": 3})
    assert [document.page_content for document in retriever.invoke(QUERY)] == expected
    assert [document.page_content for document in await retriever.ainvoke(QUERY)] == expected


def test_the_llama_index_retriever_has_them(faiss_index):
    expected = [hit.chunk.text for hit in faiss_index.search(QUERY, k=4, feedback=2, select="coverage")]
    retriever = LlamaRetriever(faiss_index, similarity_top_k=4, feedback=2, select="coverage")
    assert [one.node.text for one in retriever.retrieve(QUERY)] == expected
    with pytest.raises(IndexingError, match="select='best'"):
        LlamaRetriever(faiss_index, select="best")
    with pytest.raises(IndexingError, match="feedback=-1"):
        retriever.parts = {"feedback": -1}
