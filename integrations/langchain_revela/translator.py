"""LangChain's structured queries, which a language model writes, in the language of an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery, Visitor

__all__ = ["RevelaTranslator"]

_NAMES = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
    Comparator.CONTAIN: "$contains",
}


class RevelaTranslator(Visitor):
    """Turns the filter of a structured query into one of an index.

    Example:
        >>> SelfQueryRetriever.from_llm(  # doctest: +SKIP
        ...     llm, store, contents, fields, structured_query_translator=RevelaTranslator()
        ... )
    """

    allowed_comparators = tuple(_NAMES)
    allowed_operators = (Operator.AND, Operator.OR, Operator.NOT)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """A joint of filters."""
        self._validate_func(operation.operator)
        parts = [argument.accept(self) for argument in operation.arguments]
        if operation.operator is Operator.NOT:
            return {"$not": parts[0] if len(parts) == 1 else {"$or": parts}}
        return {f"${operation.operator.value}": parts}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """What is asked for under one key; several values are asked for one by one where an operator takes one."""
        self._validate_func(comparison.comparator)
        name, value = _NAMES[comparison.comparator], _value(comparison.value)
        several = isinstance(value, list)
        if name in ("$in", "$nin") and not several:
            value = [value]
        elif several and name in ("$eq", "$ne"):
            name = "$in" if name == "$eq" else "$nin"
        elif several and name == "$contains":
            return {"$and": [{comparison.attribute: {name: each}} for each in value]}
        return {comparison.attribute: {name: value}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """The query, and its filter as ``search_kwargs``."""
        filter = structured_query.filter
        return structured_query.query, {} if filter is None else {"filter": filter.accept(self)}


def _value(given: Any) -> Any:
    """A value; the parser writes dates as ``{"type": "date", "date": "2024-01-31"}``."""
    if isinstance(given, Mapping):
        return given.get("date") or given.get("datetime")
    return [_value(entry) for entry in given] if isinstance(given, list | tuple) else given
