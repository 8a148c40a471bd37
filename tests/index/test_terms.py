"""What BM25 counts."""

import pytest

from revela_rag.terms import analyze


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("getUserName", ["getusername", "get", "user", "name"]),
        ("get_user_name", ["get_user_name", "get", "user", "name"]),
        ("HTTPServerError", ["httpservererror", "http", "server", "error"]),
        ("utf8", ["utf8", "utf", "8"]),
        ("os.path.join", ["os.path.join", "os", "path", "join"]),
        ("src/main/App.java", ["src/main/app.java", "src", "main", "app", "java"]),
        ("The running of the users", ["run", "user"]),
        ("straße STRASSE Straße 日本語", ["strass"] * 3 + ["日本", "本語"]),
        ("re\u0301sume\u0301 r\u00e9sum\u00e9 RE\u0301SUME\u0301", ["r\u00e9sum\u00e9"] * 3),
        ("ｇｅｔＵｓｅｒ ＡＢＣ１２", ["getuser", "get", "user", "abc12", "abc", "12"]),
        ("İstanbul i\u0307stanbul istanbul ISTANBUL", ["istanbul"] * 4),
        ("ﬁnal ﾃﾞｰﾀ 데", ["final", "デー", "ータ", "데"]),
        ("wait…done Word™", ["wait", "done", "word"]),
        ("本", ["本"]),
        ("用Python写的GetUser函数v2", ["用", "python", "写的", "getuser", "函数", "v2"]),
        ("데이터베이스 연결", ["데이", "이터", "터베", "베이", "이스", "연결"]),
        ("", []),
        ("  ;;; ... --- ", []),
        ("the of and", []),
        ("Can you tell me what I need?", ["tell", "need"]),
        ("the user's IT budget, it’s what WHO and who said", ["user", "it", "budget", "who", "said"]),
        ("I don't, you won't, they'RE done", ["wo", "done"]),
        ("canRead isDone", ["canread", "read", "isdone", "done"]),
    ],
)
def test_code_aware_terms(text, terms):
    assert analyze(text) == terms


def test_plain_terms_and_unknown_analyzers():
    assert analyze("The getUserName runs", "plain") == ["getusername", "runs"]
    with pytest.raises(ValueError, match="analyzer='nope'"):
        analyze("x", "nope")
    assert analyze("数据库 ABC", "plain") == ["数据", "据库", "abc"]
    assert analyze("Stra\u00dfe e\u0301", "plain") == ["strasse", "\u00e9"]
