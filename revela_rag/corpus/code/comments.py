"""Documentation comments and docstrings to plain sentences, as a person would say them."""

from __future__ import annotations

import html
import re

from revela_rag.corpus.text import LETTERS, bounded_references, squeeze, word_spans

__all__ = [
    "about_definition",
    "clean_comment",
    "clean_docstring",
    "first_paragraph",
    "is_boilerplate",
    "looks_like_code",
]

_QUOTES = re.compile(r"^[rRbBuUfF]{0,2}(\"\"\"|'''|\"|')")
_MARKER = re.compile(r"^[ \t]*(?:/\*+!?<?|\*+/|\*+(?!\*)|//[/!]*<?|#+!?|;;+|--+|=(?:begin|end)\b)[ \t]?")
_BLOCK_DOCUMENTS = re.compile(r"/\*[*!](?![*/])")
_LINE_DOCUMENTS = re.compile(r"//[/!](?!/)")
_CLOSER = re.compile(r"(?:(?<![ \t])[ \t]++)?(?<!\*)\*++/[ \t]*$")
_PRE = re.compile(r"<pre\b.*?(?:</pre>|\Z)|\{\{\{.*?(?:\}\}\}|\Z)", re.S | re.I)
_ORDER = re.compile(r"^(?:MARK|swiftlint|rubocop|phpcs|noinspection|frozen_string_literal)\b[: ]")
_XML = re.compile(r"<(?:summary|remarks|inheritdoc|returns|value|param|typeparam|exception)\b[^<>]{0,200}>")
_XML_TAG = re.compile(r"(</?[a-zA-Z][^<>]{0,500}>)")
_XML_NAME = re.compile(r"</?([a-zA-Z]+)")
_XML_NAMED = re.compile(r"\b(?:cref|name|langword)\s*+=\s*+[\"'](?:[A-Z]:)?([^\"'{(]*+)")
_LINK = re.compile(r"\{@(?:link|linkplain|value|see)\s++([^\s}]++)(?:\s++([^}]{0,500}+))?\}")
_INLINE = re.compile(r"\{@(?:code|literal|summary|index)\s+([^{}]*)\}")
_BREAK = re.compile(r"</?(?:p|br|ul|ol|li|h\d|div|dl|dd|dt|table|tr|blockquote)\b[^>]{0,1000}>", re.I)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_ROLE = re.compile(r":[a-zA-Z][\w:.+-]{0,100}:`([^`]*)`")
_TARGET = re.compile(r"^[~!]|(?<!\s)\s*+<[^<>]*>$")
_TICKS = re.compile(r"`+([^`]*)`+_{0,2}")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}([^*\s][^*\n]*?)\*{1,2}(?![\w*])")
_STOP = re.compile(  # from here on a comment lists parameters, results, examples
    r"^[ \t]*+(?:[@\\](?!link|code|brief|details|summary)[a-zA-Z]+\b|:(?:param|type|arg|argument|key|keyword|return|"
    r"returns|rtype|raise|raises|except|exception|yield|yields|ivar|cvar|vartype|var|meta)\b[^:\n]*:|"
    r"(?:args|arguments|parameters|params|keyword args|keyword arguments|returns?|raises|yields?|examples?|usage|"
    r"notes?|references|attributes|see also|inputs?|outputs?|exceptions|warnings?|todo|methods|safety|panics|"
    r"errors)[ \t]*:?:[ \t]*$|"
    r"(?:parameters|returns|raises|yields|examples?|notes|references|attributes|see also|other parameters|methods|"
    r"input|output|usage)[ \t]*\n[ \t]*[-=~]{3,}[ \t]*$|"
    r"[ \t]*[-*+][ \t]+(?:parameters?|returns?|throws)\b[^:\n]{0,100}:|"
    r"[ \t]*#{1,4}[ \t]*(?:examples?|panics|errors|safety|arguments|returns|parameters)\b.*$|"
    r"(?:args|arguments|params|parameters|returns?|raises):)",
    re.I | re.M,
)
_RETURNED = re.compile(r"(?:[:@\\]returns?:?|\breturns?:)[ \t]*((?:(?!\n[ \t]*(?:[:@\\]|\w+:|\n)).)+)", re.I | re.S)
_BRACED_TYPE = re.compile(r"\{[^{}\n]{0,200}\}[ \t]*")
_RUBY_TYPE = re.compile(r"\[[^\[\]\n]{0,200}\](?:[ \t]+|$)")
_PHP_TYPE = re.compile(
    r"(?:(?=[^ \n]*[\[\]|\\<?$&])|(?=\w+\{)|"
    r"(?=(?:string|bool|boolean|int|integer|float|double|number|array|mixed|void|object|callable|iterable|resource|self|"
    r"static|never)\b(?![ \t]+(?:of|with|containing|representing|that|which|if|when|or|on|for|to|from)\b))|"
    r"(?=[A-Z]\w*(?:[a-z\d][A-Z]|_)\w*[ \t])|(?=(?!The|An?\b)[A-Z]\w+[ \t]+(?:[Tt]he|[Aa]n?)\b))"
    r"[?(]?[\\\w$|&?()\[\]-]+(?:(?:<[^<>\n]{0,80}(?:<[^<>\n]{0,80}>[^<>\n]{0,80}){0,3}>|\{[^{}\n]{0,200}\})"
    r"[\\\w$|&?()\[\]-]*)?(?:[ \t]+|$)"
)
_CALLS = re.compile(r"^([ \t]*):?call-seq:[^\n]*(?:\n(?:\1[ \t]+\S[^\n]*|[ \t]*(?=\n|\Z)))*", re.M)
_RDOC = re.compile(
    r":(?:nodoc|doc|startdoc|stopdoc|enddoc|notnew|yields?|args?|section|category|main|title|markup|"
    r"(?:singleton-)?method|attr(?:_reader|_writer|_accessor)?):[^\n]*"
)
_COMMAND = re.compile(r"[@\\](?:brief|details|summary)\s+")
_DOCTEST = re.compile(r"^[ \t]*>>> .*?(?:\n[ \t]*\n|\Z)", re.S | re.M)
_FENCE = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```|\Z)", re.S | re.M)
_SIGNATURE = re.compile(r"^[\w.]+\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)(?:\s*(?:->|=>|=)\s*.{1,80})?$")
_RULE = re.compile(r"^(?!\{\{\{|\}\}\})[\W_]{3,}$")
_BOILERPLATE = re.compile(
    "|".join(
        (
            r"copyright (?:\(c\)|©|\d|by)|^copyright|all rights reserved|spdx",
            r"\blicen[sc]ed?\b.{0,80}\b(?:under|agreement|terms|version)\b",
            r"\{@inheritdoc\}|\binheritdoc\b|non-javadoc|not documented",
            r"^(?:auto-?)?generated (?:by|from|method|code)\b|\b(?:is|was|file|code) auto(?:matically)?[- ]?generated",
            r"^.{0,40}\bdo not (?:edit|modify)|^@?override|^(?:todo|fixme|xxx|hack)\b",
            r"^see (?:the )?(?:super\w*|base|parent|interface|above|below|also)\b.{0,60}$",
            r"^\W*(?:\$?non-nls|pylint:|noqa|type:|eslint-|@ts-|clang-format|nolint|pragma|region|endregion|-\*-)",
            r"method stub|constructor stub|^test (?:method|case|class) for\b|^default constructor\.?$",
            r"^internal (?:use|method|function|helper)\W*$",
            r"^(?:add|insert|write|put) (?:your )?(?:doc|description|documentation|comment)s?\b.{0,20}$",
        )
    ),
    re.I | re.S,
)
_SYMBOLS = re.compile(r"[{}()\[\];=<>&|+]")


def about_definition(comments: list[str]) -> str:
    """Of the comments above a definition those about it: the last one that is documentation, else all."""
    for last in range(len(comments) - 1, -1, -1):
        if _BLOCK_DOCUMENTS.match(comments[last]):
            return comments[last]
        if _LINE_DOCUMENTS.match(comments[last]):
            first = last
            while first and _LINE_DOCUMENTS.match(comments[first - 1]):
                first -= 1
            return "\n".join(comments[first : last + 1])
    return "\n".join(comments)


def clean_docstring(source: str) -> str:
    """A Python docstring (with its quotes) as paragraphs of plain text, see :func:`clean_comment`."""
    match = _QUOTES.match(source)
    if match:
        source = source[match.end() :].removesuffix(match.group(1))
    return _prose(source)


def clean_comment(source: str, language: str = "") -> str:
    """Comments above a definition as paragraphs of plain text, separated by blank lines.

    Comment markers, markup (HTML, Javadoc, XML, reStructuredText), examples and everything from the first parameter
    list on are dropped; what is left says what the code is for. In PHP and Ruby results begin with their type, which
    is no word of a sentence.
    """
    lines = []
    for line in source.split("\n"):
        line = _CLOSER.sub("", line)
        line = _MARKER.sub("", line, count=1)
        lines.append("" if _RULE.match(line) or _ORDER.match(line) else line.rstrip())
    text = "\n".join(lines)
    if language == "ruby":
        text = _RDOC.sub("", text)
    text = _CALLS.sub("", text)
    return _prose(_xml_prose(text) if _XML.search(text) else text, language)


def first_paragraph(text: str) -> str:
    """The first paragraph, on one line."""
    return squeeze(text.strip().split("\n\n", 1)[0])


def is_boilerplate(text: str) -> bool:
    """Whether a comment says nothing about its code: fewer than three words, licences, markers, generated notes."""
    return len(word_spans(text)) < 3 or len(LETTERS.findall(text)) < 2 or _BOILERPLATE.search(text[:400]) is not None


def looks_like_code(text: str) -> bool:
    """Whether a comment is commented-out code rather than language."""
    lines = [line for line in text.split("\n") if line.strip()]
    ended = sum(line.rstrip().endswith((";", "{", "}", ");")) for line in lines)
    return ended * 2 > len(lines) or len(_SYMBOLS.findall(text)) > 0.08 * len(text)


def _xml_prose(text: str) -> str:
    """What the XML of a C# comment says of the code itself, else what it says of the result."""
    said: list[str] = []
    returned: list[str] = []
    inside = ""  # the element that is left out
    for piece in _XML_TAG.split(text):
        tag = _XML_NAME.match(piece)
        name = tag.group(1).lower() if tag else ""
        if inside:
            inside = "" if name == inside and piece.startswith("</") else inside
        elif name in ("param", "typeparam", "exception", "example", "code", "seealso", "returns", "value"):
            inside = "" if piece.startswith("</") or piece.endswith("/>") else name
        elif name in ("see", "paramref", "typeparamref"):
            named = _XML_NAMED.search(piece)
            piece = named.group(1) if named and piece.endswith("/>") else ""
        elif name in ("summary", "remarks", "para", "list", "item"):
            piece = "\n\n"
        elif name:
            piece = ""
        if not name or not piece.startswith("<"):
            (returned if inside in ("returns", "value") else said if not inside else []).append(piece)
    return "".join(said) if "".join(said).strip() else "".join(returned)


def _prose(text: str, language: str = "") -> str:
    text = _FENCE.sub("", _DOCTEST.sub("\n", _PRE.sub("\n\n", text)))
    text = _COMMAND.sub("", text)
    stop = _STOP.search(text)
    if stop:
        returned = _RETURNED.search(text, stop.start())
        text = text[: stop.start()]
        if not text.strip() and returned:
            types = {"php": _PHP_TYPE, "ruby": _RUBY_TYPE}.get(language, _BRACED_TYPE)
            text = types.sub("", returned.group(1), count=1) if types.match(returned.group(1)) else returned.group(1)
    text = _LINK.sub(lambda m: m.group(2) or m.group(1).lstrip("#").replace("#", "."), text)
    text = _INLINE.sub(r"\1", text)
    if "<" in text or "&" in text:
        text = html.unescape(bounded_references(_TAG.sub(" ", _BREAK.sub("\n\n", text))))
    text = _ROLE.sub(lambda m: _TARGET.sub("", m.group(1)), text)
    text = _EMPHASIS.sub(r"\1", _TICKS.sub(r"\1", text))
    paragraphs = [squeeze(p) for p in re.split(r"\n[ \t]*\n", text)]
    paragraphs = [p for p in paragraphs if p and not _RULE.match(p)]
    while paragraphs and _SIGNATURE.match(paragraphs[0]):
        paragraphs.pop(0)
    if len(paragraphs) > 1 and len(word_spans(paragraphs[0])) < 3:  # a label, not yet a sentence
        paragraphs[:2] = [f"{paragraphs[0].rstrip('.:')}: {paragraphs[1]}"]
    return "\n\n".join(paragraphs)
