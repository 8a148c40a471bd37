"""The tools as frameworks and protocols want them: a name, a description, a schema, and a call that gives text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from revela_rag.agent.corpus_tools import CorpusTools, Result
from revela_rag.agent.shown import shown
from revela_rag.errors import IndexingError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["AgentTool", "agent_tools"]

_NAMES = ("search", "grep", "read", "list", "neighbours")
_NAMES_OF_TOOLS = ("find_tools", "grep", "read", "list")  # where definitions of tools are what is indexed
_SECTION = re.compile(r"^(Args|Returns|Raises):$", re.M)
_ARGUMENT = re.compile(r"^(\w+): ((?:.|\n(?!\w+: ))+)", re.M)
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class AgentTool:
    """One tool.

    Attributes:
        name: what the model calls it.
        description: tells the model what it does and when to use it.
        arguments: a pydantic model of its arguments, with what is said of each.
        run: the method of :class:`CorpusTools`.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[..., Result]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return self.arguments.model_json_schema()

    def call(self, arguments: Mapping[str, Any]) -> tuple[str, Result]:
        """Run it.

        Returns:
            The result as a model reads it best, and as plain JSON.

        Raises:
            IndexingError: the arguments do not fit, or as the method says.
        """
        from pydantic import ValidationError

        try:
            checked = self.arguments.model_validate(dict(arguments))
        except ValidationError as error:
            raise IndexingError(self.refusal(error)) from error
        result = self.run(**{name: getattr(checked, name) for name in type(checked).model_fields})
        return shown(result), result

    def refusal(self, error: ValidationError | Any) -> str:
        """What to tell a model whose arguments do not fit."""
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return f"The arguments of {self.name} do not fit: {said}."


def agent_tools(tools: CorpusTools, *, prefix: str = "", about: str = "") -> list[AgentTool]:
    """The tools over an index: ``search``, ``grep``, ``read``, ``list`` and ``neighbours``.

    An index of tool definitions has ``find_tools`` in place of ``search``, and no ``neighbours``.

    Args:
        tools: what they call.
        prefix: stands before the names, as in ``docs_search``, to tell several indexes apart.
        about: what the index holds, for the descriptions: "the handbook of ACME".

    Raises:
        IndexingError: the prefix has other characters than letters, digits, ``_`` and ``-``.
    """
    if prefix and not _PREFIX.fullmatch(prefix):
        raise IndexingError(f"The prefix {prefix!r} must be 1 to 40 letters, digits, _ or -.")
    names = _NAMES_OF_TOOLS if tools.has_tools else _NAMES
    return [_tool(getattr(tools, name), f"{prefix}_{name}" if prefix else name, about) for name in names]


def _tool(method: Callable[..., Result], name: str, about: str) -> AgentTool:
    from pydantic import ConfigDict, Field, create_model

    text, arguments = _documented(method)
    hints = get_type_hints(method)
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            Field(
                ... if parameter.default is inspect.Parameter.empty else parameter.default,
                description=arguments[parameter.name],
            ),
        )
        for parameter in inspect.signature(method).parameters.values()
    }
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    return AgentTool(name, f"{text} The corpus: {about}." if about else text, model, method)


def _documented(method: Callable[..., Result]) -> tuple[str, dict[str, str]]:
    """What the docstring of a method says to a model, and of each argument."""
    doc = inspect.getdoc(method) or ""
    text, *sections = _SECTION.split(doc)
    listed = dict(zip(sections[::2], sections[1::2], strict=True)).get("Args", "")
    said = {name: " ".join(about.split()) for name, about in _ARGUMENT.findall(inspect.cleandoc(listed))}
    return " ".join(text.split()), said
