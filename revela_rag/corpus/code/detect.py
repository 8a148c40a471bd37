"""Is a text without a trustworthy file name source code, and in which language?"""

from __future__ import annotations

import re

from revela_rag.corpus.code.outline import outline
from revela_rag.corpus.formats.names import DERIVED_FORMATS, PROSE_FORMATS, format_of
from revela_rag.corpus.prose.sections import fence_spans

__all__ = ["detect_format", "looks_like_markdown"]

#: A detected language must parse with at most this share of unplaceable bytes.
MAX_ERROR_SHARE = 0.2
_SAMPLE = 20_000
_MAX_ONE_LINE = 300

# how a first statement looks, likeliest language first; the parser has the last word
_OPENINGS: dict[str, tuple[str, ...]] = {
    "python": (
        r"(?:@[\w.]++(?:\(.*\))?[^\S\n]*+\n\s*+)*+(?:async\s+)?def +\w+ *\(",
        r"class \w+(?:\([^()]*\))?:\s*\n",
        r"(?:from [\w.]+ )?import [\w.]+(?: as \w+)?(?:, *[\w.]+)*[ \t]*\n",
    ),
    "cpp": (r"template *<", r"namespace \w+ *\{", r"#include *<\w+>", r"using namespace ", r"[\w:<>*& ]+ \w+::~?\w+\("),
    "c": (
        r"#(?:include|define|ifndef|ifdef|pragma)\b",
        r"(?:static |const |unsigned |struct |inline |extern )*"
        r"(?:void|int|char|long|float|double|size_t|u?int\d+_t|bool)\b[\s*]+\w+\([^;{}]*\)\s*\{",
    ),
    "java": (
        r"package [\w.]+;",
        r"import (?:static )?[\w.*]+;",
        r"(?:@\w+(?:\([^()]*\))?\s+)*(?:(?:public|private|protected|static|final|abstract|synchronized|native)\s+)+"
        r"[\w<>\[\],.? ]+[({]",
    ),
    "go": (r"package \w+\s*\n", r"func (?:\([^()]*\) )?\w+\([^{}]*\{"),
    "rust": (
        r"(?:#!?\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?(?:async )?(?:unsafe )?"
        r"(?:fn \w+|impl\b[^;{}]*\{|struct \w+|enum \w+|trait \w+|mod \w+ *[{;]|use [\w:{}, *]+;)",
    ),
    "typescript": (
        r"(?:export )?(?:interface \w+[^{}]*\{|type \w+ *=|(?:abstract )?class \w+[^{}]*\{|enum \w+ *\{)",
        r"(?:export )?(?:async )?function \w+\([^)]*:[^{}]*\{",
        r"import [^\n;]* from ['\"]",
    ),
    "javascript": (
        r"(?:export (?:default )?)?(?:async )?function\b *\*? *\w*\([^)]*\) *\{",
        r"(?:const|let|var) \w+ *= *(?:require\(|(?:async )?(?:\([^()]*\)|\w+) *=>|function)",
        r"module\.exports *=",
    ),
}
# of these a parser tells whether it is code; those of Ruby or PHP find no error in prose
_PARSED = {*_OPENINGS, "tsx"}
_COMPILED = [(language, re.compile("|".join(patterns))) for language, patterns in _OPENINGS.items()]
_LEADING = re.compile(
    r"(?:\s*(?:/\*.*?\*/|//[^\n]*|#(?!include|define|if|pragma|!?\[)[^\n]*|(\"\"\"|''').*?\1))*\s*", re.S
)
# a heading stands after a blank line and is not followed by another of its level, as lines of a comment are
_MARKDOWN = re.compile(r"(?:\A|\n[ \t]*\n)(#{1,6}) (?!\s)[^\n]+(?!\n\1 )(?:\n|\Z)")
_HTML = re.compile(r"\s*(?:<!doctype html|<html\b)", re.I)
_CODE = re.compile(
    r"[{};][ \t]*$|\w\([^()]*\)[ \t]*$|^[ \t]*(?:#!|<\?|def |end$|sub |my |import |using |fi$|local |set )", re.M
)
_HTML_START = re.compile(
    r"\s*<(?:p|div|h[1-6]|ul|ol|table|span|a|b|i|strong|em|br|img|section|article|pre|code|blockquote|font|center|ac:[a-z-]+)\b"
    r"[^<>]*>",
    re.I,
)
_HTML_END = re.compile(
    r"</(?:p|div|li|ul|ol|h[1-6]|table|tr|td|pre|section|article|blockquote|strong|em|span|a|ac:[a-z-]+)>|<br */?>",
    re.I,
)
_HTML_BREAK = re.compile(r"</(?:p|div|li|ul|ol|h[1-6]|table|tr|td)>|<br */?>", re.I)
_HTML_QUOTED = re.compile(r"[\"'`(=]</?\w")
_MARKDOWN_MARK = re.compile(r"^(?:#{1,6} |[ \t]*(?:```|~~~)|[-*] )|`[^`\n]*</?\w+|\]\(", re.M)
_HTML_BLOCK = re.compile(r"</(?:p|div|li|ul|ol|h[1-6]|table|tr|td|body|html|pre|section|article)>", re.I)


def detect_format(text: str, names: tuple[str, ...] = ()) -> str:
    """Format of a text that did not come from a file.

    A path (``src/Foo.java``) decides, and so does a bare name (``Foo.java``, but also ``Node.js``) when the text parses
    in that language, or looks like code where there is no parser that could tell; otherwise the first statement must
    look like one of a known language and the text must parse in it. Everything else is prose.

    Args:
        text: the content.
        names: titles, ids or paths that may carry an extension, most trusted first.

    Returns:
        A language, ``"markdown"``, ``"html"`` or ``"text"``.
    """
    for name in names:
        found = format_of(name) if name and "." in name and not any(c.isspace() for c in name.strip()) else None
        if found in DERIVED_FORMATS or (found == "html" and not _HTML.match(text) and not _HTML_BLOCK.search(text)):
            continue  # a loader has read it already
        if found == "text" and looks_like_markdown(text):
            return "markdown"
        if found and (found in PROSE_FORMATS or "/" in name or _is_code(text, found)):
            return found
    if _HTML.match(text[:200]):
        return "html"
    language = _language(text)
    if language:
        return language
    if _is_fragment(text):
        return "html"
    return "markdown" if text.count("\n") > 2 and _MARKDOWN.search(text) else "text"


def looks_like_markdown(text: str) -> bool:
    """Whether a text file is Markdown all the same: two headings at least, of two levels, and few other hash signs.

    Lines of hash signs one below the other are comments.
    """
    if text.count("\n#") < 2 - text.startswith("#"):
        return False
    levels = [len(match.group(1)) for match in _MARKDOWN.finditer(text)]
    fenced = sum(text.count("\n#", start, end) for start, end in fence_spans(text))
    signs = text.count("\n#") + text.startswith("#") - fenced
    return len(levels) > 1 and len(set(levels)) > 1 and 2 * len(levels) > signs


def _is_fragment(text: str) -> bool:
    """Whether a text is a piece of a page, as editors of tickets and articles keep it: it opens with an element.

    One of Markdown with some elements in it, and one that tells of elements, stay what they are.
    """
    if _HTML_START.match(text):
        return _HTML_END.search(text) is not None and not _MARKDOWN_MARK.search(text)
    blocks = len(_HTML_BREAK.findall(text))
    return blocks > 1 and not _HTML_QUOTED.search(text) and not _MARKDOWN_MARK.search(text)


def _language(text: str) -> str | None:
    one_line = "\n" not in text.strip()
    if one_line and len(text) > _MAX_ONE_LINE:
        return None
    head = text[:_SAMPLE]
    opening = _LEADING.match(head)
    at = opening.end() if opening else 0
    matched = [language for language, pattern in _COMPILED if pattern.match(head, at)]
    if one_line and not text.rstrip().endswith((";", "}")):
        matched = [language for language in matched if language == "python"]
    return next(
        (language for language in matched if _parses(text, language, 0.0 if one_line else MAX_ERROR_SHARE)), None
    )


def _is_code(text: str, language: str) -> bool:
    """Whether it parses, or where no parser could tell looks like code at all: ``mail.php`` may be a title."""
    return _parses(text, language) if language in _PARSED else _CODE.search(text) is not None


def _parses(text: str, language: str, max_error_share: float = MAX_ERROR_SHARE) -> bool:
    """Whether a sample of the text parses with few errors."""
    if not text.strip():
        return False
    sample = text[:_SAMPLE].encode("utf-8", "replace")
    parsed = outline(sample, language)
    return parsed is not None and parsed.error_share <= max_error_share
