"""Groups of related texts with the weights a frozen retriever gives them, for the phase ``neighbours``.

    python groups.py --corpus corpus --output groups [--groups 500] [--retriever all-MiniLM-L6-v2]

Half of the groups are code: eight comments and the eight pieces of code they describe, each a text of its own, four of
the pairs from one file where it has that many. Half are prose: four documents, four consecutive chunks of
each. Writes ``texts.json`` (groups of 16 texts) and ``embeddings.safetensors`` (groups, 16, d).
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

log = logging.getLogger("groups")

SIZE = 16
CHARACTERS = 500  # about 150 tokens
# A documentation comment, then the lines up to the next blank line.
COMMENTED = re.compile(
    r"(?P<comment>^[ \t]*/\*\*.*?\*/|(?:^[ \t]*//[/!]?[^\n]*\n){2,})[ \t]*\n?(?P<code>[^\n]+\n(?:[^\n]+\n){2,})",
    re.MULTILINE | re.DOTALL,
)
MARKS = re.compile(r"^[ \t]*(?:/\*\*|\*/|\*|//[/!]?)[ \t]?", re.MULTILINE)


def commented_code(text: str, language: str) -> list[tuple[str, str]]:
    """(comment, code) pairs of one file, the code without its comment."""
    if language != "python":
        pairs = [(MARKS.sub("", m["comment"]).strip(), m["code"]) for m in COMMENTED.finditer(text)]
    else:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return []
        pairs, lines = [], text.splitlines(keepends=True)
        for node in ast.walk(tree):
            documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1
            if documented and (doc := ast.get_docstring(node)):
                head = lines[node.lineno - 1 : node.body[0].lineno - 1]
                pairs.append((doc, "".join([*head, *lines[node.body[1].lineno - 1 : node.end_lineno]])))
    return [(c[:CHARACTERS], k[:CHARACTERS]) for c, k in pairs if len(c.split()) >= 6 and len(k) >= 80]


def chunks(text: str) -> list[str]:
    """Consecutive pieces of whole lines, about ``CHARACTERS`` long."""
    pieces, current = [], ""
    for line in text.splitlines(keepends=True):
        if current and len(current) + len(line) > CHARACTERS:
            pieces.append(current)
            current = ""
        current += line[:CHARACTERS]
    return [piece for piece in [*pieces, current] if len(piece) >= 100]


def make_groups(rows: list[dict[str, str]], *, count: int, seed: int) -> list[list[str]]:
    """``count`` groups of 16 texts; a text is used once."""
    random_ = random.Random(seed)
    rows = random_.sample(rows, len(rows))
    fours = {"code": _code_fours(rows), "prose": _prose_fours(rows)}
    groups = []
    while len(groups) < count:
        kind = "code" if len(groups) % 2 else "prose"
        group = [text for _ in range(2 if kind == "code" else 4) for text in next(fours[kind], [])]
        if len(group) < SIZE:
            log.info("no more %s: %d groups", kind, len(groups))
            break
        groups.append(group)
    return groups


def _code_fours(rows: list[dict[str, str]]) -> Iterator[list[str]]:
    """Eight texts: four comments and their code, of one file while it lasts, else of several."""
    loose: list[tuple[str, str]] = []
    for row in rows:
        if row["kind"] == "code":
            pairs = commented_code(row["text"], row["language"])[:8]
            while len(pairs) >= 4:
                yield [text for pair in pairs[:4] for text in pair]
                pairs = pairs[4:]
            loose += pairs
            if len(loose) >= 4:
                yield [text for pair in loose[:4] for text in pair]
                loose = loose[4:]


def _prose_fours(rows: list[dict[str, str]]) -> Iterator[list[str]]:
    """Four consecutive chunks of one document, at most twice per document."""
    for row in rows:
        if row["kind"] == "prose":
            pieces = chunks(row["text"])
            for first in range(0, min(len(pieces) - 3, 8), 4):
                yield pieces[first : first + 4]


class Groups:
    """Batches for the objective: token ids, mask and the weights of one group.

    Args:
        folder: written by this script.
        tokenizer: of the language model.
        length: tokens of a text, at most.
        temperature: of the weights.
        seed: of order and copies.
        copy_steps: the chance of a batch of copies instead of related texts falls from 0.8 to 0 over so many batches.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerFast,
        *,
        length: int,
        temperature: float,
        seed: int,
        copy_steps: int = 0,
    ) -> None:
        self.texts: list[list[str]] = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        self.embeddings = load_file(folder / "embeddings.safetensors")["embeddings"]
        self.tokenizer, self.length, self.temperature = tokenizer, length, temperature
        self.seed, self.copy_steps = seed, copy_steps

    def __call__(self, number: int, *, shuffle: bool = True) -> tuple[dict[str, Tensor], Tensor]:
        """Batch ``number``: ``input_ids`` and ``attention_mask`` (16, L), weights (16, 16)."""
        from revela_training.objective.weights import similarity_weights

        epoch, place = divmod(number, len(self.texts))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.texts)) if shuffle else None
        group = int(order[place]) if order is not None else place
        rows = self.tokenizer(self.texts[group], truncation=True, max_length=self.length)["input_ids"]
        rng = np.random.default_rng([self.seed, number])
        if number < self.copy_steps and rng.random() < 0.8 * (1 - number / self.copy_steps):
            rows, weights = copies(rows, rng=rng)
        else:
            vectors = self.embeddings[group]
            weights = similarity_weights(vectors, vectors, temperature=self.temperature)
        return dict(self.tokenizer.pad({"input_ids": rows}, return_tensors="pt")), weights


def copies(rows: list[list[int]], *, rng: np.random.Generator) -> tuple[list[list[int]], Tensor]:
    """Pairs that overlap, under weights that are one for the partner and zero for everybody else.

    Every second text is replaced by its predecessor, shifted by a random number of tokens that come from the
    replaced text. What the two share can be read off the partner and nowhere else, so a model learns to look
    things up in its neighbours within a few hundred steps, where related texts alone take thousands.
    """
    mixed = list(rows)
    for first in range(0, len(rows) - 1, 2):
        bos, *text = rows[first]
        shift = int(rng.integers(1, max(len(text) // 2, 2)))
        filler = rows[first + 1][1:][:shift]
        moved = filler + text[: len(text) - len(filler)] if rng.random() < 0.5 else text[shift:] + filler
        mixed[first + 1] = [bos, *moved]
    partner = torch.arange(len(rows)) ^ 1
    return mixed, nn.functional.one_hot(partner, len(rows)).float()


def embed(groups: list[list[str]], retriever: str, *, bf16: bool) -> Tensor:
    """Unit embeddings of all texts, (groups, 16, d) fp32; bfloat16 arithmetic moves cosines by about 0.002."""
    from sentence_transformers import SentenceTransformer

    from revela_rag.model.find import resolve_model

    model = SentenceTransformer(resolve_model(retriever))
    model.max_seq_length = min(model.max_seq_length or 160, 160)
    texts = [text for group in groups for text in group]
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        vectors = model.encode(texts, batch_size=32, show_progress_bar=True, convert_to_tensor=True)
    vectors = nn.functional.normalize(vectors.float().cpu(), dim=-1)
    return vectors.view(len(groups), SIZE, -1).contiguous()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder written by collect.py")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split", choices=["train", "heldout"], default="train")
    parser.add_argument("--groups", type=int, default=500)
    parser.add_argument("--retriever", default="all-MiniLM-L6-v2")
    parser.add_argument("--bf16", action="store_true", help="embed in bfloat16, where the processor has it")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with (args.corpus / f"{args.split}.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    groups = make_groups(rows, count=args.groups, seed=args.seed)
    if not groups:
        raise SystemExit(f"{args.corpus} holds too little documented code and prose for one group of {SIZE}")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "texts.json").write_text(json.dumps(groups, ensure_ascii=False), encoding="utf-8")
    save_file({"embeddings": embed(groups, args.retriever, bf16=args.bf16)}, args.output / "embeddings.safetensors")
    log.info("%d groups", len(groups))


if __name__ == "__main__":
    main()
