"""Configuration files to pieces at their top-level keys or blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from revela_rag.corpus.code.lines import Line, split_lines
from revela_rag.corpus.text import count_words

__all__ = ["CONFIG_FORMATS", "config_pieces"]

#: How a line begins that opens a block, by format; its group is the block's name.
_OPENINGS = {
    "yaml": re.compile(r"(?!---|-\s)([^\s#{}\[\],&*!|>%@`:][^#]{0,200}?):(?:\s|$)"),
    "toml": re.compile(r"\[{1,2}[ \t]*([^\[\]]+?)[ \t]*\]"),
    "ini": re.compile(r"\[[ \t]*([^\[\]]+?)[ \t]*\]"),
    "hcl": re.compile(r"([A-Za-z_][\w-]*(?:[ \t]+(?:\"[^\"\n]*\"|[\w-]+))*)[ \t]*(?:\{|=)"),
    "dockerfile": re.compile(r"(FROM[ \t]+\S.{0,200})", re.I),
}
_OPENINGS["terraform"] = _OPENINGS["hcl"]
_ENTRY = re.compile(r"-\s+(\S.{0,80})")  # of a file of YAML that is a list
CONFIG_FORMATS = frozenset(_OPENINGS)

_COMMENTS = ("#", ";", "//")
_END = re.compile(r"---|\.\.\.")  # of a document of YAML, which shares no piece with the next


def config_pieces(
    lines: Sequence[Line], language: str, *, max_words: int, max_lines: int
) -> Iterator[tuple[list[Line], str]]:
    """Consecutive pieces within both limits, each with the name of its block where it is one or a part of one.

    Small blocks share a piece, cuts go between blocks; only a block beyond the limits is cut inside.
    """
    group: list[Line] = []
    names: list[str] = []
    words = 0
    for block, name, is_fresh in _blocks(lines, language):
        own = sum(count_words(line.text) for line in block)
        if group and (is_fresh or words + own > max_words or len(group) + len(block) > max_lines):
            yield group, names[0] if len(names) == 1 else ""
            group, names, words = [], [], 0
        if own > max_words or len(block) > max_lines:
            for piece in split_lines(block, max_words=max_words, max_lines=max_lines):
                yield piece, name
        elif any(line.text.strip() for line in block):
            group, names, words = group + block, [*names, name], words + own
    if group:
        yield group, names[0] if len(names) == 1 else ""


def _blocks(lines: Sequence[Line], language: str) -> Iterator[tuple[list[Line], str, bool]]:
    """Blocks with the comments above them, their names, and whether they must not share a piece with what is above.

    Where no line opens a block, what follows a blank line does.
    """
    matches = [_OPENINGS[language].match(line.text) for line in lines]
    if not any(matches) and language == "yaml":
        matches = [_ENTRY.match(line.text) for line in lines]
    names = [match.group(1).replace('"', "").strip("' ") for match in matches if match]
    starts = [row for row, match in enumerate(matches) if match]
    if not starts:
        bare = [bool(line.text[:1].strip()) for line in lines]
        starts = [row for row, is_bare in enumerate(bare) if is_bare and not (row and lines[row - 1].text.strip())]
        names = [""] * len(starts)
    at, name, is_fresh = 0, "", False
    for start, following in zip(starts, names, strict=True):
        above = start
        while above > at and lines[above - 1].text.startswith(_COMMENTS):
            above -= 1
        ends = language == "yaml" and above > at and _END.match(lines[above - 1].text) is not None
        above -= ends
        if above > at:
            yield list(lines[at:above]), name, is_fresh
            at, is_fresh = above, ends
        name = following
    yield list(lines[at:]), name, is_fresh
