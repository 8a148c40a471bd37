"""Fill a Chroma server and search it by meaning and words: python examples/chroma_server.py [folder] [question].

Start one with `chroma run --path my-server --port 8000`. LangChain's own integration talks to it.
"""

import argparse
import json
from pathlib import Path

import chromadb
import numpy as np
from langchain_chroma import Chroma
from langchain_core.documents import Document

from langchain_revela import RevelaEmbeddings
from revela_rag import load_corpus
from revela_rag.fusion import DEPTH, cosine_step, fused_scores
from revela_rag.lexical import LexicalIndex


class HybridSearch:
    """Cosines of a collection on the server, and BM25 of its texts in this process; make another when texts changed."""

    def __init__(self, collection: chromadb.Collection) -> None:
        self.collection = collection
        held = collection.get(include=["documents"])
        self.words = LexicalIndex.build(held["ids"], held["documents"])
        self.places = {id_: place for place, id_ in enumerate(held["ids"])}
        sample = np.array(collection.get(limit=1024, include=["embeddings"])["embeddings"])
        self.step = cosine_step(len(sample), sample.__getitem__)

    def search(self, question: str, vector: list[float], k: int = 3, where: dict | None = None) -> list[tuple]:
        """Id and score of the best of the hundred nearest texts and the hundred with the best words."""
        near = self.collection.query(query_embeddings=[vector], n_results=DEPTH, where=where, include=["distances"])
        cosines = dict(zip(near["ids"][0], 1 - np.array(near["distances"][0]), strict=True))
        if missing := [id_ for id_, _ in self.words.search(question, DEPTH) if id_ not in cosines]:
            more = self.collection.get(ids=missing, where=where, include=["embeddings"])
            vectors = np.array(more["embeddings"]).reshape(-1, len(vector))
            cosines |= dict(zip(more["ids"], vectors @ vector, strict=True))
        ids, bm25 = list(cosines), self.words.scores(question)
        lexical = [bm25[self.places[id_]] if id_ in self.places else 0.0 for id_ in ids]
        scores = fused_scores(np.array(list(cosines.values())), np.array(lexical), cosine_step=self.step)
        return [(ids[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")[:k]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=Path(json.__file__).parent, help="default: Python's json package")
    parser.add_argument("question", nargs="?", default="What detects the encoding of bytes?")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a model, such as `revela adapt` writes")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()

    embeddings = RevelaEmbeddings(model=arguments.model)
    client = chromadb.HttpClient("127.0.0.1", arguments.port)
    space = {"hnsw": {"space": "cosine"}}
    store = Chroma("texts", embedding_function=embeddings, client=client, collection_configuration=space)
    chunks = load_corpus(arguments.folder, deduplicate=False).chunks
    passages = [Document(page_content=c.embedding_text, metadata={"source": c.document_id}) for c in chunks]
    store.add_documents(passages, ids=[chunk.id for chunk in chunks])  # those that are there are replaced

    search = HybridSearch(client.get_collection("texts"))
    for id_, score in search.search(arguments.question, embeddings.embed_query(arguments.question)):
        (passage,) = store.get_by_ids([id_])
        print(f"{score:.3f}  {passage.metadata['source']}  {passage.page_content[:60]!r}")
