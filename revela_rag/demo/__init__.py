"""The demo: learn the Python standard library as if it were internal code."""

from revela_rag.demo.raw import run_raw_demo
from revela_rag.demo.run import run_demo

__all__ = ["run_demo", "run_raw_demo"]
