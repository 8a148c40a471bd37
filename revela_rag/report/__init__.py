"""The HTML report of an adaptation: one self-contained file, plots included."""

from revela_rag.report.page import write_report

__all__ = ["write_report"]
