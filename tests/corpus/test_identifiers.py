"""One cut of identifiers for BM25, training and tools."""

import pytest

from revela_rag.corpus.identifiers import pieces, spoken
from revela_rag.corpus.tools.definitions import describe_tool
from revela_rag.corpus.types import Chunk, titled
from revela_rag.terms import analyze
from revela_training.data.pseudo_queries import _words


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("parseHTTPBody2", ["parse", "HTTP", "Body", "2"]),
        ("get_user-name", ["get", "user", "name"]),
        ("mcp/getURL", ["mcp", "get", "URL"]),
        ("__init__", ["init"]),
        ("日本語2go", ["日本語", "2", "go"]),
    ],
)
def test_pieces(name, cut):
    assert pieces(name) == cut


def test_all_cut_alike():
    assert spoken("getURL()", rest=True) == ["get", "URL", "()"]
    assert spoken("parseHTTPBody") == ["parse", "HTTP", "body"]
    assert describe_tool({"name": "parseHTTPBody", "description": "d"}).startswith("parse HTTP body\n")
    assert _words("parseHTTPBody") == ["parse", "http", "body"]
    assert analyze("parseHTTPBody") == ["parsehttpbody", "pars", "http", "bodi"]


def test_a_title_stands_on_a_line_of_its_own():
    assert (titled("T", "x"), titled("", "x")) == ("T\nx", "x")
    assert Chunk(id="1", text="x", document_id="d", title="T").embedding_text == "T\nx"
