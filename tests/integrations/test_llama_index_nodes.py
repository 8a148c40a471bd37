"""Nodes that went into an index come out of it as what they were."""

import pytest
from integration_data import TEXTS
from llama_index.core import Document, StorageContext
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter, get_leaf_nodes
from llama_index.core.postprocessor import PrevNextNodePostprocessor, SimilarityPostprocessor
from llama_index.core.retrievers import AutoMergingRetriever
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from llama_index.retrievers.revela import RevelaRetriever
from revela_rag.corpus import load_corpus
from revela_rag.index import Index, SyncReport

QUERY = "how is a password reset?"
WORDS = "password reset link login page"


def over(nodes, encoder, path, *, store="faiss", **settings) -> RevelaRetriever:
    chunks = load_corpus(nodes, deduplicate=False).chunks
    Index.build(chunks, encoder=encoder, path=path / "index", store=store).close()
    return RevelaRetriever(path / "index", model=encoder, **settings)


@pytest.fixture
def book() -> Document:
    text = " ".join(text for name, text in TEXTS.items() if name.endswith(".md"))
    metadata = {"file_name": "handbook.md", "team": "people", "secret": "x"}
    return Document(text=text, id_="book", metadata=metadata, excluded_llm_metadata_keys=["secret"])


@pytest.fixture
def nodes(book):
    return SentenceSplitter(chunk_size=30, chunk_overlap=0).get_nodes_from_documents([book])


@pytest.mark.parametrize("store", ["faiss", "chroma"])
def test_nodes_come_back_as_they_were(nodes, encoder, tmp_path, store):
    assert len(nodes) > 2
    retriever = over(nodes, encoder, tmp_path, store=store, similarity_top_k=99)
    found = {node.node_id: node.node for node in retriever.retrieve(QUERY)}
    assert set(found) == {node.node_id for node in nodes}
    for given in nodes:
        node = found[given.node_id]
        assert node.relationships == given.relationships and node.text == given.text
        assert node.metadata == node.metadata | given.metadata
        assert node.ref_doc_id == "book"
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert node.get_content(mode) == given.get_content(mode)
    assert "team: people" in node.get_content(MetadataMode.LLM) and "secret" not in node.get_content(MetadataMode.LLM)
    assert [chunk.text for chunk in retriever.index.get([nodes[1].node_id])] == [nodes[1].text]


def test_what_needs_their_ids_and_relationships_works(nodes, encoder, tmp_path):
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    retriever = over(nodes, encoder, tmp_path, similarity_top_k=1, mode="lexical")
    (found,) = retriever.retrieve("days of paid leave")
    place = [node.node_id for node in nodes].index(found.node_id)
    assert 0 < place < len(nodes) - 1
    around = PrevNextNodePostprocessor(docstore=docstore, num_nodes=1, mode="both").postprocess_nodes([found])
    assert [node.node_id for node in around] == [node.node_id for node in nodes[place - 1 : place + 2]]
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr"], retriever=retriever)
    result = evaluator.evaluate("days of paid leave", expected_ids=[found.node_id])
    assert result.metric_vals_dict == {"hit_rate": 1.0, "mrr": 1.0}


def test_leaves_are_merged_into_their_parents(book, encoder, tmp_path):
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[128, 30], chunk_overlap=0)
    every = parser.get_nodes_from_documents([book])
    context = StorageContext.from_defaults()
    context.docstore.add_documents(every)
    retriever = over(get_leaf_nodes(every), encoder, tmp_path, similarity_top_k=9)
    merged = AutoMergingRetriever(retriever, context).retrieve(QUERY)
    assert [node.node_id for node in merged] == [node.node_id for node in every if node.child_nodes]


def test_the_best_piece_of_a_long_node_has_its_id(encoder, tmp_path):
    text = " ".join(f"Rule {number} of the house is to close door {number} at night." for number in range(40))
    long = TextNode(id_="long", text=text, relationships={NodeRelationship.NEXT: RelatedNodeInfo(node_id="other")})
    nodes = [long, TextNode(id_="other", text="Trains are booked by the office.")]
    retriever = over(nodes, encoder, tmp_path, similarity_top_k=99)
    found = retriever.retrieve("rule 17 door")
    hits = retriever.index.search("rule 17 door", k=99)
    assert [node.text for node in found] == [hit.chunk.text for hit in hits] and len(found) > 3
    pieces = [node for node in found if node.node.ref_doc_id == "long"]
    assert [node.node_id == "long" for node in pieces] == [True] + [False] * (len(pieces) - 1)
    assert {node.node.next_node.node_id for node in pieces} == {"other"}
    assert len(retriever.index.get(["long"])) == len(pieces)


def test_nodes_that_were_cut_again_bring_their_new_ids_without_the_model(book, encoder, tmp_path):
    splitter = SentenceSplitter(chunk_size=30, chunk_overlap=0)
    retriever = over(splitter.get_nodes_from_documents([book]), encoder, tmp_path, similarity_top_k=99)
    again = splitter.get_nodes_from_documents([book])
    report = retriever.index.sync(load_corpus(again, deduplicate=False).chunks)
    assert report == SyncReport(updated=len(again))
    assert {node.node_id for node in retriever.retrieve(QUERY)} == {node.node_id for node in again}


def test_relationships_with_odd_metadata_and_several_children_are_kept(encoder, tmp_path):
    info = RelatedNodeInfo(node_id="parent", hash="h", metadata={"when": {1, 2}, "page": 3})
    children = [RelatedNodeInfo(node_id=name) for name in "ab"]
    relationships = {NodeRelationship.PARENT: info, NodeRelationship.CHILD: children}
    given = TextNode(id_="n", text="Trains are booked by the office.", relationships=relationships)
    (found,) = over([given], encoder, tmp_path).retrieve("trains")
    assert found.node.child_nodes == children
    assert found.node.parent_node.metadata == {"when": "{1, 2}", "page": 3} and found.node.parent_node.hash == "h"


def test_documents_are_named_by_their_chunks_and_hide_what_they_hid(encoder, tmp_path):
    document = Document(text=TEXTS["tax.md"], id_="tax", metadata={"team": "money", "path": "/x"})
    document.excluded_llm_metadata_keys = ["path"]
    (found,) = over([document], encoder, tmp_path).retrieve("tax")
    assert found.node_id != "tax" and found.node.ref_doc_id == found.metadata["source"] == "tax"
    assert found.node.get_content(MetadataMode.LLM) == f"team: money\n\n{TEXTS['tax.md']}"


@pytest.mark.parametrize("mode", ["auto", "hybrid", "dense"])
def test_scores_are_cosines_in_the_order_of_the_search(index, mode):
    for query in (QUERY, WORDS, "tax", "zebra"):
        nodes = RevelaRetriever(index, similarity_top_k=6, mode=mode).retrieve(query)
        cosines = {hit.chunk.id: hit.cosine for hit in index.search(query, k=6, mode="dense")}
        assert [node.node_id for node in nodes] == [hit.chunk.id for hit in index.search(query, k=6, mode=mode)]
        assert [node.score for node in nodes] == pytest.approx([cosines[node.node_id] for node in nodes], abs=1e-5)
        cutoff = sorted(cosines.values())[2]
        left = SimilarityPostprocessor(similarity_cutoff=cutoff - 1e-4).postprocess_nodes(nodes)
        assert len(left) == sum(cosine >= cutoff for cosine in cosines.values())
