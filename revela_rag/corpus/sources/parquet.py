"""Parquet files, one document a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from revela_rag.corpus.report import CorpusReport
from revela_rag.corpus.sources.records import no_text, record_document
from revela_rag.corpus.sources.shapes import ANYWHERE, Fields, find_fields
from revela_rag.corpus.types import TEXT_FIELDS, Document
from revela_rag.errors import CorpusError, MissingExtraError

__all__ = ["PARQUET_SUFFIXES", "parquet_documents"]

PARQUET_SUFFIXES = (".parquet", ".pq")


def parquet_documents(
    path: Path, report: CorpusReport, max_bytes: int, fields: Fields = ANYWHERE
) -> Iterator[Document]:
    """Documents of a Parquet file, one per row, columns named as JSONL fields.

    Raises:
        MissingExtraError: without pyarrow.
        CorpusError: if the file is broken, at its beginning or further on, or has no text column.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "reading Parquet files") from error
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
    except Exception as error:  # pyarrow's errors share no base class
        raise CorpusError(f"{path} is not a readable Parquet file: {error}") from error
    if not find_fields(dict.fromkeys(names, "text of some words in a row, to see whether it is found"), fields).text:
        wanted = f"no column {fields.text!r}" if fields.text else "no text column"
        raise CorpusError(
            f"{path} has {wanted}; name it with text_field, or call it one of {', '.join(TEXT_FIELDS)}; "
            f"found {', '.join(names)}."
        )
    number = 0
    for batch in _batches(file, path):
        for row in _rows(batch):
            number += 1
            where = f"{path.name}:{number}"
            if isinstance(row, Exception):
                report.skip(f"row with a value that cannot be read ({type(row).__name__})", where)
                continue
            document = record_document(row, where, report, fields)
            if document is None:
                report.skip(no_text(row, fields), where)
            elif len(document.text) > max_bytes:
                report.skip(f"record larger than {max_bytes:,} bytes", document.id)
            else:
                yield document


def _batches(file: Any, path: Path) -> Iterator[Any]:
    done, batches = 0, file.iter_batches(batch_size=1024)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            raise CorpusError(
                f"{path} is damaged or cannot be read beyond row {done}: {error}. Write the file again."
            ) from error
        if batch is None:
            return
        yield batch
        done += batch.num_rows


def _rows(batch: Any) -> list[Any]:
    """The rows of a batch, with an error in place of every row that has a value Python cannot hold."""
    try:
        return _in_microseconds(batch).to_pylist()
    except Exception as error:
        if batch.num_rows == 1:
            return [error]
    return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]


def _in_microseconds(batch: Any) -> Any:
    """The same with times to the microsecond: Python's have no nanoseconds."""
    import pyarrow

    fields = []
    for field in batch.schema:
        nanoseconds = pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns"
        fields.append(field.with_type(pyarrow.timestamp("us", field.type.tz)) if nanoseconds else field)
    return pyarrow.Table.from_batches([batch]).cast(pyarrow.schema(fields), safe=False)
