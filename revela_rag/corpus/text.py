"""Clean text, and how long a text is."""

from __future__ import annotations

import re
from unicodedata import normalize

from revela_rag.surrogates import encodable

__all__ = [
    "about_tokens",
    "bounded_references",
    "clean_text",
    "count_words",
    "fold",
    "squeeze",
    "word_spans",
]

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
_CHARACTERS_PER_TOKEN = 4  # of English or code on average, a little on the high side


def fold(text: str) -> str:
    """A text in the form in which it is compared: equal for texts that read alike.

    Unicode's NFKC and case folding: an accent may be a character of its own or not (macOS writes names that way),
    letters wide or narrow, capital or small, and ß is ss. A capital I with a dot is an i.
    """
    if text.isascii():
        return text.lower()
    return normalize("NFKC", normalize("NFKC", text).casefold().replace("i\u0307", "i"))


def clean_text(text: str) -> str:
    r"""Normalise line ends to ``\n``, drop NUL and byte order marks, replace lone surrogates."""
    return encodable(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").replace("\ufeff", ""))


def bounded_references(text: str) -> str:
    """HTML whose numeric character references have few enough digits to be read."""
    return _LONG_REFERENCE.sub("\ufffd", text)


def count_words(text: str) -> int:
    """Length in words: whitespace-separated ones, but at least one per 20 characters and one per two CJK characters.

    The lower bounds keep chunks small where there is little or no whitespace (Chinese, Japanese, Thai, base64).
    """
    words = max(len(text.split()), -(-len(text) // 20))
    return words if text.isascii() else max(words, len(_WIDE.findall(text)) // 2)


def about_tokens(text: str) -> float:
    """About how many tokens a text has; a character of Chinese and its like is one."""
    wide = 0 if text.isascii() else len(_WIDE.findall(text))
    return wide + (len(text) - wide) / _CHARACTERS_PER_TOKEN


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
