"""Ask a LlamaIndex query engine: python examples/llamaindex_query_engine.py [folder] [question]."""

import argparse
import json
import tempfile
from pathlib import Path

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from llama_index.retrievers.revela import RevelaRetriever
from revela_rag import Encoder, Index

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=Path(json.__file__).parent, help="default: Python's json package")
parser.add_argument("question", nargs="?", default="What detects the encoding of bytes?")
parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a model, for example one that `revela adapt` wrote")
arguments = parser.parse_args()

llm = MockLLM()  # put your LLM here; this one repeats its prompt

with (
    tempfile.TemporaryDirectory() as folder,
    Index.from_source(arguments.folder, encoder=Encoder(arguments.model), path=Path(folder) / "index") as index,
):
    engine = RetrieverQueryEngine.from_args(RevelaRetriever(index, similarity_top_k=3), llm=llm)
    response = engine.query(arguments.question)

print("Question:", arguments.question)
for node in response.source_nodes:
    print(f"{node.score:.3f}  {node.metadata['source']}  {node.text[:60]!r}")
print("Answer:", str(response)[:300], "...")
