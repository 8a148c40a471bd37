"""PDF to text, page by page."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable

from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.text import clean_text, squeeze

__all__ = ["read_pdf"]

_BAD_TITLE = re.compile(r"untitled|microsoft word|\.(?:docx?|pdf|tex|indd|pptx?)\b|^\W*$", re.I)
_HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st", "\xad": "", "\u00a0": " "}
)


def read_pdf(data: bytes, check: Callable[[], None] = lambda: None) -> tuple[str, str]:
    r"""Text of a PDF, with ``\f`` between pages, and its title, which may be empty.

    Args:
        data: content of the file.
        check: called before every page; what it raises ends the reading.

    Raises:
        Unreadable: broken, encrypted or without text.
    """
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted PDF")
        pages = []
        for page in reader.pages:
            check()
            pages.append(page.extract_text() or "")
        title = str((reader.metadata and reader.metadata.title) or "")
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # pypdf raises whatever the damage leads to
        raise Unreadable("broken PDF") from error
    text = clean_text(_HYPHENATED.sub("", "\f".join(pages).translate(_LIGATURES)))
    if not text.strip():
        raise Unreadable("PDF without text")
    return text, "" if _BAD_TITLE.search(title) else squeeze(title.translate(_LIGATURES))
