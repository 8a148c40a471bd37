"""Loss of a language model on held-out documents, alone and among neighbours.

    python evaluate.py --data data --model run/neighbours [--groups heldout_groups] [--json FILE]

Alone: nats per token and bits per byte over rows of 160 tokens, by kind of text. Among neighbours: groups of held-out
texts read (a) without neighbours, (b) with the weights of the frozen retriever, (c) with the same weights dealt to
random texts of other groups, the control that shows what merely having more text to attend to is worth.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from groups import SIZE, Groups
from torch import nn

from revela_training.objective.lm import load_lm

log = logging.getLogger("evaluate")


@torch.no_grad()
def alone(model: nn.Module, data: Path, *, bos: int, length: int, limit: int) -> dict[str, dict[str, float]]:
    """Nats per token, bits per byte and counts on the held-out split, by language and over all."""
    tokens = np.load(data / "heldout.npy", mmap_mode="r")
    documents = json.loads((data / "heldout.json").read_text(encoding="utf-8"))
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for document, following in zip(documents, [*documents[1:], {"start": len(tokens)}], strict=True):
        ids = tokens[document["start"] : following["start"]].astype(np.int64)
        rows = [ids[i : i + length - 1] for i in range(0, len(ids), length - 1)]
        share = min(1.0, limit / len(rows))
        for first in range(0, min(len(rows), limit), 16):
            part = rows[first : min(first + 16, limit)]
            batch = torch.full((len(part), length), -100)
            batch[:, 0] = bos
            for row, values in zip(batch, part, strict=True):
                row[1 : 1 + len(values)] = torch.from_numpy(values)
            logits = model(input_ids=batch.clamp_min(0), use_cache=False).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            for key in ("all", document["kind"], document["language"]):
                totals[key] += (loss.item(), int((batch[:, 1:] >= 0).sum()), 0.0)
        for key in ("all", document["kind"], document["language"]):
            totals[key][2] += document["bytes"] * share
    return {
        key: {
            "nats_per_token": nats / count,
            "bits_per_byte": nats / math.log(2) / size,
            "tokens": count,
            "bytes": round(size),
        }
        for key, (nats, count, size) in sorted(totals.items())
    }


@torch.no_grad()
def among_neighbours(model: nn.Module, groups: Groups) -> dict[str, dict[str, float]]:
    """Bits per byte and nats per token of grouped texts: alone, with their neighbours, with random neighbours."""
    from revela_training import RevelaObjective

    objective = RevelaObjective(model, read="published", v_norm=True, dual=False, min_weight=0.01)
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    numbers = range(len(groups.texts))
    generator = torch.Generator().manual_seed(0)
    for number in numbers:
        kind = "code" if number % 2 else "prose"
        batch, weights = groups(number, shuffle=False)
        mask = batch["attention_mask"]
        predicted = int(mask[:, 1:].sum())
        kept = groups.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        out = objective(batch["input_ids"], mask, weights=weights)
        # control: each text between texts of other groups, under the same weights
        gain, count = 0.0, 0
        for row in range(SIZE):
            others = torch.randperm(len(groups.texts), generator=generator)[:SIZE].tolist()
            others = [other for other in others if other != number][: SIZE - 1]
            places = torch.randint(SIZE, (len(others),), generator=generator).tolist()
            texts = [groups.texts[o][p] for o, p in zip(others, places, strict=True)]
            texts.insert(row, groups.texts[number][row])
            if len(texts) < SIZE:
                continue
            mixed = groups.tokenizer(
                texts, padding=True, truncation=True, max_length=groups.length, return_tensors="pt"
            )
            labels = torch.full_like(mixed["input_ids"], -100)
            labels[row] = mixed["input_ids"][row].masked_fill(mixed["attention_mask"][row] == 0, -100)
            tokens = int((labels[:, 1:] >= 0).sum())
            control = torch.zeros_like(weights)
            control[row] = weights[row]
            result = objective(mixed["input_ids"], mixed["attention_mask"], labels, weights=control)
            gain += (result.baseline_loss.item() - result.loss.item()) * tokens
            count += tokens
            if row == 3:  # a quarter of the rows is enough for the control
                break
        for key in ("all", kind):
            sums[key]["tokens"] += predicted
            sums[key]["bytes"] += sum(len(text.encode()) for text in kept)
            sums[key]["alone"] += out.baseline_loss.item() * predicted
            sums[key]["neighbours"] += out.loss.item() * predicted
            sums[key]["random_gain"] += gain
            sums[key]["random_tokens"] += count
    return {key: _summary(values) for key, values in sums.items()}


def _summary(sums: dict[str, float]) -> dict[str, float]:
    per_byte = sums["tokens"] / sums["bytes"] / math.log(2)
    result = {"tokens": sums["tokens"], "bytes": sums["bytes"]}
    alone = sums["alone"] / sums["tokens"]
    random = alone - sums["random_gain"] / max(sums["random_tokens"], 1)
    for name, nats in (("alone", alone), ("neighbours", sums["neighbours"] / sums["tokens"]), ("random", random)):
        result |= {f"{name}_nats_per_token": nats, f"{name}_bits_per_byte": nats * per_byte}
    return result


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by prepare.py")
    parser.add_argument("--model", help="model folder (default: the bundled one)")
    parser.add_argument("--groups", type=Path, help="held-out groups (groups.py --split heldout)")
    parser.add_argument("--temperature", type=float, default=0.03)
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--rows", type=int, default=8, help="rows of 160 tokens to read per document")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, tokenizer = load_lm(args.model)
    result: dict[str, object] = {
        "alone": alone(model, args.data, bos=tokenizer.bos_token_id, length=args.length, limit=args.rows)
    }
    if args.groups:
        groups = Groups(args.groups, tokenizer, length=args.length, temperature=args.temperature, seed=0)
        result["groups"] = among_neighbours(model, groups)
    log.info(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
