"""Where documents come from: folders, files, JSON, YAML, JSONL, CSV, Parquet, BEIR directories, iterables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from revela_rag.corpus.formats.names import format_of
from revela_rag.corpus.formats.readers import Unreadable, read_bytes
from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.delimited import DELIMITED_SUFFIXES
from revela_rag.corpus.sources.folder import walk_files
from revela_rag.corpus.sources.items import item_documents
from revela_rag.corpus.sources.parquet import PARQUET_SUFFIXES, parquet_documents
from revela_rag.corpus.sources.record_files import (
    JSONL_SUFFIXES,
    file_records,
    json_documents,
    jsonl_documents,
    row_documents,
)
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields
from revela_rag.corpus.sources.structured import YAML_SUFFIXES
from revela_rag.corpus.sources.tables import TABLE_SUFFIXES
from revela_rag.corpus.tools.files import tools_of_file
from revela_rag.corpus.types import Document, chunk_id
from revela_rag.errors import CorpusError

__all__ = ["MAX_FILE_BYTES", "Source", "iter_documents", "open_source"]

#: Files and records above this size are skipped.
MAX_FILE_BYTES = 10_000_000

_SUFFIX = 8  # hex digits that tell documents of one name apart

#: What a corpus can be read from.
Source: TypeAlias = str | Path | Iterable[Any]


def iter_documents(
    source: Source,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
    report: CorpusReport | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    id_field: str | None = None,
) -> Iterator[Document]:
    """Read the documents of a source one by one, in a fixed order.

    Args:
        source: a path to a folder, a file, a JSON, YAML (values as text), JSONL, CSV, TSV, XLSX or Parquet file, or a
            BEIR directory (``corpus.jsonl`` beside ``queries.jsonl`` or ``qrels/``; only the corpus is read); or an
            iterable of :class:`Document`, LangChain documents, LlamaIndex nodes, tools of either, functions, mappings
            with a text field, or strings. Records may be tool definitions too, as OpenAI, Anthropic or an MCP server
            (``{"tools": [...]}``) has them: the id of such a document is the tool's name. Of the JSON files in a folder
            those are read that hold tools and nothing else; there the id is ``tools/mail.json#send_mail``. Records of
            JSONL, CSV, TSV and XLSX files in a folder are named so, too, by their number where they have no id.
        max_file_bytes: files and records larger than this are skipped (default 10 MB). JSONL and Parquet files are
            streamed, so the limit holds for their records; JSON and YAML files may have ten times as much.
        report: receives the reasons of everything that is skipped.
        text_field: name of the field of records that holds their text, with dots between levels
            (``body.storage.value``); None looks where common systems have it.
        title_field: the same for the title.
        id_field: the same for the id.

    Yields:
        Documents with unique ids: paths relative to the folder with ``/``, ids of records, of those without one the
        ``source`` or path in their metadata. An id that came before gets a suffix made of title and text, as
        ``#2f6c01d9``, which stays the same when others come or go. LlamaIndex documents and nodes that nobody gave an
        id are named by what they were cut from or by their file, with ``#page=`` and its label where they have one.
        Such nodes, and LangChain documents that only their ``source`` names, are pieces of one document and share its
        id.

    Raises:
        CorpusError: if the path does not exist or the source is of no known kind.
    """
    fields = Fields(text_field, title_field, id_field)
    return open_source(source, max_file_bytes, CorpusReport() if report is None else report, fields)[0]


def open_source(
    source: Source, max_file_bytes: int, report: CorpusReport, fields: Fields = ANYWHERE
) -> tuple[Iterator[Document], int | None]:
    """The documents of a source and, where it is known beforehand, how many files or records they come from."""
    if isinstance(source, str | Path):
        documents, total = _open_path(Path(source).expanduser(), max_file_bytes, report, fields)
    elif isinstance(source, bytes | dict) or not isinstance(source, Iterable):
        raise CorpusError(
            f"A corpus cannot be read from a {type(source).__name__}; pass a path or an iterable of documents."
        )
    else:
        documents = item_documents(source, report, max_file_bytes, fields)
        total = len(source) if isinstance(source, Sized) else None
    return _unique(documents), total


def _open_path(
    path: Path, max_bytes: int, report: CorpusReport, fields: Fields
) -> tuple[Iterator[Document], int | None]:
    if not path.exists():
        raise CorpusError(
            f"{path} does not exist; give a folder, a file, a JSON, YAML, JSONL, CSV, TSV or Parquet file, or a BEIR "
            "directory."
        )
    if path.is_dir():
        corpus = path / "corpus.jsonl"
        if corpus.is_file() and _is_beir(path):
            return jsonl_documents(corpus, report, max_bytes, fields), _count_lines(corpus)
        files = list(walk_files(path, report))
        root = path.resolve()
        return _file_documents(files, root, report, max_bytes, fields), len(files)
    if not path.is_file():
        raise CorpusError(f"{path} is neither a folder nor a regular file.")
    suffix = path.suffix.lower()
    if suffix == ".json" or suffix in YAML_SUFFIXES:
        return json_documents(path, report, max_bytes, fields), None
    if suffix in TABLE_SUFFIXES:
        total = _count_lines(path) if suffix in DELIMITED_SUFFIXES else None
        return row_documents(path, report, max_bytes, fields), total
    if suffix in JSONL_SUFFIXES:
        return jsonl_documents(path, report, max_bytes, fields), _count_lines(path)
    if suffix in PARQUET_SUFFIXES:
        return parquet_documents(path, report, max_bytes, fields), None
    if format_of(path.name) is None:
        raise CorpusError(
            f"{path} is of an unsupported type; supported are Markdown, text, reST, HTML, PDF, notebooks, mails, "
            "office files (extra documents), source code, JSON, YAML, JSONL, CSV, TSV and Parquet."
        )
    return _file_documents([path], path.parent, report, max_bytes, fields), 1


def _is_beir(folder: Path) -> bool:
    others = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} - {"corpus.jsonl"}
    return not others or "queries.jsonl" in others or (folder / "qrels").is_dir()


def _file_documents(
    files: list[Path], root: Path, report: CorpusReport, max_bytes: int, fields: Fields
) -> Iterator[Document]:
    for path in files:
        name, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
        try:
            if suffix in JSONL_SUFFIXES and (path.parent / "corpus.jsonl").exists() and path.stem == "queries":
                report.skip("queries of a BEIR directory", name)
            elif suffix == ".tsv" and path.parent.name == "qrels":
                report.skip("judgements of a BEIR directory", name)
            elif suffix in JSONL_SUFFIXES:
                yield from file_records(path, name, report, max_bytes, fields)
            elif path.stat().st_size > max_bytes:
                report.skip(f"larger than {max_bytes:,} bytes", name)
            elif suffix in TABLE_SUFFIXES:
                yield from file_records(path, name, report, max_bytes, fields)
            elif suffix == ".json":
                yield from tools_of_file(path.read_bytes(), name)
            else:
                yield read_bytes(path.read_bytes(), name, report)
        except Unreadable as reason:
            report.skip(str(reason), name)
        except OSError as error:
            report.fail(error, name)


def _unique(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents with ids of their own, but for pieces of one: what bears one that came before is told apart by content.

    A number would change with every insertion, and an index embeds anew what has a new name.
    """
    seen: Counter[str] = Counter()
    cut: set[str] = set()  # documents that come in pieces
    for document in documents:
        name = document.id
        if document.is_piece and (name in cut or not seen[name]):
            cut.add(name)
        elif seen[name]:
            name = f"{name}#{chunk_id(document.id, document.text, document.title)[:_SUFFIX]}"
        seen[name] += 1
        if seen[name] > 1 and name not in cut:
            name = f"{name}#{seen[name]}"
        yield document if name == document.id else replace(document, id=name, is_piece=False)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(1 << 20), b"")
        return sum(block.count(b"\n") for block in chain(blocks))
