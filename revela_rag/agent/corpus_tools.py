"""What an agent can do with the texts of an index: search, grep, read, list, and look around."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from revela_rag.agent.grep import MOST_LINES, grep
from revela_rag.agent.outline import Outline
from revela_rag.agent.patterns import Pattern
from revela_rag.agent.segments import segments
from revela_rag.agent.view import View
from revela_rag.corpus.place import place_in_file
from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index import Index, Mode
from revela_rag.index.filters import parse_filter
from revela_rag.index.snapshot import Snapshot
from revela_rag.index.types import check_k, check_mode

__all__ = ["CorpusTools", "Result"]

Found = TypeVar("Found")
#: Plain JSON. ``notes``, where it is there, says what was cut, and how to get the rest.
Result = dict[str, Any]
Rows = list[Result]
Notes = list[str]
Filter = Mapping[str, Any]

_MOST_HITS, _MOST_LISTED, _MOST_AROUND = 50, 1000, 20
_FEWEST_CHARACTERS = 200  # of one text, however many there are
_LONGEST_VALUE = 100  # characters of a value of the metadata
_OF_PASSAGES = frozenset({"source", "start_line", "end_line", "page", "slide", "cell", "row", "symbol"})


class CorpusTools:
    """Tools over the texts of an index, for agents that look around in a corpus as well as search it.

    They read the index alone: no file is opened, nothing is run, nothing is written. Every result is plain JSON of
    bounded size, and every error a sentence that says what to do instead. What others write to the index is seen by the
    next call. Threads may share one.

    Args:
        index: an index, or its directory.
        max_characters: of text in a result.
        mode: how to search, see :meth:`revela_rag.Index.search`.
        seconds: how long ``grep`` looks before it gives what it has.

    Raises:
        IndexingError: there is no index, the mode has another name, or a number is out of range.
    """

    def __init__(
        self,
        index: Index | str | Path,
        *,
        max_characters: int = 20_000,
        mode: Mode = "auto",
        seconds: float = 10.0,
    ) -> None:
        check_mode(mode)
        check_k(max_characters, "max_characters")
        self.index = index if isinstance(index, Index) else Index.open(index)
        self.max_characters = max_characters
        self.mode: Mode = mode
        self.seconds = seconds
        self._view: tuple[str, View] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_view": None}

    @property
    def has_tools(self) -> bool:
        """Whether what is indexed are definitions of tools, and nothing else."""
        named = parse_filter({"tool": {"$exists": True}})
        return self._look(lambda view: named is not None and 0 < view.count == len(view.texts.select(named)))

    def search(self, query: str, k: int = 8, filter: Filter | None = None) -> Result:
        """Find the passages that answer a question or fit a description, best first, by meaning and by words.

        Start here when you do not know how the corpus says it; use grep for exact names, and read to see more of a
        document around the lines of a hit.

        Args:
            query: what to look for, in plain words: a question, a description, or keywords.
            k: how many passages, at most 50.
            filter: metadata that passages must have, such as {"language": "python"} or {"year": {"$gte": 2020}}; a
                list means any of its values.

        Returns:
            ``hits``: ``id``, ``document``, ``source``, ``lines``, ``title``, ``score``, ``cosine`` and ``text``.

        Raises:
            IndexingError: the query is empty, or the filter cannot be used.
        """
        if not query.strip():
            raise IndexingError("The query is empty; say what to look for.")
        notes: Notes = []
        k = _at_most("k", k, _MOST_HITS, notes)
        hits = self.index.search(query, k=k, filter=filter, mode=self.mode)
        spans = self._look(lambda view: [view.span(hit.chunk) for hit in hits])
        found = [
            {
                "id": hit.chunk.id,
                "document": hit.chunk.document_id,
                "source": str(hit.chunk.metadata.get("source", hit.chunk.document_id)),
                "lines": None if span is None else [*span],
                **({"place": inside} if (inside := place_in_file(hit.chunk)) else {}),
                "title": hit.chunk.title,
                "score": round(hit.score, 4),
                "cosine": None if hit.cosine is None else round(hit.cosine, 4),
                "text": hit.chunk.text,
            }
            for hit, span in zip(hits, spans, strict=True)
        ]
        shown = self._clipped(found, "read the lines of a hit to see the rest", notes)
        if not shown:
            notes.append("Nothing found; try other words, or without the filter." if filter else "Nothing found.")
        return _result({"query": query, "hits": shown}, notes)

    def find_tools(self, request: str, k: int = 5) -> Result:
        """Find the tools that fit a request, best first, with what they do and which parameters they take.

        Args:
            request: what shall be done, in plain words.
            k: how many tools, at most 50.

        Returns:
            ``tools``: ``name``, ``score`` and ``text``.

        Raises:
            IndexingError: the request is empty.
        """
        if not request.strip():
            raise IndexingError("The request is empty; say what shall be done.")
        notes: Notes = []
        k = _at_most("k", k, _MOST_HITS, notes)
        scores: dict[str, float] = {}
        wanted = k
        while len(scores) < k:  # a tool with a long description has several chunks
            hits = self.index.search(request, k=wanted, mode=self.mode)
            for hit in hits:
                scores.setdefault(hit.chunk.document_id, hit.score)
            if len(hits) < wanted:
                break
            wanted *= 2

        def look(view: View) -> Rows:
            best = [(name, score) for name, score in scores.items() if name in view.outline.entries][:k]
            return [_tool(view.chunks(name), score) for name, score in best]

        shown = self._clipped(self._look(look), "read a tool by its name to see the rest", notes)
        return _result({"request": request, "tools": shown}, notes)

    def grep(
        self,
        pattern: str,
        path: str = "",
        filter: Filter | None = None,
        ignore_case: bool = False,
        limit: int = 50,
    ) -> Result:
        r"""Find the lines of the stored texts that a regular expression matches, with their line numbers.

        For exact names, numbers, error messages and the like. Patterns are RE2's and match within lines. Text that was
        not indexed (imports, licences, headings, which are titles) is not found.

        Args:
            pattern: a regular expression, such as "def parse_\w+" or "timeout.{0,20}ms".
            path: only in documents whose name begins so, or matches a pattern such as "docs/*.md".
            filter: metadata that passages must have, such as {"language": "python"} or {"year": {"$gte": 2020}}; a
                list means any of its values.
            ignore_case: whether capital and small letters are the same.
            limit: how many lines, at most 500.

        Returns:
            ``matches``: ``document``, ``line`` (None where only ``lines``, those of the passage, are known), ``id`` of
            the passage and ``text``.

        Raises:
            IndexingError: the pattern is no regular expression, the filter cannot be used, no document has the path.
            MissingExtraError: google-re2 is not installed.
        """
        compiled = Pattern(pattern, ignore_case=ignore_case)
        condition = parse_filter(filter)
        given: Notes = []
        limit = _at_most("limit", limit, MOST_LINES, given)

        def look(view: View) -> Result:
            notes = [*given]
            rows = view.rows(path, condition)
            found = grep(view, compiled, rows, limit=limit, seconds=self.seconds, notes=notes)
            matches = _fitting(found, self.max_characters, notes)
            if not matches and ("\n" in pattern or "\\n" in pattern):
                notes.append("Patterns match within lines; look for one of the lines alone.")
            elif not matches and not notes:
                notes.append("Nothing matches." + ("" if ignore_case else " Try with ignore_case, or search."))
            return _result({"pattern": pattern, "matches": matches}, notes)

        return self._look(look)

    def read(self, document: str, start_line: int = 1, end_line: int | None = None) -> Result:
        """Read a document, or the lines around a hit, put together from its passages.

        Line numbers are those of the source where the index knows them. Lines that are missing were not indexed: blank
        ones, headings (they are titles), imports, licences.

        Args:
            document: its name, as search, grep and list give it.
            start_line: the first line, from 1.
            end_line: the last line; without it, as far as fits.

        Returns:
            ``segments``: ``start_line``, ``end_line``, ``title``, ``ids`` of the passages, ``text``, and ``whole``,
            False where lines inside were left out when the passage was made. ``last_line`` is the document's.

        Raises:
            IndexingError: there is no such document, or no such lines.
        """
        check_k(start_line, "start_line")
        last = end_line if end_line is not None else 2**62
        if last < start_line:
            raise IndexingError(f"end_line={end_line} is before start_line={start_line}.")

        def look(view: View) -> Result:
            placed, of_source = view.placed(document)
            end = max(each.last for each in placed)
            if start_line > end:
                raise IndexingError(f"{document!r} ends with line {end}; start_line={start_line} is behind it.")
            notes: Notes = []
            found = segments(placed, start_line, last, room=self.max_characters, notes=notes)
            if not of_source:
                notes.append("Lines are counted in the stored texts; the source has no lines, or they are not known.")
            if not found:
                notes.append(f"Nothing is stored of these lines; the document has lines 1 to {end}.")
            about = {"document": document, "chunks": len(placed), "last_line": end}
            return _result({**about, "segments": found}, notes)

        return self._look(look)

    def list(self, path: str = "", filter: Filter | None = None, limit: int = 100, offset: int = 0) -> Result:
        """List the documents of the corpus by name, with how many passages each has, and the metadata to filter by.

        Args:
            path: only documents whose name begins so, or matches a pattern such as "docs/*.md".
            filter: metadata that a document must have, such as {"language": "python"} or {"year": {"$gte": 2020}}; a
                list means any of its values.
            limit: how many documents, at most 1000.
            offset: how many to pass over, to see those after the first.

        Returns:
            ``documents``: ``document``, ``chunks`` and ``metadata``; ``total`` is how many there are.

        Raises:
            IndexingError: the filter cannot be used, or no document has the path.
        """
        condition = parse_filter(filter)
        given: Notes = []
        limit = _at_most("limit", limit, _MOST_LISTED, given)
        if offset < 0:
            raise IndexingError(f"offset={offset} must be at least 0.")

        def look(view: View) -> Result:
            notes = [*given]
            entries = view.outline.entries
            counts = {name: len(entries[name].rows) for name in view.outline.under(path)}
            if condition is not None:
                able = set(view.texts.select(condition).tolist())
                kept = {name: sum(row in able for row in entries[name].rows) for name in counts}
                counts = {name: count for name, count in kept.items() if count}
            firsts = {name: entries[name].rows[0] for name in [*counts][offset : offset + limit]}
            chunks = view.texts.chunks([*firsts.values()])
            found = (
                {"document": name, "chunks": counts[name], "metadata": _metadata(chunks[row])}
                for name, row in firsts.items()
            )
            shown = _fitting(found, self.max_characters, notes)
            if (end := offset + len(shown)) < len(counts):
                notes.append(f"{len(counts) - end} more; go on with offset={end}, or narrow the path.")
            return _result({"documents": shown, "total": len(counts)}, notes)

        return self._look(look)

    def neighbours(self, chunk_id: str, before: int = 1, after: int = 1) -> Result:
        """Show a passage with those before and after it in its document.

        Args:
            chunk_id: the id of a passage, as search, grep and read give it.
            before: how many passages before it, at most 20.
            after: how many passages after it, at most 20.

        Returns:
            ``document`` and ``passages``: ``id``, ``lines``, ``title`` and ``text``.

        Raises:
            IndexingError: there is no passage of this id.
        """
        given: Notes = []
        before = _at_most("before", before, _MOST_AROUND, given, least=0)
        after = _at_most("after", after, _MOST_AROUND, given, least=0)

        def look(view: View) -> Result:
            notes = [*given]
            found = view.texts.get([chunk_id])
            if not found:
                raise IndexingError(f"There is no passage {chunk_id!r}; take an id from search, grep or read.")
            document = found[0].document_id
            placed = view.placed(document)[0]
            here = placed.index(view.place_of(found[0]))
            near = [
                {
                    "id": each.chunk.id,
                    "lines": [each.first, each.last],
                    "title": each.chunk.title,
                    "text": each.chunk.text,
                }
                for each in placed[max(here - before, 0) : here + after + 1]
            ]
            shown = self._clipped(near, "ask for fewer, or read their lines", notes)
            return _result({"document": document, "passages": shown}, notes)

        return self._look(look)

    # -- inside ------------------------------------------------------------------------------------------------

    def _look(self, look: Callable[[View], Found]) -> Found:
        """Look at what the index holds now."""

        def at(snapshot: Snapshot) -> Found:
            held = self._view
            if held is None or held[0] != snapshot.manifest.generation:
                outline = Outline(snapshot.texts.places())
                held = self._view = (snapshot.manifest.generation, View(snapshot, outline))
            return look(held[1])

        return self.index._read(at)

    def _clipped(self, rows: Rows, remedy: str, notes: Notes) -> Rows:
        """Rows whose texts share the room there is."""
        room = max(self.max_characters // max(len(rows), 1), _FEWEST_CHARACTERS)
        if any(len(row["text"]) > room for row in rows):
            notes.append(f"Texts are cut after {room} characters; {remedy}.")
        return [{**row, "text": row["text"][:room]} for row in rows]


def _at_most(name: str, value: int, most: int, notes: Notes, *, least: int = 1) -> int:
    """A number within its bounds; one that is too large becomes the largest, and a note says so."""
    if value < least:
        raise IndexingError(f"{name}={value} must be at least {least}.")
    if value > most:
        notes.append(f"{name}={value} is more than can be given; {most} is used.")
    return min(value, most)


def _result(found: Result, notes: Sequence[str]) -> Result:
    return {**found, "notes": [*notes]} if notes else found


def _tool(chunks: Sequence[Chunk], score: float) -> Result:
    text = "\n".join(chunk.text for chunk in chunks)
    return {"name": chunks[0].metadata.get("tool", chunks[0].document_id), "score": round(score, 4), "text": text}


def _fitting(rows: Iterator[Result], room: int, notes: Notes) -> Rows:
    """As many rows as fit into some characters, at least one."""
    kept: Rows = []
    for row in rows:
        room -= sum(len(str(value)) for value in row.values())
        if kept and room < 0:
            notes.append(f"Only {len(kept)} fit; narrow the path or the filter to see others.")
            break
        kept.append(row)
    return kept


def _metadata(chunk: Chunk) -> dict[str, Any]:
    """What a filter can ask for in every chunk of a document."""
    able = {key: value for key, value in chunk.metadata.items() if key not in _OF_PASSAGES}
    return {key: value for key, value in able.items() if len(str(value)) <= _LONGEST_VALUE}
