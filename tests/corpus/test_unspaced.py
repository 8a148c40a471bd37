"""Scripts without spaces between words have words too; text with spaces is read as ever."""

import pytest

from revela_rag.corpus import Document, chunk_document, structural_pairs
from revela_rag.corpus.code.comments import is_boilerplate
from revela_rag.corpus.text import word_spans

CHINESE = "要连接数据库，请先打开设置页面，填写主机名和端口，然后点击保存按钮。系统会检查连接是否可用！"


def words(text):
    return [text[start:end] for start, end in word_spans(text)]


def pairs_of(text, title="", format="markdown"):
    pairs = structural_pairs(chunk_document(Document("doc", text, title, format)))
    return [(pair.query_role, pair.query) for pair in pairs]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Plain words, (some) `code` - and a\ttab.\x1c\x85end",
        "Größe «naïve» — d’été … 3,5 €",
        "слово за слово",
        "데이터베이스 연결을 (설정)하는 방법",
        "non\u00a0breaking\u3000spaces",
        "e\u0301te\u0301 🎉 👩\u200d💻",
    ],
)
def test_text_with_spaces_gives_its_words(text):
    assert words(text) == text.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("使用Python编写代码，打开「设置」。", ["使用", "Python", "编写", "代码，", "打开", "「设置」。"]),
        ("打开 config.yaml 文件（必须）", ["打开", "config.yaml", "文件", "（必须）"]),
        ("データを開く。", ["デー", "タを", "開く。"]),
        ("か\u3099き\u3099く\u3099", ["か\u3099き\u3099", "く\u3099"]),
        ("ที่นี่มีน้ำใจ", ["ที่นี่", "มีน้ำ", "ใจ"]),
        ("한국어漢字", ["한국어", "漢字"]),
    ],
)
def test_two_letters_of_a_script_without_spaces_are_a_word(text, expected):
    assert words(text) == expected


def test_nothing_is_lost_whatever_stands_side_by_side():
    text = "数a「。 かก่า```เ—x、\u0e48\u3099(（ 字)𠀀\n-語"
    for start in range(len(text)):
        for end in range(start, len(text) + 1):
            assert "".join(words(text[start:end])) == "".join(text[start:end].split())


@pytest.mark.parametrize(
    ("heading", "role"), [("连接数据库", "heading"), ("データベースの設定", "heading"), ("如何备份数据？", "question")]
)
def test_headings_ask_for_their_sections(heading, role):
    assert pairs_of(f"# {heading}\n\n{CHINESE}") == [(role, heading)]


def test_short_headings_take_those_above_and_some_say_nothing():
    assert pairs_of(f"# 数据库\n\n## 连接\n\n{CHINESE}") == [("heading", "数据库: 连接")]
    assert pairs_of(f"# 数据库管理工具\n\n## 1. 简介\n\n{CHINESE}") == []


def test_titles_and_leading_questions_ask_and_paths_do_not():
    assert pairs_of(CHINESE, "连接数据库") == [("title", "连接数据库")]
    assert pairs_of(CHINESE, "连接数据库.md") == []
    assert pairs_of(f"如何连接数据库？{CHINESE}") == [("question", "如何连接数据库？")]


def test_prose_is_halved_between_sentences():
    (chunk,) = chunk_document(Document("doc", CHINESE * 2, "", "text"))
    first, second = chunk.parts
    assert (first.role, second.role) == ("first_half", "second_half")
    assert first.text + second.text == chunk.text and first.text[-1] in "。！"


def test_docstrings_of_code_count():
    body = "    timeout = read(host, port)\n    return timeout\n"
    code = f'def connect(host, port):\n    """返回数据库连接的超时时间。"""\n{body}'
    assert pairs_of(code, format="python") == [("docstring", "返回数据库连接的超时时间。")]
    assert is_boilerplate("超时") and not is_boilerplate("返回超时时间")


def test_words_beyond_the_limit_keep_their_marks():
    text = "ที่" * 200
    chunks = chunk_document(Document("doc", text, "", "text"))
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(chunk.text[0] == "ท" for chunk in chunks)
