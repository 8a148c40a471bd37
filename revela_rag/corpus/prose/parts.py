"""Parts of a prose chunk that say the same in different words."""

from __future__ import annotations

import re

from revela_rag.corpus.formats.names import format_of
from revela_rag.corpus.identifiers import spoken
from revela_rag.corpus.prose.sentences import sentence_spans
from revela_rag.corpus.text import LETTERS, count_words, squeeze, word_spans
from revela_rag.corpus.types import Part

__all__ = ["FEWEST_NAME_WORDS", "FEWEST_QUERY_WORDS", "prose_parts"]

#: Chunks without a heading, title or question are halved from this many words on.
MIN_HALVED_WORDS = 40
#: Words of a title, heading or docstring that can ask for something, and of a tool's name.
FEWEST_QUERY_WORDS, FEWEST_NAME_WORDS = 3, 2
_MIN_HALF_WORDS = 15
_MIN_ANSWER_WORDS = 5

_GENERIC_HEADINGS = (
    "abstract|acknowledge?ments?|appendix|arguments?|authors?|background|bibliography|bug fixes|change ?log|changes|"
    "conclusions?|contents?|contributing|contributors?|credits|description|details|discussion|document|examples?|faq|"
    "features|further reading|general|getting started|glossary|history|home|index|install|installation|introduction|"
    "licen[cs]e|methods?|misc|miscellaneous|motivation|new features|next steps|notes?|options?|other|overview|"
    "parameters?|prerequisites|quick ?start|raises|readme|references?|related|remarks?|requirements|results|returns?|"
    "see also|setup|summary|table of contents|todo|untitled|usage|what'?s new|"
    "目录|简介|介绍|概述|概览|前言|引言|背景|安装|用法|使用方法|使用说明|示例|参考资料|参考文献|附录|总结|结论|其他|更新日志|"
    "快速开始|快速入门|入门指南|常见问题|注意事项|环境要求|版本历史|许可证|目錄|簡介|介紹|安裝|使用說明|參考資料|附錄|總結|結論|"
    "目次|概要|はじめに|まとめ|おわりに|使い方|使用方法|インストール|サンプル|参考|参考資料|付録|変更履歴|更新履歴|用語集|"
    "注意事項|よくある質問|ライセンス|その他"
)
_GENERIC = re.compile(rf"[\W\d]*(?:{_GENERIC_HEADINGS})[\W\d]*", re.I)
_QUESTION_MARKS = ("?", "？", "؟")
_QUESTION_WORDS = (
    "what|how|why|when|where|who|whose|whom|which|can|could|do|does|did|is|are|was|were|should|would|will|has|have|had|"
    "am|may|shall"
)
_QUESTION = re.compile(rf"(?:q\d*[:.] ?)?(?:{_QUESTION_WORDS})(?:n't|'s|'re)?\b[^;{{}}=]*[\w)\"'”]\?$", re.I)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:(?:\.|::|#|/)[A-Za-z_]\w*)*")


def prose_parts(
    text: str, *, path: tuple[str, ...], title: str, first: bool, is_tool: bool = False
) -> tuple[Part, ...]:
    """Two parts of a chunk, or none.

    In this order: a question (heading or first sentence ending in ``?``) and its answer; the heading and its
    section; the title and its text; from 40 words on, the halves before and after the sentence boundary nearest the
    middle. Headings and titles go with the first chunk of their section only, and not when they say nothing
    ("Introduction", a version number, a path); a title that is an identifier is spelled out in words.

    Args:
        text: the chunk without its heading.
        path: headings above it, outermost first.
        title: title of the document, may be empty.
        first: whether it is the first chunk of its section.
        is_tool: whether the title is the name of a tool, of which two words say enough ("get weather").
    """
    heading = path[-1] if path else ""
    if first and heading.endswith(_QUESTION_MARKS) and len(LETTERS.findall(heading)) >= 3 and _is_answer(text):
        return Part("question", heading), Part("answer", text)
    if first and (question := _leading_question(text)):
        return question
    if first and _is_answer(text):
        if heading:
            query = _speaking(path, title)
            if query:
                return Part("heading", query), Part("section", text)
        else:
            speaks = _is_language(title, FEWEST_NAME_WORDS if is_tool else FEWEST_QUERY_WORDS)
            query = title if speaks else _spoken_identifier(title)
            if query and not _GENERIC.fullmatch(query):
                return Part("title", query), Part("text", text)
    return _halves(text)


def _is_answer(text: str) -> bool:
    return len(LETTERS.findall(text)) >= _MIN_ANSWER_WORDS


def _is_language(text: str, fewest: int = FEWEST_QUERY_WORDS) -> bool:
    """At least so many words with letters; paths and identifiers are one word."""
    if format_of(text) and not re.search(r"\s", text):
        return False
    return sum(bool(LETTERS.search(text, start, end)) for start, end in word_spans(text)) >= fewest


def _spoken_identifier(title: str) -> str:
    """``java.util.List.removeAllItems`` → ``List remove all items``; empty where a title names no such thing."""
    if not _IDENTIFIER.fullmatch(title) or format_of(title):
        return ""
    *above, name = re.split(r"[.:#/]+", title)
    words = spoken(name)
    return " ".join([*above[-1:], *words]) if len(words) >= 2 and len(words) + len(above[-1:]) >= 3 else ""


def _speaking(path: tuple[str, ...], title: str) -> str:
    """The heading, behind as many of those above as it takes to be three words; empty if it says nothing."""
    if _GENERIC.fullmatch(path[-1]) or not LETTERS.search(path[-1]):
        return ""
    names = [name for name in path[:-1] if not _GENERIC.fullmatch(name)] + [path[-1]]
    if title and title not in path:
        names.insert(0, title)
    for start in range(len(names) - 1, -1, -1):
        query = ": ".join(names[start:])
        if _is_language(query):
            return query
    return ""


def _leading_question(text: str) -> tuple[Part, ...]:
    if not any(mark in text[:400] for mark in _QUESTION_MARKS):
        return ()
    start, end = next(sentence_spans(text), (0, 0))
    question = squeeze(text[start:end])
    answer = text[end:].lstrip()
    asked = _QUESTION.match(question) is not None or not question.isascii()
    asked = asked and question.endswith(_QUESTION_MARKS)
    if asked and 3 <= len(LETTERS.findall(question)) <= 40 and count_words(answer) >= 10:
        return Part("question", question), Part("answer", answer)
    return ()


def _halves(text: str) -> tuple[Part, ...]:
    total = count_words(text)
    if total < MIN_HALVED_WORDS:
        return ()
    cuts = [start for start, _ in sentence_spans(text)][1:]
    if not cuts:
        return ()
    before = {cut: count_words(text[:cut]) for cut in cuts}
    cut = min(cuts, key=lambda at: abs(before[at] - total / 2))
    if min(before[cut], total - before[cut]) < _MIN_HALF_WORDS:
        return ()
    return Part("first_half", text[:cut].rstrip()), Part("second_half", text[cut:])
