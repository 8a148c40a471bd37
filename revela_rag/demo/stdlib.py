"""The Python standard library of the running interpreter as a corpus of functions."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from revela_rag.corpus import ANSWER_ROLES, QUERY_ROLES, Chunk, Corpus, Document, load_corpus

__all__ = ["stdlib_corpus"]

_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo", "__pycache__"}


def stdlib_corpus(*, functions: int, show_progress: bool) -> Corpus:
    """Functions and classes of the standard library that carry a docstring, at most ``functions`` of them.

    Which ones are kept when there are more depends on their content hash alone, so it is the same on every run.
    """
    corpus = load_corpus(_documents(Path(sysconfig.get_paths()["stdlib"])), show_progress=show_progress)
    documented = [chunk for chunk in corpus.chunks if _is_documented(chunk)]
    kept = {chunk.id for chunk in sorted(documented, key=lambda chunk: chunk.id)[:functions]}
    return Corpus(chunks=[chunk for chunk in documented if chunk.id in kept], report=corpus.report)


def _documents(root: Path) -> Iterator[Document]:
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _LEFT_OUT.isdisjoint(relative.parts):
            text = path.read_text(encoding="utf-8", errors="replace")
            if not text.strip():
                continue
            yield Document(id=relative.as_posix(), text=text, format="python", metadata={"source": relative.as_posix()})


def _is_documented(chunk: Chunk) -> bool:
    return chunk.part(QUERY_ROLES) is not None and chunk.part(ANSWER_ROLES) is not None
