"""Bytes to clean text, and how long a text is."""

from __future__ import annotations

import codecs
import re
from unicodedata import normalize

__all__ = ["bounded_references", "clean_text", "count_words", "decode", "fold", "squeeze", "word_spans"]

#: A file with a larger share of undecodable characters than this is not text we can trust.
MAX_BAD_SHARE = 0.03
#: A file with a larger share of NUL bytes than this is binary.
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
#: A character that UTF-8 writes in several bytes.
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
#: What text in Windows-1252 does not hold: control characters, the five bytes it leaves undefined, a byte FF outside
#: words, and four different letters in a row beyond ASCII, which are words of another script.
_NOT_WINDOWS = re.compile(
    rb"[\x00-\x08\x0b\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]|(?<![A-Za-z])\xff"
    rb"|([\xa1-\xff])(?!\1)([\xa1-\xff])(?!\2)([\xa1-\xff])(?!\3)[\xa1-\xff]"
)
#: A character of a script that puts no spaces between words, or glues endings to them: Chinese, Japanese, Korean, Thai.
WIDE = "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0e7f]"
_WIDE = re.compile(WIDE)
#: Letters, vowel signs and tone marks of the scripts without spaces; Korean has them, so its words are not cut.
_UNSPACED = (
    "\u0e01-\u0e4e\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035\u3041-\u30fa\u30fc-\u312f\u3190-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
#: What a cut must not separate from the letter before it: Thai vowels and tone marks, Japanese voicing marks.
SIGNS = "[\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u3099\u309a]{0,4}"
_PAIR = f"(?:[\u0e40-\u0e44]?[{_UNSPACED}]{SIGNS}){{1,2}}"  # the vowels that Thai writes first
_OPENING = r"(\[{`«“‘（［｛「『【《〈〔"
_SPAN = re.compile(rf"[^\w\s{_UNSPACED}]*+{_PAIR}[^\w\s{_OPENING}{_UNSPACED}]*|[^\s{_UNSPACED}]+")
_SPACED_SPAN = re.compile(r"\S+")
#: A word in letters: two of them at least; of scripts without spaces one or two make a word, as in `word_spans`.
LETTERS = re.compile(rf"{_PAIR}|[^\W\d_{_UNSPACED}]{{2,}}")
_LONG_REFERENCE = re.compile(r"&#[0-9]{600,};?")  # Python may refuse to read so many digits
_SPACE = re.compile(r"\s+")


def fold(text: str) -> str:
    """A text in the form in which it is compared: equal for texts that read alike.

    Unicode's NFKC and case folding: an accent may be a character of its own or not (macOS writes names that way),
    letters wide or narrow, capital or small, and ß is ss. A capital I with a dot is an i.
    """
    if text.isascii():
        return text.lower()
    return normalize("NFKC", normalize("NFKC", text).casefold().replace("i\u0307", "i"))


def decode(data: bytes) -> str | None:
    """Decode the bytes of a text file.

    Byte order marks come first, then UTF-8, then the encoding the file itself declares (``coding:`` in source code,
    ``charset=`` in HTML), then Windows-1252, and Latin-1 with it, where nothing is declared and the bytes
    read as words, then UTF-8 with replacement characters.

    Returns:
        The cleaned text, or None where the bytes are not text: more than 1 % NUL bytes, or more than 3 % of the
        characters undecodable.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data[len(bom) :].decode(encoding, "replace")
            return clean_text(text) if _share(text) <= MAX_BAD_SHARE else None
    if data.count(0) > MAX_NUL_SHARE * len(data):
        return None
    try:
        return clean_text(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    declared = _DECLARED.search(data[:1024])
    if declared:
        try:
            return clean_text(data.decode(declared.group(1).decode("ascii")))
        except (LookupError, UnicodeError, ValueError):
            pass
    text = data.decode("utf-8", "replace")
    if not declared and _is_windows(data, broken=text.count("\ufffd")):
        return clean_text(data.decode("cp1252"))
    return clean_text(text) if _share(text) <= MAX_BAD_SHARE else None


def clean_text(text: str) -> str:
    r"""Normalise line ends to ``\n``, drop NUL and byte order marks, replace lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").replace("\ufeff", "")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text


def bounded_references(text: str) -> str:
    """HTML whose numeric character references have few enough digits to be read."""
    return _LONG_REFERENCE.sub("\ufffd", text)


def count_words(text: str) -> int:
    """Length in words: whitespace-separated ones, but at least one per 20 characters and one per two CJK characters.

    The lower bounds keep chunks small where there is little or no whitespace (Chinese, Japanese, Thai, base64).
    """
    words = max(len(text.split()), -(-len(text) // 20))
    return words if text.isascii() else max(words, len(_WIDE.findall(text)) // 2)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text stand: its whitespace-separated ones, and every two letters of scripts without spaces.

    Two letters to a word is what `count_words` counts, and about what Chinese words have. Punctuation stays with the
    word before it, what opens a bracket with the one behind it.
    """
    pattern = _SPACED_SPAN if text.isascii() else _SPAN
    return [match.span() for match in pattern.finditer(text)]


def squeeze(text: str) -> str:
    """Collapse every run of whitespace to one space and strip the ends."""
    return _SPACE.sub(" ", text).strip()


def _is_windows(data: bytes, broken: int) -> bool:
    """Whether bytes with so many characters broken in UTF-8 read as Windows-1252: accents here and there in words."""
    if len(_MULTIBYTE.findall(data)) * 10 >= broken:  # UTF-8 with some damage; a capital before a quote looks like it
        return False
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    return high <= MAX_HIGH_SHARE * len(data) and not _NOT_WINDOWS.search(data)


def _share(text: str) -> float:
    return text.count("\ufffd") / max(len(text), 1)
