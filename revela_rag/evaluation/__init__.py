"""Retrieval quality: data in, per-query metrics with confidence intervals out, with or without labels."""

from revela_rag.evaluation.beir import RetrievalData, load_beir
from revela_rag.evaluation.bootstrap import Comparison, balanced_p_value, bootstrap_interval, compare
from revela_rag.evaluation.evaluate import evaluate
from revela_rag.evaluation.fused import fused_run
from revela_rag.evaluation.metrics import METRICS, Evaluation, score_run
from revela_rag.evaluation.runs import Run, dense_run, lexical_run
from revela_rag.evaluation.structural import headings_by_document, structural_data, without_headings

__all__ = [
    "METRICS",
    "Comparison",
    "Evaluation",
    "RetrievalData",
    "Run",
    "balanced_p_value",
    "bootstrap_interval",
    "compare",
    "dense_run",
    "evaluate",
    "fused_run",
    "headings_by_document",
    "lexical_run",
    "load_beir",
    "score_run",
    "structural_data",
    "without_headings",
]
