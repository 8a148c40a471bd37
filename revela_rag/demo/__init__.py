"""The demo: learn the Python standard library as if it were internal code."""

from revela_rag.demo.run import run_demo

__all__ = ["run_demo"]
