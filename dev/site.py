"""What the site does to the docstrings: they name other things as Sphinx does, which Markdown shows as it stands."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|attr|mod|data):(?=<code>)")
_PATH = re.compile(r"<code>~(?:\w+\.)*(\w+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """``:meth:`Index.open``` becomes ``Index.open``, ``~revela_rag.corpus.Corpus`` becomes ``Corpus``."""
    return _PATH.sub(r"<code>\1</code>", _ROLE.sub("", html))
