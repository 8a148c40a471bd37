"""One search tool over an index."""

from __future__ import annotations

import pytest
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import MetadataMode

from llama_index.retrievers.revela import RevelaRetriever, create_revela_tool
from revela_rag.errors import IndexingError


async def test_passages_follow_their_source(index):
    search = create_revela_tool(index, name="search_handbook", description="Company rules.", similarity_top_k=2)
    assert search.metadata.name == "search_handbook" and search.metadata.description == "Company rules."
    parameters = search.metadata.to_openai_tool()["function"]["parameters"]
    assert list(parameters["properties"]) == parameters["required"] == ["query"]
    hits = index.search("leave", k=2)
    for output in (search.call(query="leave"), await search.acall(query="leave")):
        assert output.content == "\n\n".join(f"[{hit.chunk.document_id}]\n{hit.chunk.text}" for hit in hits)
        assert [found.score for found in output.raw_output] == [hit.cosine for hit in hits]


@pytest.mark.parametrize("kind", [str, PromptTemplate])
def test_passages_are_shown_as_the_prompt_writes_them(index, kind):
    retriever = RevelaRetriever(index, similarity_top_k=1)
    (found,) = retriever.retrieve("leave")
    prompt = kind("<{node_id} {score} {team} {nowhere}>\n{content}\n{text}")
    search = create_revela_tool(retriever, name="s", description="d", document_prompt=prompt)
    head = f"<{found.node_id} {found.score} {found.metadata['team']} >"
    assert search.call("leave").content == f"{head}\n{found.node.get_content(MetadataMode.LLM)}\n{found.text}"


async def test_postprocessors_see_the_nodes(index):
    cosines = sorted(hit.cosine for hit in index.search("leave", k=6, mode="dense"))
    cutoff = SimilarityPostprocessor(similarity_cutoff=(cosines[-1] + cosines[-2]) / 2)
    options = {"node_postprocessors": [cutoff], "similarity_top_k": 6}
    search = create_revela_tool(index, name="s", description="d", document_prompt="{source}", **options)
    best = index.search("leave", k=1, mode="dense")[0].chunk.document_id
    assert search.call("leave").content == (await search.acall("leave")).content == best


def test_options_beside_a_retriever_are_refused(index):
    with pytest.raises(IndexingError, match="'similarity_top_k'"):
        create_revela_tool(RevelaRetriever(index), name="s", description="d", similarity_top_k=3)
