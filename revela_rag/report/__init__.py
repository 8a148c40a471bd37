"""The HTML report of an adaptation, one self-contained file, plots included; and the curve of a training."""

from revela_rag.report.page import write_report
from revela_rag.report.plots import quality_curve

__all__ = ["quality_curve", "write_report"]
