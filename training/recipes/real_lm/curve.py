"""Retrieval quality over the steps of one training, on sets in BEIR layout: what a raw language model learns, and how.

    python curve.py --base smollm2-135m --lm smollm2-135m --data scifact --signal objective --output out

``--signal`` says what trains: "objective" (the Revela objective alone), "contrastive" (InfoNCE on pairs that structure
gives away, keywords and spans: the control), or "both". All start from the same weights and see the same texts. With
``--whole`` chunks stay whole: no structure tells what belongs together. Queries and judgements only score. Every
evaluation is one line of OUTPUT/SET-SIGNAL-SEED.jsonl, with the seconds that training alone took; the last vectors of
queries and documents stand beside it, for fusion.

The same command runs on a GPU: ``--group-size 32 --tokens 160 --minutes 3``.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.corpus import load_corpus
from revela_rag.evaluation import RetrievalData, load_beir
from revela_training.config import RAW_DECODER, AdaptConfig
from revela_training.curve import Curve

log = logging.getLogger("curve")

SIGNALS: dict[str, dict[str, Any]] = {
    "objective": {"contrastive_weight": 0.0, "revela_weight": 1.0},
    "contrastive": {"contrastive_weight": 1.0, "revela_weight": 0.0},
    "both": {"contrastive_weight": 1.0, "revela_weight": 1.0},
}


def part(data: RetrievalData, *, queries: int, documents: int, seed: int = 0) -> RetrievalData:
    """At most so many queries, and documents: those relevant to them first, then others, drawn at random."""
    rng = np.random.default_rng(seed)
    order = sorted(q for q, grades in data.qrels.items() if any(grade > 0 for grade in grades.values()))
    kept = set(rng.permutation(order)[:queries].tolist())
    data.queries = {id_: text for id_, text in data.queries.items() if id_ in kept}
    data.qrels = {id_: grades for id_, grades in data.qrels.items() if id_ in kept}
    relevant = sorted({id_ for grades in data.qrels.values() for id_, grade in grades.items() if grade > 0})
    others = rng.permutation(sorted(data.corpus.keys() - set(relevant))).tolist()
    chosen = set([*relevant, *others][: max(documents, len(relevant))])
    data.corpus = {id_: value for id_, value in data.corpus.items() if id_ in chosen}
    return data


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="model that becomes a retriever")
    parser.add_argument("--lm", required=True, help="LM that reads")
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="BEIR layout")
    parser.add_argument("--split", help="file in qrels/ (default: test, or the only one)")
    parser.add_argument("--signal", choices=SIGNALS, action="append", help="default: objective")
    parser.add_argument("--whole", action="store_true", help="leave chunks whole")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--minutes", type=float, help="of training, each; evaluations do not count")
    parser.add_argument("--every", type=int, default=50, metavar="STEPS", help="between evaluations")
    parser.add_argument("--at-start", action="store_true", help="evaluate the base, too")
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of a text in training")
    parser.add_argument("--evaluated-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of AdaptConfig")
    parser.add_argument("--name", default="", help="part of the file name, for variants")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Every set with every signal."""
    args = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    given = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in args.set)}
    args.output.mkdir(parents=True, exist_ok=True)
    for folder in args.data:
        data = part(load_beir(folder, split=args.split), queries=args.queries, documents=args.documents)
        records = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in data.corpus.items()]
        chunks = load_corpus(records).chunks
        for signal in args.signal or ["objective"]:
            settings: dict[str, Any] = {
                **{"batching": "related", "contrastive_pairs": 24, "contrastive_negatives": 16},
                **RAW_DECODER,
                **{"base": args.base, "lm": args.lm, "max_steps": args.steps, "seed": args.seed},
                **{"group_size": args.group_size, "max_tokens": args.tokens, "retriever_max_tokens": args.tokens},
                **SIGNALS[signal],
                **given,
            }
            parts = [folder.name, signal, *(["whole"] if args.whole else []), str(args.seed), args.name]
            file = args.output / f"{'-'.join(filter(None, parts))}.jsonl"
            log.info("%s: %d documents, %d queries", file.stem, len(data.corpus), len(data.queries))
            curve = Curve(
                chunks,
                data,
                AdaptConfig(**settings),
                file.with_suffix(""),
                structure=not args.whole,
                evaluated_tokens=args.evaluated_tokens,
            )
            file.write_text("", encoding="utf-8")
            for point in curve.points(every=args.every, minutes=args.minutes, at_start=args.at_start):
                with file.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(point.as_dict()) + "\n")
            for name, value in zip(("queries", "documents"), curve.vectors or (), strict=True):
                np.save(file.with_suffix(f".{name}.npy"), value.astype(np.float16))


if __name__ == "__main__":
    main()
