"""Regular expressions of a tokenizer that could take exponential time, tried in a process that is ended.

The engine behind tokenizers goes back and tries again, up to ten million times from every character of a text. Few
expressions can need that: those that repeat what is itself of variable length. Some models have a harmless one, so that
these are tried out on texts that would show it, within a budget; all others are believed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from revela_rag.errors import ModelError
from revela_rag.model.safety.files import walk

__all__ = ["can_explode", "check_patterns"]

_SECONDS = 10.0  # for all the texts, and to start
_RUN, _REPEATED = 80, 4
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_COMMON = ("a", "A", "ab", "0", " ", "\n", "'", "!", "_", "-", "é", "中", "a1", "a ", " a", "\r\n")
_CODE = """
import sys; sys.path[:] = sys.argv[1:]
import json
from tokenizers import Tokenizer
parts, texts = json.load(sys.stdin)
model = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}
tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts}))
for text in texts:
    tokenizer.encode(text)
"""


def check_patterns(file: Path, stored: dict[str, Any]) -> None:
    """Refuse a tokenizer with an expression that takes exponential time.

    Args:
        file: it was read from.
        stored: what ``tokenizer.json`` says.

    Raises:
        ModelError: naming file and expression.
    """
    parts = {part: stored.get(part) for part in ("normalizer", "pre_tokenizer")}
    found = sorted({value for key, value in walk(parts) if key == "Regex" and isinstance(value, str)})
    doubtful = tuple(pattern for pattern in found if can_explode(pattern))
    if doubtful and (reason := _tried(json.dumps(parts), doubtful)):
        raise ModelError(
            f"{str(file)!r} splits texts by {doubtful[0][:99]!r}, which repeats what varies in length and {reason}; "
            "do not load it."
        )


def can_explode(pattern: str) -> bool:
    """Whether an expression repeats, without end or often, a group that can match one text in several ways."""
    inside: list[bool] = []  # of each open group, whether it is variable
    place, size = 0, len(pattern)
    while place < size:
        sign = pattern[place]
        if sign == "(":
            inside.append(False)
            place += 1
            if pattern.startswith("?", place):
                place = _past_kind(pattern, place)
            continue
        if sign in "|" and inside:
            inside[-1] = True
        step, group = _past_atom(pattern, place), sign == ")"
        variable = inside.pop() if group and inside else False
        most, possessive, after = _quantifier(pattern, step)
        if variable and most > _REPEATED and not possessive:
            return True
        if inside and (variable or after > step):
            inside[-1] = True
        place = after
    return False


def _past_kind(pattern: str, place: int) -> int:
    """Past ``?:``, ``?i:``, ``?=`` and their like."""
    found = re.compile(r"\?(?:[a-zA-Z-]*:|<?[=!]|>|<\w+>|[a-zA-Z-]+(?=\)))").match(pattern, place)
    return found.end() if found else place + 1


def _past_atom(pattern: str, place: int) -> int:
    """Past one character, escape or class."""
    if pattern[place] == "\\":
        found = re.compile(r"\\(?:[pPxu]\{[^}]*\}|.)", re.DOTALL).match(pattern, place)
        return found.end() if found else place + 1
    if pattern[place] != "[":
        return place + 1
    depth, at = 0, place
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            at += 1
        elif sign == "[":
            depth += 1
        elif sign == "]" and not pattern[place:at].endswith(("[", "[^")):
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return len(pattern)


def _quantifier(pattern: str, place: int) -> tuple[float, bool, int]:
    """How often what stands before ``place`` may be repeated, whether without going back, and where it ends."""
    if place < len(pattern) and pattern[place] in "*+?":
        most = 1 if pattern[place] == "?" else float("inf")
        after = place + 1
    elif found := _COUNT.match(pattern, place):
        least, comma, end = found.groups()
        most = float(end or ("inf" if comma else least or "1"))
        after = found.end()
    else:
        return 1, False, place
    possessive = pattern.startswith("+", after)
    return most, possessive, after + (1 if pattern[after : after + 1] in ("+", "?") else 0)


def _texts(patterns: tuple[str, ...]) -> Iterator[str]:
    """Runs of what an expression names and of common characters, each with an end that does not fit.

    What the expression names comes after that end once more: the engine gives up where a text lacks what it must have.
    """
    everything = "".join(patterns)
    codes = re.findall(r"\\[xu]\{?([0-9a-fA-F]{2,6})", everything)
    literal = re.sub(r"\\[pPxu]\{[^}]*\}|\\[a-zA-Z]|[\[\](){}|*+?^$.\\]", " ", everything)
    named = sorted({*literal.replace(" ", ""), *everything, *(chr(int(code, 16) % 0xD800) for code in codes)})
    words = {*literal.split(), *named}
    for piece in [*_COMMON, *sorted(words)[:200]]:
        run = (piece * _RUN)[: max(_RUN, 3 * len(piece))]
        yield run
        yield f"{run}\x01"
        yield f"{run}!"
        yield f"{run}\x1f{''.join(named)} {''.join(reversed(named))} 0\n"
    yield "The quick brown fox jumps over the lazy dog, 1234 times. " * 3


@lru_cache(maxsize=64)
def _tried(parts: str, patterns: tuple[str, ...]) -> str:
    """What happens when the expressions are tried out; empty where they are quick."""
    request = json.dumps([json.loads(parts), list(_texts(patterns))])
    if getattr(sys, "frozen", False):
        return "cannot be tried out here"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, *sys.path],
            input=request.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"takes more than {_SECONDS:.0f} s on texts of {_RUN} characters"
    except OSError:
        return "cannot be tried out here"
    return "" if done.returncode == 0 else f"fails on texts of {_RUN} characters"
