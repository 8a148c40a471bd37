"""Where records of common systems keep their text, title and id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from revela_rag.corpus.types import TEXT_FIELDS

__all__ = ["ANYWHERE", "Fields", "Found", "find_fields", "listed_records", "named"]

#: After those of :data:`TEXT_FIELDS`: papers, questions, tickets, articles, web pages, chats.
_TEXTS = (
    *TEXT_FIELDS,
    *("abstract", "article", "passage", "context", "answer", "answers", "description", "html", "markdown"),
    *("body_html", "body_text", "content_html", "selftext", "transcript", "message", "response", "output", "solution"),
    *("completion", "summary", "details", "notes", "comment", "contents", "document", "plaintext"),
    *("messages", "conversations"),
)
_TITLES = ("title", "subject", "question", "headline", "name", "heading", "summary", "prompt", "instruction")
_IDS = ("id", "_id")
_LATER_IDS = ("doc_id", "docid", "document_id", "uuid", "key")
#: What a system puts around the fields of a record.
_AROUND = ("fields", "_source", "attributes", "properties", "data", "node", "record", "doc", "document", "page")
#: Under which keys the value of a field may be an object: Confluence, WordPress, rich text.
_INSIDE = ("storage", "view", "export_view", "rendered", "value", "plain", "raw", *TEXT_FIELDS, "markdown", "html")
#: Under which keys answers of services and exports list their records.
_LISTED = (
    *("items", "results", "records", "documents", "docs", "data", "rows", "entries", "hits", "articles", "pages"),
    *("posts", "tickets", "issues", "questions"),
)
_FOLLOW = ("comments", "answers", "replies")
_DEEPEST, _MOST = 5, 100_000
_FEWEST_WORDS = 8  # of a field of another name that is taken for the text, where there is a title


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of records, with dots between the levels (``body.storage.value``); None finds them."""

    text: str | None = None
    title: str | None = None
    id: str | None = None


#: Where common systems have them.
ANYWHERE = Fields()


@dataclass(slots=True)
class Found:
    """What a record says, and the names of its own fields that were used for it."""

    text: str = ""
    title: str = ""
    id: Any = None
    later_id: Any = None
    used: set[str] = field(default_factory=set)


def find_fields(record: Mapping[str, Any], fields: Fields) -> Found:
    """The text, title and id of a record: in the fields that are named, else where common systems have them.

    Names count in capitals or not. A field may hold a list of texts, or an object that holds the text. Where the text
    has a name of this library's own, nothing else of the record is text.
    """
    inner: Mapping[str, Any] = _Lower(record)
    around: list[str] = []
    found = _find(inner, fields)
    for _ in range(2):
        key = None if found.text else next((key for key in _AROUND if isinstance(inner.get(key), Mapping)), None)
        if key is None:
            break
        inner = _lower(inner[key])
        around.append(key)
        below = _find(inner, fields)
        if below.text or (below.title and not found.title):
            outer, found = found, below
            found.used = {around[0], *outer.used}
            found.id, found.later_id = outer.id or found.id, outer.later_id or found.later_id
            found.title = found.title or outer.title
    if not found.text and found.title and fields.text is None:
        _longest(record, found)
    found.used = {key for key in record if isinstance(key, str) and key.lower() in found.used}
    return found


def listed_records(value: Any, depth: int = 1) -> Any:
    """The records that an object lists, as the answer of a service does; what lists none is returned as it is.

    Those of Elasticsearch are the hits of its hits, hence ``depth``.
    """
    if not isinstance(value, Mapping):
        return value
    itself = find_fields(value, ANYWHERE)
    if itself.text and (itself.title or not value.keys().isdisjoint(TEXT_FIELDS)):
        return value
    found = [value[key] for key in _LISTED if isinstance(value.get(key), list | Mapping) and value[key]]
    if len(found) != 1:
        return value
    inside = found[0] if isinstance(found[0], list) or not depth else listed_records(found[0], depth - 1)
    return inside if isinstance(inside, list) and all(isinstance(entry, Mapping) for entry in inside) else value


def named(record: Mapping[Any, Any]) -> str:
    """The names of the fields of a record, for a report."""
    names = [str(key)[:40] for key in record][:12]
    return f"{', '.join(names)}{', …' if len(record) > len(names) else ''}" or "none"


def _find(record: Mapping[str, Any], fields: Fields) -> Found:
    record, found = _lower(record), Found()
    for key in (fields.id,) if fields.id else _IDS:
        if found.id in (None, "") and (value := _path(record, key)) not in (None, ""):
            found.id = value
            found.used.add(key.lower().split(".")[0])
    found.later_id = next((value for key in _LATER_IDS if _is_name(value := record.get(key))), None)
    for key in (fields.text,) if fields.text else filter(record.__contains__, _TEXTS):
        found.text = _text(_path(record, key))
        if found.text:
            found.used.add(key.lower().split(".")[0])
            break
    for key in (fields.title,) if fields.title else filter(record.__contains__, _TITLES):
        title = _path(record, key)
        title = title.get("rendered") if isinstance(title, Mapping) else title
        if isinstance(title, str) and title.strip() and key.lower() not in found.used:
            found.title = title
            found.used.add(key.lower().split(".")[0])
            break
    if not fields.text and found.used.isdisjoint(TEXT_FIELDS):
        _add(record, found)
    found.used |= {*_IDS, "title"} if not fields.title else set(_IDS)
    return found


def _add(record: Mapping[str, Any], found: Found) -> None:
    """What belongs to a text of a foreign system: the question before an answer, the comments behind a ticket."""
    question = _at(record, "question")
    if isinstance(question, str) and "question" not in found.used and "answer" in found.used:
        found.text = f"{question.strip()}\n\n{found.text}"
        found.used.add("question")
    for key in filter(record.__contains__, _FOLLOW):
        entries = _at(record, key)
        if found.text and isinstance(entries, list) and key not in found.used:
            said = [_text(entry) for entry in entries if isinstance(entry, Mapping)]
            found.text = "\n\n".join([found.text, *filter(None, said)])
            found.used.add(key)


def _longest(record: Mapping[str, Any], found: Found) -> None:
    texts = [
        (len(value.split()), key)
        for key, value in record.items()
        if isinstance(value, str) and isinstance(key, str) and key.lower() not in found.used
    ]
    words, key = max(texts, default=(0, ""))
    if words >= _FEWEST_WORDS:
        found.text = record[key]
        found.used.add(key.lower())


class _Lower(dict[str, Any]):
    """A record under its names in small letters; where two are one but for their capitals the small one counts."""

    def __init__(self, record: Mapping[Any, Any]) -> None:
        super().__init__((key.lower(), value) for key, value in record.items() if isinstance(key, str))
        self.update((key, value) for key, value in record.items() if isinstance(key, str) and key.islower())


def _at(record: Mapping[Any, Any], key: str) -> Any:
    """The value under a key, else under one that differs in its capitals only."""
    return _lower(record).get(key.lower())


def _lower(record: Mapping[Any, Any]) -> _Lower:
    return record if isinstance(record, _Lower) else _Lower(record)


def _path(record: Mapping[Any, Any], path: str) -> Any:
    """The value under a name; one with dots names levels, unless the record has it as it is."""
    value = _at(record, path)
    if value is not None or "." not in path:
        return value
    value = record
    for key in path.split("."):
        value = _at(value, key) if isinstance(value, Mapping) else None
    return value


def _text(value: Any, depth: int = _DEEPEST) -> str:
    """The text that the value of a field holds, or an empty string."""
    if isinstance(value, str):
        return value if value.strip() else ""
    if not depth:
        return ""
    if isinstance(value, list | tuple):
        return "\n\n".join(text for entry in value[:1000] if (text := _text(entry, depth - 1)))
    if isinstance(value, Mapping):
        if value.get("type") == "doc":
            return _rich_text(value)
        return next((text for key in _INSIDE if (text := _text(_at(value, key), depth - 1))), "")
    return ""


def _rich_text(document: Mapping[str, Any]) -> str:
    """The text of a document of Atlassian's editor: a tree whose leaves are texts."""
    blocks: list[str] = [""]
    for node, is_block in _nodes(document):
        if is_block and blocks[-1]:
            blocks.append("")
        if isinstance(text := node.get("text"), str):
            blocks[-1] += text
    return "\n\n".join(block for block in blocks if block.strip())


def _nodes(document: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    stack: list[Any] = [document]
    for _ in range(_MOST):
        if not stack:
            return
        node = stack.pop()
        if isinstance(node, Mapping):
            inside = node.get("content")
            yield node, isinstance(inside, list)
            stack.extend(reversed(inside if isinstance(inside, list) else []))


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and value != "" and not isinstance(value, bool)
