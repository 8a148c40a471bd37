"""Train the tokenizer and turn the collected documents into token arrays.

    python prepare.py --corpus corpus --output data [--vocabulary 8192] [--megabytes 60]

Half of the text is prose (documentation, reference text, READMEs), half code; within each half a language
counts with the square root of its size, so that no language drowns the others. Writes ``tokenizer/``, and for
each split ``<split>.npy`` (uint16 token ids of all documents in a row, each ended by EOS) with ``<split>.json``
(where each document starts, its bytes, its source).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

log = logging.getLogger("prepare")

BOS, EOS, PAD = "<|bos|>", "<|endoftext|>", "<|pad|>"
# Words take one leading sign or space with them; digits stand alone; a run of spaces before a word is one
# token that leaves the last space to the word, so the depth of indentation is visible as a token of its own.
WORDS = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def train_tokenizer(texts: list[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer: lossless on any text, no normalisation, BOS before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=512,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def balance(rows: list[dict[str, str]], total: int) -> list[dict[str, str]]:
    """About ``total`` bytes of the documents: half prose, half code, languages by the square root of their size."""
    by_kind: dict[str, dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_kind[row["kind"]][row["language"]].append(row)
    chosen: set[int] = set()
    for languages in by_kind.values():
        sizes = {name: sum(len(row["text"]) for row in group) for name, group in languages.items()}
        left, weight = total / len(by_kind), sum(size**0.5 for size in sizes.values())
        for name in sorted(sizes, key=lambda name: sizes[name]):  # what a small one cannot give goes to the others
            budget = left * sizes[name] ** 0.5 / weight
            weight -= sizes[name] ** 0.5
            used = 0
            for row in languages[name]:
                if used >= budget:
                    break
                used += len(row["text"])
                chosen.add(id(row))
            left -= used
    return [row for row in rows if id(row) in chosen]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Documents of one split."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_tokens(rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast, stem: Path) -> int:
    """Write the tokens of all documents and where each begins; returns how many tokens."""
    pieces: list[np.ndarray] = []
    starts, position = [], 0
    for first in range(0, len(rows), 256):
        batch = [row["text"] for row in rows[first : first + 256]]
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            pieces.append(np.array([*ids, tokenizer.eos_token_id], dtype=np.uint16))
            starts.append(position)
            position += len(ids) + 1
    np.save(stem.with_suffix(".npy"), np.concatenate(pieces))
    described = [
        {"start": start, "bytes": len(row["text"].encode()), "kind": row["kind"], "language": row["language"],
         "source": row["source"]}
        for start, row in zip(starts, rows, strict=True)
    ]  # fmt: skip
    stem.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")
    return position


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder written by collect.py")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--megabytes", type=float, default=60, help="training text to use")
    parser.add_argument("--heldout-megabytes", type=float, default=2)
    parser.add_argument("--tokenizer-megabytes", type=float, default=30, help="text the tokenizer is trained on")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.output.mkdir(parents=True, exist_ok=True)
    rows = balance(read_rows(args.corpus / "train.jsonl"), round(args.megabytes * 1e6))
    sample = balance(rows, round(args.tokenizer_megabytes * 1e6))
    tokenizer = train_tokenizer([row["text"] for row in sample], vocabulary=args.vocabulary)
    tokenizer.save_pretrained(args.output / "tokenizer")
    heldout = balance(read_rows(args.corpus / "heldout.jsonl"), round(args.heldout_megabytes * 1e6))
    for split, group in (("train", rows), ("heldout", heldout)):
        tokens = write_tokens(group, tokenizer, args.output / split)
        size = sum(len(row["text"].encode()) for row in group)
        log.info("%s: %d documents, %d bytes, %d tokens", split, len(group), size, tokens)


if __name__ == "__main__":
    main()
