"""The command line, ``revela``: a thin shell over functions that can be imported."""

from __future__ import annotations

import os
import sys
import warnings

from revela_rag.cli.app import app

__all__ = ["app", "main"]

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> None:
    """Run ``revela`` with the arguments of this process and exit with its status."""
    if not {"-v", "-vv", "--verbose"} & set(sys.argv[1:]):
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character must not end the run
    app(prog_name="revela")
