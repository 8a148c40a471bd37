"""A corpus without spaces between words goes the whole road of `adapt`."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from revela_rag.corpus import Corpus, load_corpus, structural_pairs
from revela_training import adapt
from revela_training.assemble import look_for_unknown_tokens
from revela_training.config import AdaptConfig
from revela_training.data.pseudo_queries import pseudo_queries
from revela_training.data.units import cropped, make_units
from revela_training.gate.held_back import evaluation_pairs
from revela_training.resolve import make_plan

CHINESE = (
    "{verb}{noun}的步骤",
    "{verb}{noun}之前，请先登录管理后台，并确认您拥有相应的权限。在左侧菜单中选择{noun}，然后点击{verb}按钮。"
    "系统会显示进度条；如果操作失败，请查看日志文件中的错误代码！完成后，{noun}的状态会在几分钟内更新。",
    ("数据库", "服务器", "用户账号", "备份文件", "网络接口"),
    ("创建", "删除", "修改", "导出", "检查", "恢复", "停用", "迁移"),
)
JAPANESE = (
    "{noun}を{verb}する方法",
    "{noun}を{verb}するには、まず管理画面にログインして、必要な権限があることを確認してください。左側のメニューから"
    "{noun}を選び、{verb}ボタンを押します。失敗した場合は、ログに記録されたエラーコードを調べてください！"
    "完了すると、{noun}の状態は数分以内に更新されます。",
    ("データベース", "サーバー", "アカウント", "予備の文書", "回線"),
    ("作成", "削除", "変更", "出力", "検査", "復元", "停止", "移行"),
)
THAI = (
    "วิธี{verb}{noun}",
    "ก่อน{verb}{noun}ให้เข้าสู่ระบบผู้ดูแลและตรวจสอบสิทธิ์ของคุณ จากนั้นเลือก{noun}จากเมนูด้านซ้ายแล้วกดปุ่ม{verb} "
    "หากไม่สำเร็จให้ดูรหัสข้อผิดพลาดในบันทึก",
    ("ฐานข้อมูล", "เครื่องแม่ข่าย", "บัญชีผู้ใช้", "ไฟล์สำรอง", "เครือข่าย"),
    ("สร้าง", "ลบ", "แก้ไข", "ส่งออก", "ตรวจสอบ", "กู้คืน", "หยุด", "ย้าย"),
)


def sections(language: tuple[str, str, tuple[str, ...], tuple[str, ...]]) -> list[tuple[str, str]]:
    heading, body, nouns, verbs = language
    return [
        (heading.format(noun=noun, verb=verb), body.format(noun=noun, verb=verb))
        for noun, verb in product(nouns, verbs)
    ]


@pytest.fixture(params=[CHINESE, JAPANESE, THAI], ids=["chinese", "japanese", "thai"])
def written(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """Forty headings and their sections."""
    return sections(request.param)


def folder_of(written: list[tuple[str, str]], folder: Path) -> Path:
    folder.mkdir()
    for number, (heading, body) in enumerate(written):
        (folder / f"{number}.md").write_text(f"# {heading}\n\n{body}\n", encoding="utf-8")
    return folder


def loaded(texts: list[str]) -> Corpus:
    return load_corpus(texts, deduplicate=False)


def test_headings_are_pairs(written: list[tuple[str, str]], tmp_path: Path) -> None:
    corpus = load_corpus(folder_of(written, tmp_path / "docs"), deduplicate=False)
    pairs = structural_pairs(corpus.chunks)
    assert {(pair.query, pair.answer_text) for pair in pairs} == set(written)
    assert evaluation_pairs(corpus.chunks) == (pairs, False)


def test_without_headings_texts_are_cut_in_two_as_they_stand(written: list[tuple[str, str]]) -> None:
    corpus = loaded([body for _, body in written])
    pairs, weak = evaluation_pairs(corpus.chunks)
    assert weak and len(pairs) == len(corpus.chunks) == 40
    for _, body in written:
        first, second = cropped(body) or ("", "")
        assert body in (first + second, f"{first} {second}")
        assert 0.7 < len(first) / len(second) < 1.4
    assert all(unit.is_pair for unit in make_units(corpus.chunks, crop=True))
    assert cropped("连接数据库") is None


def test_spans_are_cut_out_as_they_stand(written: list[tuple[str, str]]) -> None:
    bodies = [body for _, body in written]
    made = pseudo_queries(bodies, limit=40)
    assert {query.passage for query in made} == set(range(40))
    assert all(query.text in bodies[query.passage] and 5 <= len(query.text) <= 80 for query in made)
    assert pseudo_queries(["连接数据库"], limit=1) == []


def test_a_text_in_two_scripts_is_cut_at_words() -> None:
    text = "使用 Docker 部署服务时，请先安装 Python 3.11 以及 pip，然后运行 make install 命令。" * 2
    first, second = cropped(text) or ("", "")
    assert (first + second).replace(" ", "") == text.replace(" ", "")
    for query in pseudo_queries([text], limit=1, draws=20):
        assert query.text in text
        assert not query.text.endswith(("Dock", "Pyth")) and not query.text.startswith(("ocker", "ython"))


@pytest.mark.parametrize("structured", [True, False], ids=["headings", "prose"])
def test_adapt_takes_such_a_corpus(structured: bool, base_dir: Path, tmp_path: Path) -> None:
    written = sections(CHINESE)
    source = folder_of(written, tmp_path / "docs") if structured else [body for _, body in written]
    result = adapt(
        source,
        output=tmp_path / "model",
        base=str(base_dir),
        adapter="linear",
        max_steps=2,
        group_size=4,
        groups_per_step=1,
        max_tokens=24,
        holdout=0.5,  # of forty chunks as many as it takes to judge
        show_progress=False,
    )
    assert result.path.is_dir() and result.report["training"]["steps"] == 2
    assert bool(result.report["gate"].get("weak")) != structured


@pytest.mark.parametrize(("known", "warned"), [("连接数据库 的", False), ("the words of another language", True)])
def test_a_base_that_cannot_read_the_corpus_is_named(
    known: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    vocabulary = {"[UNK]": 0, **{word: i for i, word in enumerate(known.split(), start=1)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    retriever: Any = SimpleNamespace(
        model=SimpleNamespace(tokenizer=tokenizer), inference_max_length=64, base_name="tiny"
    )
    chunks = loaded(["连接数据库 的 " * 10]).chunks
    look_for_unknown_tokens(retriever, chunks, make_plan(AdaptConfig(), "linear"))
    assert ("tiny has no token for 100 % of the corpus" in caplog.text) == warned
