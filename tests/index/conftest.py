import pytest

from revela_rag.index import Index

from .support import FakeEncoder, chunks

STORES = ["faiss", "chroma"]


@pytest.fixture(params=STORES)
def store(request) -> str:
    if request.param == "chroma":
        pytest.importorskip("chromadb")
    return request.param


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def built(path, encoder, store):
    """Forty chunks, in either store."""
    with Index.build(chunks(40), encoder=encoder, path=path, store=store) as index:
        encoder.embedded.clear()
        yield index


@pytest.fixture
def plain(path, encoder):
    """Forty chunks in FAISS."""
    with Index.build(chunks(40), encoder=encoder, path=path) as index:
        encoder.embedded.clear()
        yield index
