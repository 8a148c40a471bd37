"""Words that read alike are found, and an index that was written before they were still works."""

import json
import unicodedata

import pytest

from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.postings import Postings

from .support import FakeEncoder, chunk

SPELLINGS = [
    ("Müller", unicodedata.normalize("NFD", "müller")),
    (unicodedata.normalize("NFD", "Crème brûlée"), "crème"),
    ("データ処理", unicodedata.normalize("NFD", "データ")),
    ("ＡＰＩのキー", "api"),
    ("Hauptstraße 5", "HAUPTSTRASSE"),
    ("HAUPTSTRASSE 5", "hauptstraße"),
    ("İZMİR", "izmir"),
    ("izmir", "İzmir"),
]


@pytest.mark.parametrize(("text", "query"), SPELLINGS)
def test_words_that_read_alike_are_found(path, encoder, store, text, query):
    given = [chunk(0, text=text), *(chunk(number) for number in range(1, 6))]
    Index.build(given, encoder=encoder, path=path, store=store).close()
    with Index.open(path, encoder=encoder) as index:
        (hit,) = index.search(query, mode="lexical")
        assert hit.chunk.text == text  # as it was written


def as_written_before(folder):
    """The lexical index as the version without folding wrote it: other terms, and no version."""
    old = folder / "terms.json"
    terms = json.loads(old.read_text())
    del terms["version"]
    terms["vocabulary"] = [term.replace("strass", "straße") for term in terms["vocabulary"]]
    old.write_text(json.dumps(terms))


def test_the_words_of_an_earlier_version_are_read_again_and_a_sync_writes_them(path, encoder, caplog):
    given = [chunk(0, text="Hauptstraße 5"), *(chunk(number) for number in range(1, 6))]
    Index.build(given, encoder=encoder, path=path).close()
    (folder,) = (path / "generation-000001" / "lexical").iterdir()
    as_written_before(folder)
    manifest = json.loads((path / "manifest.json").read_text()) | {"files": {}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexingError, match="version 1, not 2"):
        Postings.load(folder)
    with Index.open(path, encoder=FakeEncoder()) as index, caplog.at_level("INFO", logger="revela_rag"):
        assert len(index.search("HAUPTSTRASSE", mode="lexical")) == 1 and "none of this version" in caplog.text
        report = index.sync(given)
        assert report.unchanged == 6 and not report.changed
        assert index.manifest.generation == "generation-000002"
        caplog.clear()
        assert len(index.search("HAUPTSTRASSE", mode="lexical")) == 1 and "none of this version" not in caplog.text
        index.sync(given)
        assert index.manifest.generation == "generation-000002"
