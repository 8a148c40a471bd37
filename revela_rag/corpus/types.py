"""What a corpus is made of: documents are read, chunks are embedded, parts are what training sets side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "ANSWER_ROLES",
    "QUERY_ROLES",
    "TEXT_FIELDS",
    "Chunk",
    "Document",
    "Kind",
    "Metadata",
    "Part",
    "Scalar",
    "Value",
    "chunk_id",
    "titled",
]

Kind = Literal["prose", "code"]
Scalar = str | int | float | bool
#: Of metadata; objects are of such values.
Value = Scalar | list[Any] | dict[str, Any]
Metadata = Mapping[str, Value]

#: Fields of a record that may hold its text, first come first served.
TEXT_FIELDS = ("text", "content", "body", "page_content")

#: Roles of parts that read like something a person would ask.
QUERY_ROLES = frozenset({"docstring", "heading", "title", "question", "comment"})
#: Roles of parts that hold what the asker wants to find.
ANSWER_ROLES = frozenset({"body", "section", "text", "answer", "code"})


@dataclass(frozen=True, slots=True)
class Document:
    """One source, as read: a file, a JSON line, a BEIR document.

    Attributes:
        id: stable name of the source inside its corpus, for example the path relative to the folder.
        text: decoded content; newlines are kept.
        title: optional title.
        format: ``"text"``, ``"markdown"``, ``"rst"``, ``"asciidoc"``, ``"org"``, ``"tex"``, ``"html"`` or a programming
            language such as ``"python"``. With ``"pdf"``, ``"docx"``, ``"pptx"``, ``"odt"``, ``"rtf"``, ``"epub"``,
            ``"eml"`` and ``"notebook"`` the text was made of the file: form feeds part its pages, slides or cells.
        metadata: anything else that should travel with every chunk of the document: strings, numbers, booleans, lists
            and objects of them, and what :func:`~revela_rag.corpus.load_corpus` can make such, as dates. The rest is
            left out.
        is_piece: whether it is one of the pieces into which a document was cut before; they share its id.
        origin: what the object of another library that it was read from had beside text and metadata, as plain JSON:
            ``id``, the one its user gave it, and ``node``, see :mod:`revela_rag.corpus.sources.nodes`.
        headings: of a PDF or a mail, whose text does not say them: level, words, offset where it begins and offset
            where its text does.
    """

    id: str
    text: str
    title: str = ""
    format: str = "text"
    metadata: Metadata = field(default_factory=dict)
    is_piece: bool = False
    origin: Mapping[str, Any] = field(default_factory=dict)
    headings: tuple[tuple[int, str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A text inside a chunk that can stand on its own.

    Parts of one chunk say the same in different words (docstring and body, heading and section, question and
    answer). Training puts them into one batch as separate texts; evaluation uses the query-like ones as queries.

    Attributes:
        role: one of :data:`QUERY_ROLES`, :data:`ANSWER_ROLES`, or ``"first_half"`` / ``"second_half"``.
        text: the text of the part alone.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """The unit that is embedded, indexed, found and shown.

    Attributes:
        id: content hash, see :func:`chunk_id`; the same text from the same source always has the same id.
        text: what is shown when the chunk is found.
        document_id: id of the :class:`Document` it comes from.
        position: 0-based place inside its document, or in the piece of one that was read.
        kind: ``"prose"`` or ``"code"``.
        title: heading path, document title or qualified symbol that gives the text its context; may be empty.
        parts: texts inside the chunk that say the same in different words; empty where none were found.
        metadata: source path, line numbers, language, symbol and the document's own metadata, whose keys win.
        origin: the document's; it is neither embedded nor searched, but integrations give back what they were given.
    """

    id: str
    text: str
    document_id: str
    position: int = 0
    kind: Kind = "prose"
    title: str = ""
    parts: tuple[Part, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def embedding_text(self) -> str:
        """The text the retriever encodes, see :func:`titled`."""
        return titled(self.title, self.text)

    def part(self, roles: frozenset[str]) -> Part | None:
        """The first part whose role is in ``roles``, or None."""
        return next((part for part in self.parts if part.role in roles), None)


def titled(title: str, text: str) -> str:
    """A text as it is encoded, trained on and searched for words: behind its title, on a line of its own."""
    return f"{title}\n{text}" if title else text


def chunk_id(document_id: str, text: str, role: str = "passage") -> str:
    """Content hash that names a chunk: 32 hex digits over source id, role and text."""
    digest = hashlib.sha256()
    for field_ in (document_id, role, text):
        data = field_.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:32]
