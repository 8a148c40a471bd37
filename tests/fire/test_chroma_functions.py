"""An index whose Chroma collection names an embedding function, which Chroma would build and run."""

import json
import shutil
import sqlite3
import warnings
from contextlib import closing, suppress

import pytest
from index.support import FakeEncoder, chunk, chunks
from model.conftest import sentence_transformer
from typer.testing import CliRunner

from revela_rag.cli.app import app
from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.stores.chroma_safety import check_database, named_functions
from revela_rag.model.encoder import Encoder

from .support import change

chromadb = pytest.importorskip("chromadb")

from chromadb.utils import embedding_functions  # noqa: E402

SCHEMA = hasattr(embedding_functions, "sparse_known_embedding_functions")  # newer versions of Chroma have one
REFUSED = r"names the embedding function '{}'.*build the index again"


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def attacker(canary, monkeypatch):
    """Two functions known to Chroma, dense and sparse, that leave a trace when they are built."""

    class Attack:
        @staticmethod
        def build_from_config(config):
            canary.write_text("built")
            raise ValueError("built")

    monkeypatch.setitem(embedding_functions.known_embedding_functions, "attack", Attack)
    if SCHEMA:
        monkeypatch.setitem(embedding_functions.sparse_known_embedding_functions, "attack", Attack)
    return {"type": "known", "name": "attack", "config": {}}


@pytest.fixture
def evil_model(tmp_path, canary):
    """A model directory that brings a Python module of its own."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "custom_code.Evil"}]))
    (folder / "config.json").write_text("{}")
    (folder / "custom_code.py").write_text(
        f"from pathlib import Path\nPath({str(canary)!r}).write_text('ran')\n"
        "import torch\nclass Evil(torch.nn.Module):\n    @staticmethod\n    def load(*a, **k):\n        return Evil()\n"
    )
    return folder


def database(path):
    (found,) = path.glob("generation-*/chroma*/chroma.sqlite3")
    return found


def tamper(path, *, where, function):
    """Put a function into the configuration, or into a dense or a sparse place of the schema, and leave no hash."""
    change(path / "manifest.json", files={})
    with closing(sqlite3.connect(database(path))) as connection, connection:
        if not SCHEMA:
            changed = json.dumps({"hnsw": {"space": "cosine"}, "embedding_function": function})
            connection.execute("UPDATE collections SET config_json_str = ?", (changed,))
            return
        configuration, schema = connection.execute("SELECT config_json_str, schema_str FROM collections").fetchone()
        configuration, schema = json.loads(configuration or "{}"), json.loads(schema)
        if where == "configuration":
            # Chroma prefers the schema where there is one
            configuration = {"hnsw": {"space": "cosine"}, "embedding_function": function}
            schema = None
        elif where == "schema":
            schema["keys"]["#embedding"]["float_list"]["vector_index"]["config"]["embedding_function"] = function
        elif where == "defaults":
            schema["defaults"]["float_list"]["vector_index"]["config"]["embedding_function"] = function
        else:
            schema["keys"]["words"] = {
                "sparse_vector": {
                    "sparse_vector_index": {
                        "enabled": True,
                        "config": {"embedding_function": function, "source_key": "#document", "bm25": False},
                    }
                }
            }
        connection.execute(
            "UPDATE collections SET config_json_str = ?, schema_str = ?",
            (json.dumps(configuration), None if schema is None else json.dumps(schema)),
        )


@pytest.fixture
def path(tmp_path):
    Index.build(chunks(20), encoder=FakeEncoder(), path=tmp_path / "index", store="chroma").close()
    return tmp_path / "index"


PLACES = ["configuration", "schema", "defaults", "sparse"] if SCHEMA else ["configuration"]


@pytest.mark.parametrize("where", PLACES)
def test_chroma_itself_would_build_it(path, attacker, canary, where):
    """What the others guard against: without it they could not fail."""
    tamper(path, where=where, function=attacker)
    client = chromadb.PersistentClient(str(database(path).parent))
    with warnings.catch_warnings(action="ignore"), suppress(ValueError):
        collection = client.get_collection("revela", embedding_function=None)
        collection.modify(configuration={"hnsw": {"sync_threshold": 100}})
    client.close()
    assert canary.exists()


@pytest.mark.parametrize("where", PLACES)
def test_it_is_not_opened(path, attacker, canary, where):
    tamper(path, where=where, function=attacker)
    with pytest.raises(IndexingError, match=REFUSED.format("attack")):
        Index.open(path, encoder=FakeEncoder())
    assert not canary.exists()


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("act", ["search", "add", "delete", "sync"])
def test_an_open_index_does_not_follow_a_change(path, attacker, canary, where, act):
    """The files change after the index was opened: the next write reads them again."""
    with Index.open(path, encoder=FakeEncoder()) as index:
        tamper(path, where=where, function=attacker)
        if act == "search":
            assert len(index.search("q", k=5)) == 5
        else:
            with pytest.raises(IndexingError, match=REFUSED.format("attack")):
                if act == "add":
                    index.add([chunk(99)])
                elif act == "delete":
                    index.delete([chunk(3).id])
                else:
                    index.sync(chunks(10))
    assert not canary.exists()


def test_a_model_of_the_attacker_is_not_loaded(path, evil_model, canary):
    config = {
        "model_name": str(evil_model),
        "device": "cpu",
        "normalize_embeddings": False,
        "kwargs": {"trust_remote_code": True},
    }
    function = {"type": "known", "name": "sentence_transformer", "config": config}
    tamper(path, where="configuration", function=function)
    with pytest.raises(IndexingError, match=REFUSED.format("sentence_transformer")):
        Index.open(path, encoder=FakeEncoder())
    assert not canary.exists()
    # what it would have been
    client = chromadb.PersistentClient(str(database(path).parent))
    client.get_collection("revela", embedding_function=None).modify(configuration={"hnsw": {"ef_search": 9}})
    client.close()
    assert canary.exists()


@pytest.mark.parametrize("command", ["search", "index", "doctor"])
def test_no_command_builds_it(attacker, canary, command, tmp_path):
    path = tmp_path / "real"
    Index.build(chunks(5), encoder=Encoder(sentence_transformer(tmp_path / "m")), path=path, store="chroma").close()
    tamper(path, where="sparse", function=attacker)
    (tmp_path / "a.md").write_text("Something to read, one sentence long.")
    arguments = {
        "search": ["search", str(path), "q", "--json"],
        "index": ["index", str(tmp_path / "a.md"), "--output", str(path)],
        "doctor": ["doctor"],
    }[command]
    result = CliRunner().invoke(app, arguments)
    if command != "doctor":
        assert result.exit_code != 0
        assert "names the embedding function 'attack'" in " ".join(result.output.split())
    assert not canary.exists()


def test_another_collection_in_the_same_database_counts(path, attacker):
    client = chromadb.PersistentClient(str(database(path).parent))
    client.create_collection("other", embedding_function=None)
    client.close()
    change(path / "manifest.json", files={})
    with closing(sqlite3.connect(database(path))) as connection, connection:
        connection.execute(
            f"UPDATE collections SET config_json_str = ?{', schema_str = NULL' if SCHEMA else ''} WHERE name = 'other'",
            (json.dumps({"embedding_function": attacker}),),
        )
    with pytest.raises(IndexingError, match=r"'other'.*'attack'"):
        Index.open(path, encoder=FakeEncoder())


@pytest.mark.parametrize(
    "text",
    [
        '{"embedding_function": {"type": "known", "name": "attack"}, "embedding_function": {"type": "legacy"}}',
        "[" * 100_000,
        "not JSON",
        '{"a": "' + "x" * 4_000_001 + '"}',
    ],
    ids=["twice", "deep", "damaged", "long"],
)
def test_a_configuration_that_cannot_be_judged_is_refused(path, text):
    with closing(sqlite3.connect(database(path))) as connection, connection:
        connection.execute("UPDATE collections SET config_json_str = ?", (text,))
    with pytest.raises(IndexingError, match=r"damaged; build again"):
        check_database(database(path).parent)


def test_a_change_in_the_log_of_the_database_counts(path, attacker, tmp_path):
    """SQLite keeps the newest changes in a file beside the database."""
    copy = tmp_path / "copy"
    connection = sqlite3.connect(database(path))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("UPDATE collections SET config_json_str = ?", (json.dumps({"embedding_function": attacker}),))
    connection.commit()
    shutil.copytree(database(path).parent, copy)
    connection.close()
    assert (copy / "chroma.sqlite3-wal").stat().st_size > 0
    with pytest.raises(IndexingError, match="attack"):
        check_database(copy)


@pytest.mark.parametrize("where", PLACES)
def test_a_database_that_answers_us_otherwise_than_chroma(path, attacker, canary, where, monkeypatch):
    """A view can tell the versions of SQLite apart: what Chroma has read is checked as well."""
    tamper(path, where=where, function=attacker)
    monkeypatch.setattr("revela_rag.index.stores.chroma_store.check_database", lambda data: None)
    with pytest.raises(IndexingError, match=REFUSED.format("attack")):
        Index.open(path, encoder=FakeEncoder())
    assert not canary.exists()


def test_what_chroma_writes_without_a_function_passes(path):
    check_database(database(path).parent)
    stored = {"embedding_function": None, "keys": [{"embedding_function": {"type": "legacy"}}]}
    assert list(named_functions(stored)) == []
    assert list(named_functions({"a": [{"embedding_function": "text"}]})) == ["text"]
    with Index.open(path, encoder=FakeEncoder()) as index:
        assert index.sync(chunks(21)).added == 1 and len(index.search("q", k=99)) == 21


def test_a_collection_for_our_function_names_no_other(tmp_path, attacker, canary):
    from chroma_revela import RevelaEmbeddingFunction

    function = RevelaEmbeddingFunction(sentence_transformer(tmp_path / "model"))
    folder = tmp_path / "generation-1" / "chroma"
    client = chromadb.PersistentClient(str(folder))
    function.check(client.create_collection("docs", embedding_function=function))
    client.close()
    moved = tmp_path / "generation-2" / "chroma"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder.parent)
    tamper(tmp_path, where="sparse", function=attacker)
    client = chromadb.PersistentClient(str(moved))
    with pytest.raises(IndexingError, match=r"'docs' names the embedding function 'attack'"):
        function.check(client.get_collection("docs", embedding_function=function))
    client.close()
    assert not canary.exists()


@pytest.mark.parametrize("implementation", ["evil_chroma.Api", "chromadb.api.segment.SegmentAPI"])
def test_a_file_of_settings_beside_the_user_is_not_read(tmp_path, canary, monkeypatch, implementation):
    """Chroma reads ``.env`` in the working directory, which may come with a corpus; the older store unpickles."""
    (tmp_path / ".env").write_text(f"chroma_api_impl={implementation}\n")
    (tmp_path / "evil_chroma.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).write_text('ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert chromadb.Settings().chroma_api_impl == implementation
    with Index.build(chunks(5), encoder=FakeEncoder(), path=tmp_path / "index", store="chroma") as index:
        client = index._current().vectors._client
        assert type(client._server).__name__ == "RustBindingsAPI" and len(index.search("q", k=9)) == 5
    checks = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["checks"]
    assert next(check for check in checks if check["name"] == "chroma")["status"] == "ok"
    assert not canary.exists()
