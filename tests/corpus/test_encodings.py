"""Text in an encoding that statistics make clear is read; what they do not is counted."""

import pytest

from revela_rag.corpus import load_corpus
from revela_rag.corpus.formats.encodings import decode

TEXTS = {
    "ru": ("Сервер перезапускается вручную, только если очередь пуста.", ["cp1251", "koi8_r", "cp866", "iso8859_5"]),
    "uk": ("Сервер перезапускається вручну, лише якщо черга порожня.", ["cp1251", "koi8_u"]),
    "el": ("Ο διακομιστής επανεκκινείται χειροκίνητα μόνο αν η ουρά είναι άδεια.", ["cp1253"]),
    "he": ("השרת מופעל מחדש באופן ידני רק אם התור ריק והמפעיל נמצא במקום.", ["cp1255"]),
    "ar": ("يعاد تشغيل الخادم يدويا فقط إذا كان الطابور فارغا وكان المشغل حاضرا.", ["cp1256"]),
    "ja": ("サーバーを再起動する前に、すべての利用者に知らせてください。作業は夜間に行います。", ["cp932", "euc_jp"]),
    "zh": ("重启服务器之前请通知所有用户。工作在夜间进行，请检查日志文件中的错误，然后备份。", ["gb18030"]),
    "tw": ("重新啟動伺服器之前請通知所有使用者。工作在夜間進行，請檢查記錄檔中的錯誤。", ["big5"]),
    "ko": ("서버를 다시 시작하기 전에 모든 사용자에게 알려 주십시오. 작업은 밤에 진행됩니다.", ["cp949"]),
    "th": ("ก่อนรีสตาร์ทเซิร์ฟเวอร์ โปรดแจ้งให้ผู้ใช้ทุกคนทราบ งานจะดำเนินการในเวลากลางคืน", ["cp874"]),
}  # fmt: skip
CASES = [(name, encoding) for name, (_, encodings) in TEXTS.items() for encoding in encodings]


@pytest.mark.parametrize(("name", "encoding"), CASES)
@pytest.mark.parametrize("form", ["{}", "# {}\n\nA word of `code()` and {}\n", "{}\n" * 3000])
def test_other_scripts(name, encoding, form):
    text = form.replace("{}", TEXTS[name][0])
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["A text without a mark, with words.\nAnd a line.", *(text for text, _ in TEXTS.values())]
)
def test_utf16_without_a_mark(encoding, text):
    text = f"{text}\n# {text}\n"
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ("<meta charset='utf-8'><p>Die Größe 42, für breite Füße.</p>", "cp1252"),
        ("<meta charset='utf-8'><p>{ru}</p>", "cp1251"),
        ("<meta charset='iso-8859-1'><p>{ru}</p>", "cp1251"),
        ("<meta charset=windows-1252><p>{ja}</p>", "cp932"),
        ("<meta charset=iso-8859-1><p>“Quoted”, as Windows does – 5 €</p>", "cp1252"),
        ("<meta charset=shift_jis><p>{ja}</p>", "cp932"),
        ("<meta charset=iso-8859-2><p>Zażółć gęślą jaźń</p>", "iso8859_2"),
    ],
)
def test_pages_that_lie_about_their_encoding_are_read_and_those_that_do_not_too(page, encoding):
    page = page.format(**{name: text for name, (text, _) in TEXTS.items()})
    assert decode(page.encode(encoding)) == page


def test_what_is_not_clear_is_counted_with_the_remedy(tmp_path):
    (tmp_path / "a.md").write_text("A document that can be read.")
    (tmp_path / "short.md").write_bytes("素早い茶色の狐".encode("cp932"))
    (tmp_path / "noise.md").write_bytes(bytes((n * 7919) % 127 + 128 for n in range(4000)))
    (tmp_path / "binary.md").write_bytes(bytes(range(256)) * 20)
    assert load_corpus(tmp_path).report.skipped == {
        "binary or undecodable content": ["binary.md"],
        "encoding that cannot be told; save it as UTF-8": ["noise.md", "short.md"],
    }
