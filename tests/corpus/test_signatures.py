"""A function, and what LangChain and LlamaIndex make of it, give one text."""

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from langchain_core.tools import tool as langchain_tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from langchain_revela.tool import _schema
from revela_rag.corpus import iter_documents
from revela_rag.corpus.tools.definitions import describe_tool
from revela_rag.corpus.tools.signatures import parameters_of


class Unit(Enum):
    celsius = "C"
    kelvin = "K"


class Place(BaseModel):
    """A place."""

    lat: float = Field(description="Latitude.")
    near: list["Place"] = []


def forecast(
    city: str,
    days: int = 3,
    chance: float = 0.5,
    detailed: bool = False,
    unit: Literal["C", "K"] = "C",
    tags: list[str] | None = None,
    more: Optional[dict[str, Any]] = None,  # noqa: UP045
) -> str:
    """Weather of a city.

    Args:
        city: Name of a city.
    """
    return city


def marine(place: Place, unit: Unit, note: Annotated[str, "A note."] = "", size: int | str = 1, any: Any = 0) -> str:
    """Weather at sea."""
    return note


FORECAST = (
    "Weather of a city.\n\nArgs:\n    city: Name of a city.\nParameters: city (string); days (integer); "
    "chance (number); detailed (boolean); unit (string): one of C, K; tags (array); more (object)"
)
MARINE = (
    "Weather at sea.\nParameters: place (object): A place.; place.lat (number): Latitude.; place.near (array); "
    "place.near.lat (number): Latitude.; place.near.near (array); unit (string): one of C, K; note (string): A note.; "
    "size (integer/string); any"
)


@pytest.mark.parametrize(("function", "text"), [(forecast, FORECAST), (marine, MARINE)])
def test_a_tool_reads_the_same_whichever_way_it_comes(function: Any, text: str) -> None:
    forms = [function, langchain_tool(function), FunctionTool.from_defaults(function)]
    assert [document.text for document in iter_documents(forms)] == [text] * 3
    for form in forms[:2]:
        assert describe_tool(_schema(form)) == f"{function.__name__}\n{text}"
    assert convert_to_openai_tool(function)["function"]["parameters"]["properties"].keys() == (
        parameters_of(function)["properties"].keys()
    )


def test_what_json_has_no_type_for_stands_as_it_is_written() -> None:
    def odd(type: "Missing", n: "int", *args: int, **rest: str) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    assert parameters_of(odd)["properties"] == {
        "type": {"type": "Missing"},
        "n": {"type": "integer"},
        "args": {"type": "array"},
        "rest": {"type": "object"},
    }

    def known(
        path: Path, each: Iterable[int], some: Sequence[Unit], where: slice, mixed: Literal[1, "a"], bare
    ) -> None:  # type: ignore[no-untyped-def]
        pass

    assert parameters_of(known)["properties"] == {
        "path": {"type": "string"},
        "each": {"type": "array", "items": {"type": "integer"}},
        "some": {"type": "array", "items": {"type": ["string"], "enum": ["C", "K"]}},
        "where": {"type": "slice"},
        "mixed": {"type": ["integer", "string"], "enum": [1, "a"]},
        "bare": {},
    }
    assert parameters_of(dict) == {}

    class Opaque(BaseModel, arbitrary_types_allowed=True):
        own: Unit
        other: slice

    def of_opaque(given: Opaque) -> None:
        pass

    assert list(parameters_of(of_opaque)["properties"]["given"]) == ["type"]
