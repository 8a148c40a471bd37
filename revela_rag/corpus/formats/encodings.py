"""Bytes to text, in whatever encoding they are."""

from __future__ import annotations

import codecs
import re
import unicodedata

from revela_rag.corpus.text import clean_text

__all__ = ["decode", "why_not_text"]

#: A file with a larger share of undecodable characters than this is not text we can trust.
MAX_BAD_SHARE = 0.03
#: A file with a larger share of NUL bytes than this is binary, or UTF-16 without a mark.
MAX_NUL_SHARE = 0.01
#: Of text in a Latin script not more characters than this are beyond ASCII.
MAX_HIGH_SHARE = 0.3

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(rb"(?:coding[:=]|charset=)[ \t]*[\"']?([-\w.]+)")
#: Names that pages have for what is Windows-1252 in truth; they decode everything, so they prove nothing.
_LATIN = frozenset({"ascii", "iso8859-1", "cp1252"})
#: A character that UTF-8 writes in several bytes.
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
#: What text in Windows-1252 does not hold: control characters, the five bytes it leaves undefined, a byte FF outside
#: words, and four different letters in a row beyond ASCII, which are words of another script.
_NOT_WINDOWS = re.compile(
    rb"[\x00-\x08\x0b\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]|(?<![A-Za-z])\xff"
    rb"|([\xa1-\xff])(?!\1)([\xa1-\xff])(?!\2)([\xa1-\xff])(?!\3)[\xa1-\xff]"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
#: Encodings of other scripts, and what most letters beyond ASCII of a text in them are.
_SCRIPTS = {
    **dict.fromkeys(("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5"), "[\u0400-\u04ff]"),
    "cp1253": "[\u0370-\u03ff]",
    "cp1255": "[\u0590-\u05ff]",
    "cp1256": "[\u0600-\u06ff]",
    "cp874": "[\u0e00-\u0e7f]",
    **dict.fromkeys(("cp932", "euc_jp"), "[\u3040-\u30ff\u4e00-\u9fff]"),
    **dict.fromkeys(("gb18030", "big5"), "[\u4e00-\u9fff]"),
    "cp949": "[\uac00-\ud7af]",
}
_KANA = re.compile("[\u3040-\u309f]")
_LEAST_SCRIPT, _LEAST_KANA = 0.9, 0.1
_FEWEST_LETTERS = 20
_SAMPLE = 1 << 16


def decode(data: bytes) -> str | None:
    """Decode the bytes of a text file.

    Byte order marks come first, then UTF-16 without one, UTF-8, the encoding the file itself declares (``coding:`` in
    source code, ``charset=`` in HTML) if the bytes agree, then Windows-1252, and Latin-1 with it, where the bytes read
    as words, then encodings of other scripts where statistics are clear, then UTF-8 with replacement characters.

    Returns:
        The cleaned text, or None where the bytes are not text, or their encoding cannot be told: more than 1 % NUL
        bytes, or more than 3 % of the characters undecodable.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data[len(bom) :].decode(encoding, "replace")
            return clean_text(text) if _share(text) <= MAX_BAD_SHARE else None
    if 0 in data and (wide := _utf16(data)):
        return clean_text(wide)
    if data.count(0) > MAX_NUL_SHARE * len(data):
        return None
    try:
        return clean_text(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    is_windows = _is_windows(data, broken=text.count("\ufffd"))
    declared = _declared(data)
    if declared in _LATIN:
        declared = "cp1252" if is_windows else None
    if declared:
        try:
            return clean_text(data.decode(declared))
        except UnicodeError:
            pass
    if is_windows:
        return clean_text(data.decode("cp1252"))
    if _share(text) <= MAX_BAD_SHARE:
        return clean_text(text)
    found = _other_script(data)
    return clean_text(found) if found else None


def why_not_text(data: bytes) -> str:
    """Why :func:`decode` gave nothing."""
    if len(_CONTROL.findall(data)) > MAX_NUL_SHARE * len(data):
        return "binary or undecodable content"
    return "encoding that cannot be told; save it as UTF-8"


def _declared(data: bytes) -> str | None:
    """The encoding that a file declares, by the name that Python has for it."""
    found = _DECLARED.search(data[:1024])
    try:
        return codecs.lookup(found.group(1).decode("ascii")).name if found else None
    except (LookupError, UnicodeError, ValueError):
        return None


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: all NUL bytes are the same halves of its characters, and what it says is text."""
    if len(data) % 2:
        return None
    even, odd = data[::2].count(0), data[1::2].count(0)
    if min(even, odd) * 20 > max(even, odd):
        return None
    try:
        text = data.decode("utf-16-le" if odd > even else "utf-16-be")
    except UnicodeDecodeError:
        return None
    sample = text[:_SAMPLE]
    odd_ones = sum(unicodedata.category(sign) in ("Cc", "Cn", "Co") and sign not in "\t\n\r\f" for sign in sample)
    # a text of ASCII with a few NUL bytes between would be rare signs, of many scripts
    spaces = sum(sign in " \n\u3000\u3001\u3002\uff0c" for sign in sample)
    return text if odd_ones <= MAX_NUL_SHARE * len(sample) and spaces * 100 >= len(sample) else None


def _other_script(data: bytes) -> str | None:
    """The text in the likeliest encoding of a script other than Latin, or None where that is not clear."""
    from charset_normalizer import from_bytes

    sample = data[:_SAMPLE]
    sample = sample[: sample.rfind(b"\n") + 1] or sample if len(data) > _SAMPLE else sample
    for match in from_bytes(sample, cp_isolation=list(_SCRIPTS)):
        text = str(match)
        letters = [sign for sign in text if sign.isalpha() and not sign.isascii()]
        if len(letters) < _FEWEST_LETTERS or not _is_clear("".join(letters), match.encoding):
            continue
        whole = data.decode(match.encoding, "replace")
        if _share(whole) <= MAX_BAD_SHARE:
            return whole
    return None


def _is_clear(letters: str, encoding: str) -> bool:
    """Whether letters are of the script that the encoding is for, and as common in it as they are in texts."""
    if len(re.findall(_SCRIPTS[encoding], letters)) < _LEAST_SCRIPT * len(letters):
        return False
    if encoding in ("cp932", "euc_jp"):
        return len(_KANA.findall(letters)) >= _LEAST_KANA * len(letters)
    small, large = sum(map(str.islower, letters)), sum(map(str.isupper, letters))
    return small >= large


def _is_windows(data: bytes, broken: int) -> bool:
    """Whether bytes with so many characters broken in UTF-8 read as Windows-1252: accents here and there in words."""
    if len(_MULTIBYTE.findall(data)) * 10 >= broken:  # UTF-8 with some damage; a capital before a quote looks like it
        return False
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    return high <= MAX_HIGH_SHARE * len(data) and not _NOT_WINDOWS.search(data)


def _share(text: str) -> float:
    return text.count("\ufffd") / max(len(text), 1)
