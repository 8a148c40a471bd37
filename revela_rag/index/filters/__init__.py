"""Filters: one language over the metadata of an index, of any store, and of texts in memory."""

from revela_rag.index.filters.columns import Column, MemoryTable, Table
from revela_rag.index.filters.conditions import Condition
from revela_rag.index.filters.language import OPERATORS, Filter, check_filter, parse_filter
from revela_rag.index.filters.values import Attribute, attributes_of

__all__ = [
    "OPERATORS",
    "Attribute",
    "Column",
    "Condition",
    "Filter",
    "MemoryTable",
    "Table",
    "attributes_of",
    "check_filter",
    "parse_filter",
]
