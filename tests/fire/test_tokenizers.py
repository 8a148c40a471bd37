"""Expressions of a tokenizer that would take exponential time."""

import json
import time

import pytest

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.safety import check_model, patterns
from revela_rag.model.safety.patterns import can_explode

ENDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SOUND = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama 3": ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-4o": rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{M}}]*[\p{{Ll}}\p{{M}}]+{ENDS}?|\p{{N}}{{1,3}}|\s+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "deepseek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|\s*[\r\n]+",
    "possessive": r"(?:a+b*)++c",
    "few": r"(?:a+|b){1,3}",
}
#: These repeat what is of variable length, and no text can be matched in two ways.
HARMLESS = [
    ENDS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+",
    r"\d{1,3}(?=(?:\d{3})*\b)",
]
ENDLESS = [r"(a+)+$", r"(?:a|aa)+$", r"(x+x+)+y", r"(\w*\s*)*;", r"([a-z]+)*\d", r"((ab)*)*c", r"(?:\p{L}+\p{L}*)+9"]


def split(model, pattern, part="pre_tokenizer"):
    stored = json.loads((model / "tokenizer.json").read_text())
    if part == "normalizer":
        stored[part] = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "-"}
    else:
        one = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        stored[part] = {"type": "Sequence", "pretokenizers": [one]}
    (model / "tokenizer.json").write_text(json.dumps(stored))


@pytest.mark.parametrize("pattern", SOUND.values(), ids=SOUND)
def test_expressions_of_models_are_believed(model, pattern, monkeypatch):
    monkeypatch.setattr(patterns, "_tried", lambda *args: pytest.fail("it was tried out"))
    split(model, pattern)
    check_model(model)


@pytest.mark.parametrize("pattern", HARMLESS)
def test_a_doubtful_one_is_tried_out(model, pattern):
    assert can_explode(pattern)
    split(model, pattern)
    check_model(model)


@pytest.mark.parametrize(
    ("pattern", "part"), [*((pattern, "pre_tokenizer") for pattern in ENDLESS), (ENDLESS[0], "normalizer")]
)
def test_an_endless_one_is_refused(model, pattern, part):
    split(model, pattern, part)
    with pytest.raises(ModelError, match=r"tokenizer\.json' splits texts by .*(fails|takes more than)"):
        Encoder(model).encode_queries(["a text"])


def test_what_takes_long_is_ended(model, monkeypatch):
    """Just below what the engine allows at each character: it would take minutes."""
    monkeypatch.setattr(patterns, "_SECONDS", 3.0)
    split(model, r"(?:.|.){23}\x02")
    before = time.monotonic()
    with pytest.raises(ModelError, match="takes more than 3 s"):
        check_model(model)
    assert time.monotonic() - before < 20


@pytest.mark.parametrize("pattern", ["", "(", "[", "[^", "\\", "(?", "(((", ")", "a{", "a{2", "]", "|", "(?<", "\\p{"])
def test_any_text_is_looked_at(pattern):
    assert can_explode(pattern) is False
