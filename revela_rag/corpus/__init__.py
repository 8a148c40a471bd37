"""Reading a corpus: sources to documents, documents to chunks, chunks to the labels their structure gives away."""

from revela_rag.corpus.chunking import chunk_document
from revela_rag.corpus.load import load_corpus
from revela_rag.corpus.pairs import StructuralPair, structural_pairs
from revela_rag.corpus.report import Corpus, CorpusReport
from revela_rag.corpus.sources.paths import iter_documents
from revela_rag.corpus.types import ANSWER_ROLES, QUERY_ROLES, Chunk, Document, Part, chunk_id

__all__ = [
    "ANSWER_ROLES",
    "QUERY_ROLES",
    "Chunk",
    "Corpus",
    "CorpusReport",
    "Document",
    "Part",
    "StructuralPair",
    "chunk_document",
    "chunk_id",
    "iter_documents",
    "load_corpus",
    "structural_pairs",
]
