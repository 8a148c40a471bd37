"""LlamaIndex' filters in the language of an index."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from revela_rag.errors import IndexingError

__all__ = ["to_filter"]

_OF_ONE = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$contains",
}
_OF_SEVERAL = {FilterOperator.IN: "$in", FilterOperator.NIN: "$nin"}


def to_filter(filters: MetadataFilters | None) -> dict[str, Any]:
    """Filters as :func:`revela_rag.index.filters.parse_filter` reads them; none of them as an empty mapping.

    Strings are compared as everywhere in an index, so that ``text_match`` is as blind to case as
    ``text_match_insensitive``. Where a key is absent, ``!=`` and ``nin`` hold; ``not`` asks that none of its filters
    does.

    Raises:
        IndexingError: a value does not fit its operator.
    """
    if filters is None:
        return {}
    parts = [to_filter(item) if isinstance(item, MetadataFilters) else _one(item) for item in filters.filters]
    some = [part for part in parts if part]
    if filters.condition is FilterCondition.OR:
        return {"$or": parts} if parts and parts == some else {}  # a part that asks for nothing always holds
    if not some:
        return {}
    return {"$not": {"$or": some}} if filters.condition is FilterCondition.NOT else {"$and": some}


def _one(filter: MetadataFilter) -> dict[str, Any]:
    key, operator, value = filter.key, filter.operator, filter.value
    if operator is FilterOperator.IS_EMPTY:
        return {key: {"$empty": True}}
    if operator in (FilterOperator.ALL, FilterOperator.ANY) and isinstance(value, list) and value:
        parts = [{key: {"$contains": each}} for each in value]
        return {"$and" if operator is FilterOperator.ALL else "$or": parts}
    several = isinstance(value, list)
    name = None if value is None else (_OF_SEVERAL if several else _OF_ONE).get(operator)
    if name is None:
        kind = "one value" if operator in _OF_ONE else "a list of values"
        raise IndexingError(
            f"The filter {key!r} {operator.value} {value!r} cannot be used: {operator.value} takes {kind}."
        )
    return {key: {name: value}}
