"""An index of a source: built once, then kept in step, and never with another source by mistake."""

from pathlib import Path

import pytest

from revela_rag import load_corpus
from revela_rag.corpus.window import Window
from revela_rag.errors import CorpusError, IndexingError, IndexMismatchError
from revela_rag.index import Index

from .support import FakeEncoder, chunk


@pytest.fixture
def docs(tmp_path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "owls.md").write_text("Owls hunt mice at night.", encoding="utf-8")
    (folder / "boats.md").write_text("Boats sail the sea.", encoding="utf-8")
    return folder


def texts(index) -> set[str]:
    return {hit.chunk.text for hit in index.search("owls and boats", k=99)}


def test_the_same_call_builds_and_later_brings_up_to_date(docs, path, encoder):
    with Index.from_source(docs, path=path, encoder=encoder) as index:
        assert texts(index) == {"Owls hunt mice at night.", "Boats sail the sea."}
    (docs / "boats.md").write_text("Boats are for the day.", encoding="utf-8")
    encoder.embedded.clear()
    with Index.from_source(str(docs), path=path, encoder=encoder) as index:
        assert texts(index) == {"Owls hunt mice at night.", "Boats are for the day."}
        assert encoder.embedded == ["Boats are for the day."]
        (docs / "owls.md").unlink()
        report = index.sync_source(docs)
        assert (report.added, report.deleted, report.unchanged) == (0, 1, 1) and len(index) == 1


def test_a_corpus_that_was_read_is_a_source(docs, path, encoder):
    corpus = load_corpus(docs, deduplicate=False)
    with Index.from_source(corpus, path=path, encoder=encoder) as index:
        assert len(index) == 2 and index.sync_source(corpus).unchanged == 2
        assert index.sync_source([{"id": "owls.md", "text": "Owls."}]).deleted == 2


def test_copies_stay_unless_told_otherwise(docs, path, encoder):
    (docs / "copy.md").write_text("Boats sail the sea.", encoding="utf-8")
    with Index.from_source(docs, path=path, encoder=encoder) as index:
        assert len(index) == 3 and index.sync_source(docs, deduplicate=True).deleted == 1


def test_another_source_is_refused(docs, path, encoder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "foxes.md").write_text("Foxes hunt mice, too.", encoding="utf-8")
    with Index.from_source(docs, path=path, encoder=encoder) as index:
        with pytest.raises(IndexingError, match=r"holds 2 documents.*other.*would delete them all.*overwrite=True"):
            index.sync_source(tmp_path / "other")
        with pytest.raises(IndexingError, match="would delete them all"):
            Index.from_source(tmp_path / "other", path=path, encoder=encoder)
        assert len(index) == 2
    with Index.from_source(tmp_path / "other", path=path, encoder=encoder, overwrite=True) as index:
        assert texts(index) == {"Foxes hunt mice, too."}


def test_what_cannot_be_read_stays(docs, path, encoder, monkeypatch):
    with Index.from_source(docs, path=path, encoder=encoder) as index:
        read = Path.read_bytes

        def broken(file: Path) -> bytes:
            if file.name == "owls.md":
                raise OSError(5, "Input/output error")
            return read(file)

        monkeypatch.setattr(Path, "read_bytes", broken)
        report = index.sync_source(docs)
        assert report.kept == 1 and report.deleted == 0 and len(index) == 2


def test_arguments_must_fit_what_is_there(docs, path, encoder, tmp_path):
    with pytest.raises(IndexingError, match=r"needs a model; pass encoder=Encoder\(model\)"):
        Index.from_source(docs, path=path)
    with pytest.raises(CorpusError):
        Index.from_source(tmp_path / "nowhere", path=path, encoder=encoder)
    assert not path.exists()
    Index.from_source(docs, path=path, encoder=encoder, kind="hnsw").close()
    with Index.from_source(docs, path=path, encoder=encoder) as index:
        assert (index.store, index.kind) == ("faiss", "hnsw")
    with pytest.raises(IndexingError, match=r"uses faiss, not chroma.*overwrite=True"):
        Index.from_source(docs, path=path, encoder=encoder, store="chroma")
    with pytest.raises(IndexingError, match="of kind hnsw, not flat"):
        Index.from_source(docs, path=path, encoder=encoder, kind="flat")
    with pytest.raises(IndexMismatchError):
        Index.from_source(docs, path=path, encoder=FakeEncoder("e" * 64))


class Narrow(FakeEncoder):
    """Reads eight tokens, which are words here."""

    @property
    def token_window(self):
        return Window(8, 8, lambda text: len(text.split()))


LONG = " ".join(f"Owl number {i} hunts mice in the barn at night." for i in range(4))


def test_chunks_are_cut_for_the_model_and_the_index_says_so(docs, path, encoder):
    (docs / "owls.md").write_text(LONG, encoding="utf-8")
    with Index.from_source(docs, path=path, encoder=encoder) as index:
        assert len(index) == 2 and index.manifest.window is None
    narrow = Narrow()
    with Index.from_source(docs, path=path, encoder=narrow) as index:  # of the same fingerprint
        assert index.manifest.window == 8 and all(len(text.split()) <= 8 for text in texts(index))
        before = index.manifest.generation
        index.sync_source(docs)
        assert index.manifest.generation == before, "nothing changed"
        index.add([chunk(1)])
        assert index.manifest.window == 8
    other = Narrow("0" * 64)
    with pytest.raises(IndexMismatchError, match=r"its chunks cut for the 8 tokens that reads, not by"):
        Index.open(path, encoder=other)


def test_a_corpus_that_was_cut_for_a_wider_model_is_told(docs, path, caplog):
    wide = Window(512, 510, lambda text: len(text.split()))
    corpus = load_corpus(docs, window=wide)
    with Index.from_source(corpus, path=path, encoder=Narrow()) as index:
        assert index.manifest.window == 512
    assert "cut for a model of 512 tokens and this one reads 8, so longer chunks lose their ends" in caplog.text
