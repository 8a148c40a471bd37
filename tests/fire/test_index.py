"""What an index of an attacker may name: a model, which is checked, and nothing that is imported."""

import json
import os
import shutil

import pytest
from index.support import FakeEncoder, chunks

from revela_rag.errors import IndexingError, ModelError
from revela_rag.index import Index
from revela_rag.model.encoder import Encoder

from .support import change


@pytest.fixture
def index(model, tmp_path):
    """An index of a sound model."""
    Index.build(chunks(5), encoder=Encoder(model), path=tmp_path / "index").close()
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("key", "value"), [("store", "evil_installed"), ("kind", "evil_installed.Evil"), ("generation", "../evil")]
)
def test_a_manifest_names_nothing_to_import(index, canary, key, value):
    change(index / "manifest.json", **{key: value})
    with pytest.raises(IndexingError, match=r"manifest\.json.*evil"):
        Index.open(index)
    assert not canary.exists()


@pytest.mark.parametrize("what", ["search", "add", "sync"])
def test_the_model_that_an_index_names_is_checked(index, model, canary, what):
    listing = json.loads((model / "modules.json").read_text())
    listing[1]["type"] = "evil_model.Evil"
    (model / "modules.json").write_text(json.dumps(listing))
    with Index.open(index) as opened, pytest.raises(ModelError, match=r"modules\.json.*trust_remote_code=True"):
        if what == "search":
            opened.search("q")
        elif what == "add":
            opened.add(chunks(9))
        else:
            opened.sync(chunks(3))
    assert not canary.exists()


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_only_regular_files_of_an_index_are_opened(tmp_path, store):
    """Whatever the manifest says of them."""
    if store == "chroma":
        pytest.importorskip("chromadb")
    Index.build(chunks(40), encoder=FakeEncoder(), path=tmp_path / "index", store=store).close()
    change(tmp_path / "index" / "manifest.json", files={})
    for number, file in enumerate(sorted((tmp_path / "index").glob("generation-*/**/*.*"))):
        if not file.is_file():
            continue
        path = tmp_path / str(number)
        shutil.copytree(tmp_path / "index", path)
        pipe = path / file.relative_to(tmp_path / "index")
        pipe.unlink()
        os.mkfifo(pipe)
        with pytest.raises(IndexingError, match="is not a regular file"):
            Index.open(path, encoder=FakeEncoder())


def test_no_array_of_an_index_is_unpickled(tmp_path, canary):
    """NumPy's files may hold pickles."""
    import pickle

    import numpy as np

    class Attack:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    path = tmp_path / "index"
    Index.build(chunks(40), encoder=FakeEncoder(), path=path).close()
    arrays = sorted(path.rglob("*.npy"))
    assert arrays
    for file in arrays:
        np.save(file, np.array([Attack()], dtype=object), allow_pickle=True)
    said = json.loads((path / "manifest.json").read_text())
    said["files"] = {}
    (path / "manifest.json").write_text(json.dumps(said))
    canary.unlink(missing_ok=True)
    try:
        with Index.open(path, encoder=FakeEncoder()) as opened:
            opened.search("q", mode="lexical")
            opened.search("q", mode="hybrid")
    except IndexingError:
        pass
    assert not canary.exists()
    pickle.loads(pickle.dumps(Attack())).close()  # noqa: S301
    assert canary.exists()
