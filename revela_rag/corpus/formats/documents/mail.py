"""A mail: its subject, what it says, and the texts that are attached to it."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from typing import Any

from revela_rag.corpus.formats.documents.reading import Reading
from revela_rag.corpus.formats.markup.html import read_html
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.text import clean_text, squeeze

__all__ = ["read_mail"]

_MOST_PARTS = 200


def read_mail(data: bytes) -> Reading:
    """A mail under its subject; of a body that comes as text and as HTML the text.

    Raises:
        Unreadable: it says nothing.
    """
    mail = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(mail, EmailMessage)
    body = mail.get_body(("plain", "html"))
    parts = [part for part in [body, *_attached(mail)] if part is not None]
    text, headings = "", []
    for part in parts[:_MOST_PARTS]:
        name = squeeze(part.get_filename() or "")
        said, inside = _said(part)
        if not said.strip():
            continue
        at = len(text) + 2 if text else 0
        text = f"{text}\n\n{said}" if text else said
        if name:
            headings.append((1, name, at, at))
        headings += [(level + 1, words, at + start, at + end) for level, words, start, end in inside]
    subject = squeeze(clean_text(_field(mail, "subject")))
    if not text.strip() and not subject:
        raise Unreadable("mail without text")
    about = {key: squeeze(clean_text(_field(mail, key))) for key in ("from", "to", "date")}
    return Reading(text, subject, headings, {key: value for key, value in about.items() if value})


def _field(mail: EmailMessage, key: str) -> str:
    try:
        value = mail[key]
    except (ValueError, IndexError, AttributeError, TypeError):  # of what the standard library's parser cannot take
        return ""
    date = getattr(value, "datetime", None)
    return date.isoformat() if date else str(value or "")


def _attached(mail: EmailMessage) -> list[EmailMessage]:
    """Attachments that are text."""
    return [
        part
        for part in mail.walk()
        if isinstance(part, EmailMessage) and part.get_content_disposition() == "attachment"
        if part.get_content_type() in ("text/plain", "text/html", "text/markdown")
    ]


def _said(part: MIMEPart) -> tuple[str, list[tuple[int, str, int, int]]]:
    content: Any
    try:
        content = part.get_content()
    except (LookupError, ValueError):  # an encoding that there is not
        content = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")  # type: ignore[union-attr]
    content = clean_text(str(content)).replace("\f", "\n")
    if part.get_content_type() != "text/html":
        return content.strip("\n").rstrip(), []
    page = read_html(content)
    return page.text, page.headings
