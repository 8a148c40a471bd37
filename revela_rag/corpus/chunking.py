"""One document to its chunks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from revela_rag.corpus.code.chunk import chunk_code
from revela_rag.corpus.code.fit import fitted
from revela_rag.corpus.code.grammars import GRAMMARS
from revela_rag.corpus.draft import Draft
from revela_rag.corpus.formats.guard import guarded
from revela_rag.corpus.formats.markup.front_matter import front_matter
from revela_rag.corpus.formats.names import DERIVED_FORMATS, PROSE_FORMATS
from revela_rag.corpus.formats.readers import read_page
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.prose.chunk import chunk_prose
from revela_rag.corpus.prose.sections import Outline, assemble, markdown_outline
from revela_rag.corpus.text import clean_text
from revela_rag.corpus.types import Chunk, Document, Metadata, Part, chunk_id
from revela_rag.corpus.window import Window

__all__ = ["Pieces", "chunk_document", "cut_document"]

#: Code up to this length is parsed in this process: it cannot be nested deeply enough to end it.
_SMALL_CODE = 50_000
#: What form feeds part, where it is no page.
_UNITS = {"pptx": "slide", "notebook": "cell"}


def chunk_document(document: Document, *, max_words: int = 120, window: Window | None = None) -> list[Chunk]:
    """Cut a document into chunks with their parts.

    Args:
        document: what to cut; its ``format`` decides how: a programming language by its definitions, everything else
            by headings, paragraphs and sentences.
        max_words: upper bound on the words of a prose chunk (default 120); a piece of code may hold twice as many, and
            at most 60 lines.
        window: what the model reads, :attr:`revela_rag.Encoder.token_window`; what has more tokens is cut further,
            prose at sentences, code at inner statements, with the heading or the signature in the title of every part.
            None cuts by words alone.

    Returns:
        Chunks in source order; empty when the document holds no text. Metadata: ``source`` (the document's id),
        ``start_line`` and ``end_line`` (1-based), or, where the text was made of the file, ``page``, ``slide`` or
        ``cell`` (1-based, where it begins) and for HTML nothing, for code ``language`` and ``symbol``, and what the
        document has of its own, which wins where the keys are the same.

    Raises:
        ValueError: if ``max_words`` is below 8.
        Unreadable: HTML that the parser cannot take within its budget.
    """
    return cut_document(document, max_words=max_words, window=window)[0]


def cut_document(
    document: Document, *, max_words: int = 120, window: Window | None = None
) -> tuple[list[Chunk], set[str]]:
    """The chunks of :func:`chunk_document`, and the ids of those that are longer than the window all the same."""
    if max_words < 8:
        raise ValueError(f"max_words is {max_words}; use at least 8 words per chunk")
    document = replace(document, text=clean_text(document.text), title=" ".join(clean_text(document.title).split()))
    if document.format not in PROSE_FORMATS:
        drafts = _code_drafts(document, max_words)
        drafts = drafts if window is None else list(fitted(drafts, window))
    elif page := read_page(document):
        metadata = {**page.metadata, **document.metadata}
        document = replace(document, text=page.text, title=document.title or page.title, metadata=metadata)
        drafts = chunk_prose(document, max_words=max_words, outline=page.outline(), window=window)
        if document.format == "html":  # its lines are not those of the file
            drafts = [replace(draft, metadata={}) for draft in drafts]
    elif document.format in DERIVED_FORMATS:
        drafts = chunk_prose(document, max_words=max_words, outline=_outline(document), window=window)
        drafts = [replace(draft, metadata=_place(draft, document.format)) for draft in drafts]
    elif document.format == "markdown":
        front = front_matter(document.text)
        document = replace(document, text=front.text, metadata={**front.metadata, **document.metadata})
        drafts = chunk_prose(document, max_words=max_words, heading=front.title, window=window)
    else:
        drafts = chunk_prose(document, max_words=max_words, window=window)
    if not drafts and document.title and not document.text.strip():
        drafts = [Draft("prose", document.title)]
    seen: Counter[str] = Counter()
    chunks: list[Chunk] = []
    truncated: set[str] = set()
    for draft in drafts:
        if not draft.text.strip():
            continue
        seen[draft.text] += 1
        role = "passage" if seen[draft.text] == 1 else f"passage-{seen[draft.text]}"
        chunks.append(
            Chunk(
                id=chunk_id(document.id, draft.text, role),
                text=draft.text,
                document_id=document.id,
                position=len(chunks),
                kind=draft.kind,
                title=draft.title,
                parts=draft.parts,
                metadata={"source": document.id, **draft.metadata, **document.metadata},
                origin=document.origin,
            )
        )
        if draft.truncated:
            truncated.add(chunks[-1].id)
    if len(chunks) > 1 and "id" in document.origin and "node" not in document.origin:
        rest = {name: value for name, value in document.origin.items() if name != "id"}
        chunks = [replace(chunk, origin=rest) for chunk in chunks]  # an id that several have names none of them
    return chunks, truncated


def _code_drafts(document: Document, max_words: int) -> list[Draft]:
    """Pieces of source code; where its parser breaks down or takes too long those of a language without a grammar."""
    if document.format not in GRAMMARS or len(document.text) <= _SMALL_CODE:
        return chunk_code(document, max_words=max_words)
    about = {"id": document.id, "title": document.title, "format": document.format, "max_words": max_words}
    try:
        made = guarded("code", document.text.encode("utf-8", "replace"), **about)
    except Unreadable:
        return chunk_code(document, max_words=max_words, parse=False)
    return [Draft(**{**draft, "parts": tuple(Part(**part) for part in draft["parts"])}) for draft in made]


def _outline(document: Document) -> Outline:
    """Sections of a text that was made of a file."""
    if document.format in ("pdf", "eml"):
        return Outline(assemble(document.text, list(document.headings)), [])
    return markdown_outline(document.text)


def _place(draft: Draft, format: str) -> Metadata:
    """The page, slide or cell where a text begins; its lines are not those of the file."""
    name = _UNITS.get(format, "page")
    return {name: draft.metadata["page"]} if "page" in draft.metadata else {}


class Pieces:
    """Chunks of documents that come in pieces: told apart by their text alone, in whatever order pieces come."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def named(self, chunk: Chunk) -> Chunk:
        """The chunk under an id that no chunk of another piece has."""
        id_ = chunk_id(chunk.document_id, chunk.text)
        self._seen[id_] += 1
        count = self._seen[id_]
        return replace(chunk, id=id_ if count == 1 else chunk_id(chunk.document_id, chunk.text, f"passage-{count}"))
