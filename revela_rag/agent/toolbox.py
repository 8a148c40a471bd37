"""Tools by name, of which those are picked that fit a request."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from revela_rag.corpus.tools.definitions import describe_tool
from revela_rag.errors import IndexingError
from revela_rag.index import Mode
from revela_rag.ranker import Ranker

if TYPE_CHECKING:
    from revela_rag.evaluation import Evaluation
    from revela_rag.model.encoder import Encoder

__all__ = ["Entry", "Toolbox", "namespaced", "shown"]

Tool = TypeVar("Tool")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Entry(Generic[Tool]):
    """A tool and what it is.

    Attributes:
        tool: of some framework.
        definition: its name, description and parameters.
    """

    tool: Tool
    definition: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What an agent calls it."""
        return str(self.definition["name"])

    @property
    def id(self) -> str:
        """The SHA-256 of its definition."""
        return hashlib.sha256(json.dumps(self.definition, sort_keys=True).encode()).hexdigest()


def namespaced(name: str, namespace: str) -> str:
    """The name of a tool of a namespace: ``github_search``.

    Raises:
        IndexingError: the namespace has other characters than letters, digits, ``_`` and ``-``.
    """
    if not namespace:
        return name
    if not _NAMESPACE.fullmatch(namespace):
        raise IndexingError(f"The namespace {namespace!r} must be 1 to 40 letters, digits, _ or -.")
    return f"{namespace}_{name}"


def shown(given: Any) -> str:
    """What was given, for an error's message: its first hundred characters."""
    text = repr(given)
    return text if len(text) <= 100 else f"{text[:100]}..."


class Toolbox(Generic[Tool]):
    """Tools in memory, ranked for a request; threads may pick some while others add and remove.

    Args:
        model: model that embeds tools and requests.
        mode: see :class:`revela_rag.ranker.Ranker`.
    """

    def __init__(self, *, model: str | Path | Encoder, mode: Mode) -> None:
        self.ranker = Ranker(model=model, mode=mode)
        self._tools: dict[str, Tool] = {}  # by id
        self._named: dict[str, str] = {}  # the id of the tool of each name
        self._namespaces: dict[str, str] = {}  # of each name
        self._changing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_changing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changing=threading.Lock())

    def __len__(self) -> int:
        return len(self.ranker)

    @property
    def registry(self) -> dict[str, Tool]:
        """Every tool by its name."""
        named, tools = self._named, self._tools
        return {name: tools[id_] for name, id_ in named.items() if id_ in tools}

    def add(self, entries: Sequence[Entry[Tool]], *, replace: bool = False, namespace: str = "") -> list[str]:
        """Add tools, embedding those that are new, and give the id of each.

        Raises:
            IndexingError: two tools have one name, and ``replace`` does not say that the new one takes the place.
        """
        ids = [entry.id for entry in entries]
        with self._changing:
            named = dict(self._named)
            given: dict[str, str] = {}
            for id_, entry in zip(ids, entries, strict=True):
                if given.setdefault(entry.name, id_) != id_:
                    raise _same_name(entry.name, here=False)
                if named.get(entry.name, id_) != id_ and not replace:
                    raise _same_name(entry.name, here=True)
                named[entry.name] = id_
            gone = {self._named[name] for name in given if self._named.get(name, given[name]) != given[name]}
            held, new = self._tools, {id_: entry.tool for id_, entry in zip(ids, entries, strict=True)}
            # first: searches look up what the ranker finds
            self._tools = {**held, **new} if replace else {**new, **held}
            texts = {id_: describe_tool(entry.definition) for id_, entry in zip(ids, entries, strict=True)}
            try:
                self.ranker.add(texts, without=gone)
            except BaseException:
                self._tools = held
                raise
            self._named = named
            self._namespaces |= dict.fromkeys(given, namespace)
            self._tools = {id_: tool for id_, tool in self._tools.items() if id_ not in gone}
        return ids

    def remove(self, names: Iterable[str] = (), *, namespace: str | None = None) -> int:
        """Remove tools by name, passing over unknown ones, and all of a namespace; gives how many were removed."""
        if isinstance(names, str):
            raise IndexingError(f"names is one string, {names!r}; pass a list of names.")
        with self._changing:
            wanted = {*names, *(name for name, its in self._namespaces.items() if namespace and its == namespace)}
            gone = {name: id_ for name in wanted if (id_ := self._named.get(name)) is not None}
            self.ranker.remove(gone.values())  # first: what it finds must have its tool
            self._tools = {id_: tool for id_, tool in self._tools.items() if id_ not in gone.values()}
            self._named = {name: id_ for name, id_ in self._named.items() if name not in gone}
            self._namespaces = {name: its for name, its in self._namespaces.items() if name not in gone}
        return len(gone)

    def search(self, query: str, k: int) -> list[tuple[Tool, float]]:
        """The best ``k`` tools, best first, with their scores."""
        before = self._tools
        found = self.ranker.search(query, k)
        tools = before | self._tools  # one may have been added or removed meanwhile
        return [(tools[id_], score) for id_, score in found if id_ in tools]

    def evaluate(self, needed: Mapping[str, Iterable[str]], *, k: int, name: str) -> Evaluation:
        """How many of the tools that requests need are among the first: nDCG, recall, MRR and All@k.

        Raises:
            IndexingError: a tool that is needed is not here.
        """
        from revela_rag.evaluation import score_run

        named = self._named
        missing = sorted({tool for tools in needed.values() for tool in tools if tool not in named})
        if missing:
            raise IndexingError(f"{missing[:5]} are needed, but there are no such tools; add them first.")
        names = {id_: tool for tool, id_ in named.items()}
        depth = max(k, 100)
        run = {
            query: {names[id_]: score for id_, score in self.ranker.search(query, depth) if id_ in names}
            for query in needed
        }
        qrels = {query: dict.fromkeys(tools, 1) for query, tools in needed.items()}
        return score_run(run, qrels, name=name, all_at=(k,))


def _same_name(name: str, *, here: bool) -> IndexingError:
    if here:
        remedy = (
            "one is here already, with another schema; add it with replace=True where it takes the place, with a "
            "namespace where it is another server's"
        )
    else:
        remedy = "an agent calls tools by name, so give each its own"
    return IndexingError(f"Two tools are called {name!r}; {remedy}.")
