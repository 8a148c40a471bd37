"""Ask a LangChain chain about a folder: python examples/langchain_chain.py [folder] [question]."""

import argparse
import json
import tempfile
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from langchain_revela import RevelaRetriever
from revela_rag import Encoder, Index

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=Path(json.__file__).parent, help="default: Python's json package")
parser.add_argument("question", nargs="?", default="How is a string with backslash escapes scanned?")
parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a model, for example one that `revela adapt` wrote")
arguments = parser.parse_args()


def show(documents: list[Document]) -> str:
    for document in documents:
        print(f"{document.metadata['score']:.3f}  {document.metadata['source']}  {document.page_content[:60]!r}")
    return "\n\n".join(document.page_content for document in documents)


prompt = ChatPromptTemplate.from_template("Answer from the context alone.\n\n{context}\n\nQuestion: {question}")
llm = FakeListChatModel(responses=["(put your chat model here)"])

with (
    tempfile.TemporaryDirectory() as folder,
    Index.from_source(arguments.folder, encoder=Encoder(arguments.model), path=Path(folder) / "index") as index,
):
    retriever = RevelaRetriever(index=index, k=3, with_scores=True)
    chain = {"context": retriever | show, "question": RunnablePassthrough()} | prompt | llm | StrOutputParser()
    print("Question:", arguments.question)
    print("Answer:", chain.invoke(arguments.question))
