"""Patterns that are kept from backtracking match what their plain forms match, on every short text."""

import re
from itertools import product

import pytest

from revela_rag.corpus.code import chunk as code
from revela_rag.corpus.code import comments, detect
from revela_rag.corpus.formats import readers
from revela_rag.corpus.prose import chunk as prose
from revela_rag.corpus.prose import sections, sentences
from revela_rag.corpus.sources import tables


def texts(pieces, longest):
    """Every text of up to so many pieces."""
    return ("".join(some) for length in range(longest + 1) for some in product(pieces, repeat=length))


def everything(pattern):
    return lambda text: [(match.span(), match.groups()) for match in pattern.finditer(text)]


def whole(pattern):
    return lambda text: pattern.fullmatch(text) is not None


def start(pattern):
    return lambda text: match.span() if (match := pattern.match(text)) else None


def atx(text):
    match = re.match(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$", text)
    return (len(match.group(1)), match.group(2)) if match and match.group(2) else None


def heading(text):
    text = re.sub(r"[ \t]*\{[#.:][^{}]*\}[ \t]*$", "", text)
    text = re.sub(r":[a-zA-Z][\w:-]*:`([^`<]*?)(?:\s*<[^<>]*>)?`", r"\1", sections._LINK.sub("", text))
    text = re.sub(r"[*`]+|<[^<>]{1,200}>|(?<!\w)_+|_+(?!\w)|¶", "", text)
    return " ".join(text.replace("\\", "").split())


PATTERNS = {
    "sentence": (
        everything(re.compile(rf"[.!?…]+[\"'”’»)\]*_`]*(?=\s)|[{sentences._STOPS}]+[」』”’\"»)]*")),
        everything(sentences._END),
        (".", "?", '"', " ", "x", "。", "」"),
    ),
    "directive": (
        whole(re.compile(r"\.\. (?:_[^\n]*:|(?:only)::)[^\n]*(?:\n[ \t]+[^\n]*)*|[-*_=~#\s]{3,}")),
        whole(prose._NOISE),
        (".. _", ".. only::", ":", "\n", " ", "x"),
    ),
    "reference": (
        whole(re.compile(r"\[[^\[\]]+\]:[ \t]*\S+[^\n]*(?:\n\[[^\[\]]+\]:[^\n]*)*")),
        whole(re.compile(prose._NOISE.pattern.rpartition("|")[2], re.S)),
        ("[a]:", "[", "]", "\n", " ", "x"),
    ),
    "heading line": (atx, sections._atx, ("#", "##", " ", "\t", "x", "x#")),
    "heading": (heading, sections.clean_heading, (" ", "{.", "}", "_", "x", ":a:`", "`", "<a>")),
    "C++": (
        lambda text: bool(re.search(r"^\s*(?:class \w+|namespace\b|template *<|public:)", text, re.M)),
        lambda text: bool(readers._CPP.search(text)),
        ("class A", "public:", "\n", " ", "x"),
    ),
    "decorators": (
        start(re.compile(r"(?:@[\w.]+(?:\(.*\))?\s*\n\s*)*(?:async\s+)?def +\w+ *\(")),
        start(re.compile(detect._OPENINGS["python"][0])),
        ("@a", "(b)", "\n", " ", "def f(", "x"),
    ),
    "end of a comment": (
        everything(re.compile(r"[ \t]*\*+/[ \t]*$")),
        everything(comments._CLOSER),
        (" ", "\t", "*", "/", "x"),
    ),
    "link": (
        everything(re.compile(r"\{@(?:link|linkplain|value|see)\s+([^\s}]+)(?:\s+([^}]*))?\}")),
        everything(comments._LINK),
        ("{@link", " ", "a", "}", "{", "\n"),
    ),
    "target": (
        everything(re.compile(r"^[~!]|\s*<[^<>]*>$")),
        everything(comments._TARGET),
        (" ", "<", ">", "~", "a", "\n"),
    ),
    "parameters": (
        everything(re.compile(comments._STOP.pattern.replace("*+", "*"), re.I | re.M)),
        everything(comments._STOP),
        (" ", "#", "examples", ":", "\n", "@a"),
    ),
    "number": (
        whole(re.compile(r"[-+]?[\d.,' ]*\d[\d.,]*(?:[eE][-+]?\d+)?\s?%?")),
        whole(tables._NUMBER),
        ("1", "20", ".", ",", " ", "'", "-", "e", "%", "x"),
    ),
    "empty body": (
        start(re.compile(r"(?:pass|\.\.\.|return(?: None)?;?|raise NotImplementedError.*|[{}\s;]*)\s*$")),
        start(code._EMPTY_BODY),
        ("{", "}", " ", ";", "\n", "x"),
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_match_what_their_plain_forms_match(name):
    plain, bounded, pieces = PATTERNS[name]
    matched = 0
    for text in texts(pieces, 5):
        expected = plain(text)
        assert bounded(text) == expected, repr(text)
        matched += bool(expected)
    assert matched > 20


def test_a_cell_of_very_many_digits_is_told_at_once():
    # the plain form takes the square of its length: minutes for these, or for ever
    for cell in ("1" * 1_000_000 + "x", "1 " * 500_000 + "x", ",." * 500_000 + "x"):
        assert tables._type([cell]) == "text"
    assert tables._type(["1" * 1_000_000]) == "number"
