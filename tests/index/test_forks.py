"""Searches in children of a process that has searched with several threads."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork here")


def in_children(code: str, *arguments: object) -> str:
    """Run code that defines ``index`` and ``search(index)``; gives what three children found after their parent."""
    head = f"""
        import os, sys
        sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / "integrations")!r}]
        from index.support import *
        from revela_rag.index import Index
    """
    tail = """
        print(search(index), flush=True)
        for _ in range(3):
            child = os.fork()
            if not child:
                print(search(index), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        print(search(index), flush=True)
        index.close()
    """
    program = "".join(textwrap.dedent(part) for part in (head, code, tail))
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_a_model_and_both_stores_work_in_a_forked_child(tmp_path, store):
    pytest.importorskip("chromadb")
    code = """
        from integration_data import build_model, make_chunks
        from revela_rag.model.encoder import Encoder
        import torch
        assert torch.get_num_threads() == 2
        encoder = Encoder(build_model(Path(sys.argv[1])), device="cpu")
        index = Index.build(make_chunks(), encoder=encoder, path=sys.argv[1] + "/index", store=sys.argv[2])
        def search(index):
            torch.mm(torch.ones(2000, 500), torch.ones(500, 500))  # with all threads there are
            index.encoder.encode_documents(["a longer text about cars and trains " * 9] * 64)
            return [hit.chunk.document_id for hit in index.search("password", k=3)]
    """
    found = in_children("from pathlib import Path\n" + textwrap.dedent(code), tmp_path, store).splitlines()
    assert len(found) == 5 and set(found) == {found[0]} and "login.md" in found[0]


def test_a_graph_of_chroma_is_opened_again_by_a_child(tmp_path, monkeypatch):
    pytest.importorskip("chromadb")
    code = """
        from revela_rag.index.stores import chroma_store
        chroma_store.EXACT_BELOW = 10
        index = Index.build(chunks(60), encoder=FakeEncoder(), path=sys.argv[1], store="chroma")
        def search(index):
            return numbers(index.search("q", k=5)), len(Index.open(index.path, encoder=FakeEncoder()).search("q"))
    """
    found = in_children(code, tmp_path / "index").splitlines()
    assert len(found) == 5 and set(found) == {found[0]}


def test_a_child_that_ends_without_a_search_leaves_its_parents_store_alone(tmp_path):
    pytest.importorskip("chromadb")
    code = """
        from revela_rag.index.stores import chroma_store
        chroma_store.EXACT_BELOW = 10
        chroma_store._writable = lambda data: False  # a private copy, which is removed when its store is closed
        index = Index.build(chunks(60), encoder=FakeEncoder(), path=sys.argv[1], store="chroma")
        def search(index):
            return numbers(index.search("q", k=5))
        print(search(index), flush=True)
        child = os.fork()
        if not child:
            sys.exit(0)  # as a worker of a server does: whatever is to be done at exit is done
        assert os.waitpid(child, 0)[1] == 0
    """
    found = in_children(code, tmp_path / "index").splitlines()
    assert len(found) == 6 and set(found) == {found[0]}
