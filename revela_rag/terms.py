"""The terms of a text: what BM25 counts in prose and code.

An identifier is kept whole and gives what it is made of, too, so that ``getUserName`` is found by "user name", by
``get_user_name`` and by itself.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal
from unicodedata import normalize

from revela_rag.corpus.identifiers import pieces
from revela_rag.corpus.text import WIDE, fold

__all__ = ["VERSION", "Analyzer", "analyze", "read_terms"]

Analyzer = Literal["code", "plain"]
#: Another number whenever `analyze` gives other terms: what was stored under the former does not fit any more.
VERSION = 2

_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be but by for from has have how if in into is it its no not of on or such that the their then
        there these they this to was what when where which who why will with
        i me my myself we our ours you your yours yourself he him his she her hers itself them theirs themselves
        am been being can cannot could did do does doing had having might must shall should were would
        """,
    )
)
_CONTRACTED = re.compile(r"(?<=\w)(?:n['’]t|['’](?:s|d|m|re|ve|ll))\b", re.IGNORECASE)
_TOKEN = re.compile(r"[^\W_]+(?:[_.\-/:]+[^\W_]+)*|_+[^\W_]+(?:_+[^\W_]+)*")
_WORD = re.compile(r"[^\W_]+")
_WIDE = re.compile(f"{WIDE}+")
_IDENTIFIER = re.compile(r"_|[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z][0-9]|[0-9][A-Za-z]")
_MAX_PATH = 80  # longer runs joined by dots and slashes are data, not names
_stemmers = threading.local()


def analyze(text: str, analyzer: Analyzer = "code") -> list[str]:
    """Split a text into the terms BM25 counts.

    ``"code"``: lower-cased, English stop words dropped unless in capitals (WHO, IT), words stemmed; an identifier
    (camelCase, snake_case, with digits) gives itself whole and its pieces; a dotted or slashed path also gives itself
    whole. Pronouns and auxiliaries are stop words because in a corpus that hardly has them ("I need ...", "can you
    ...") they would count for the rarest of words.
    ``"plain"``: words only, without splitting or stemming.
    In both, terms are in the form of :func:`revela_rag.corpus.text.fold`, so that words that read alike are equal;
    contracted endings ("user's", "don't") are dropped, and Chinese, Japanese, Korean and Thai, which do not put spaces
    between words or endings, give every two neighbouring characters.

    Raises:
        ValueError: the analyzer has another name.
    """
    if not text.isascii():  # an accent that is a character of its own would end the word
        text = normalize("NFC", text).replace("i\u0307", "i")
    text = _CONTRACTED.sub("", text)
    if analyzer == "plain":
        words = (fold(match) for match in _WORD.findall(text))
        return [term for word in words for term in _pairs(word) if term not in _STOP_WORDS]
    if analyzer != "code":
        raise ValueError(f"analyzer={analyzer!r} is not one of 'code', 'plain'.")
    terms: list[str] = []
    for token in _TOKEN.findall(text):
        terms.extend(_terms(token))
    return terms


@lru_cache(maxsize=200_000)
def _terms(token: str) -> tuple[str, ...]:
    token = token if token.isascii() else normalize("NFKC", token)
    words = re.split(r"[.\-/:]+", token)
    terms: list[str] = [fold(token)] if len(words) > 1 and len(token) <= _MAX_PATH else []
    for word in words:
        if not word.isascii() and _WIDE.search(word):
            terms += _pairs(fold(word))
        elif _IDENTIFIER.search(word):
            found = [fold(piece) for piece in pieces(word)]
            terms.append(fold(word.strip("_")))
            terms += [_stem(piece) for piece in found if len(found) > 1 and piece not in _STOP_WORDS]
        elif (folded := fold(word)) not in _STOP_WORDS or (len(word) > 1 and word.isupper()):
            terms.append(_stem(folded))
    return tuple(terms)


def _pairs(word: str) -> list[str]:
    """The pairs of wide characters in a word, a single one as it is, and what stands between them whole."""
    if word.isascii():
        return [word]
    terms, start = list[str](), 0
    for run in _WIDE.finditer(word):
        terms += [word[start : run.start()]] if run.start() > start else []
        start, wide = run.end(), run[0]
        terms += [wide[i : i + 2] for i in range(max(1, len(wide) - 1))]
    return terms + ([word[start:]] if start < len(word) else [])


def _stem(word: str) -> str:
    stemmer = getattr(_stemmers, "english", None)
    if stemmer is None:  # one per thread: a stemmer is not safe to share
        import Stemmer

        stemmer = _stemmers.english = Stemmer.Stemmer("english")
    return str(stemmer.stemWord(word))


def read_terms(texts: Iterable[str], analyzer: Analyzer = "code") -> tuple[dict[str, int], list[array[int]]]:
    """Number the terms of texts: term to number, and the numbers of every text in order."""
    vocabulary: dict[str, int] = {}
    numbered = [
        array("i", [vocabulary.setdefault(term, len(vocabulary)) for term in analyze(text, analyzer)]) for text in texts
    ]
    return vocabulary, numbered
