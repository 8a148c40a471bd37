"""LangChain's own suites, unchanged, over both stores."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    ToolsIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests, ToolsUnitTests

from langchain_revela import RevelaEmbeddings, RevelaRetriever, RevelaVectorStore, create_revela_tool


class _Embeddings:
    @pytest.fixture(autouse=True)
    def _model(self, model_path):
        self.path = model_path

    @property
    def embeddings_class(self):
        return RevelaEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": self.path, "device": "cpu", "batch_size": 8}


class TestEmbeddingsUnit(_Embeddings, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(_Embeddings, EmbeddingsIntegrationTests):
    pass


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True, params=["faiss", "chroma"])
    def _index(self, request):
        self.index = request.getfixturevalue(f"{request.param}_index")

    @property
    def retriever_constructor(self):
        return RevelaRetriever

    @property
    def retriever_constructor_params(self):
        return {"index": self.index}

    @property
    def retriever_query_example(self):
        return "how many days of leave"


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture(params=["faiss", "chroma"])
    def vectorstore(self, request, tmp_path):
        store = RevelaVectorStore(tmp_path / "index", embedding=self.get_embeddings(), store=request.param)
        yield store
        store.index.close()


class _Tool:
    @property
    def tool_constructor(self):
        return create_revela_tool(self.index, name="search_rules", description="Rules of the firm.", k=2)

    @property
    def tool_constructor_params(self):
        return {}

    @property
    def tool_invoke_params_example(self):
        return {"query": "how many days of leave"}

    @pytest.fixture(autouse=True)
    def _index(self, faiss_index):
        self.index = faiss_index


class TestToolUnit(_Tool, ToolsUnitTests):
    pass


class TestToolIntegration(_Tool, ToolsIntegrationTests):
    pass


class TestVectorStoreRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True, params=["similarity", "mmr", "hybrid"])
    def _store(self, request, faiss_index):
        self.store, self.search_type = RevelaVectorStore(faiss_index), request.param

    @property
    def retriever_constructor(self):
        def make(**search_kwargs):
            return self.store.as_retriever(search_type=self.search_type, search_kwargs=search_kwargs)

        return make

    @property
    def retriever_constructor_params(self):
        return {}

    @property
    def retriever_query_example(self):
        return "how many days of leave"
