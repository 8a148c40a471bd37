from __future__ import annotations

import subprocess
import sys

import pytest

from revela_rag.errors import MissingExtraError

PROGRAM = """
import sys
sys.modules[{blocked!r}] = None
import {module}
"""


@pytest.mark.parametrize(
    ("module", "blocked", "extra"),
    [
        ("chroma_revela", "chromadb", "chroma"),
        ("langchain_revela", "langchain_core", "langchain"),
        ("llama_index.embeddings.revela", "llama_index.core", "llama-index"),
        ("llama_index.postprocessor.revela", "llama_index.core", "llama-index"),
        ("llama_index.retrievers.revela", "llama_index.core", "llama-index"),
        ("llama_index.vector_stores.revela", "llama_index.core", "llama-index"),
    ],
)
def test_a_missing_library_is_named_with_the_line_that_installs_it(module, blocked, extra):
    program = PROGRAM.format(blocked=blocked, module=module)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    assert MissingExtraError.__name__ in result.stderr
    assert f"pip install 'revela-rag[{extra}]'" in result.stderr


def test_the_namespace_package_stays_one():
    import llama_index

    assert getattr(llama_index, "__file__", None) is None
