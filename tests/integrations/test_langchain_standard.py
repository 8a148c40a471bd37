"""LangChain's own suites, unchanged, over both stores."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_revela import RevelaEmbeddings, RevelaRetriever


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
