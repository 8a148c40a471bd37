"""Retrieval quality over the steps of one training, on sets in BEIR layout: what a raw language model learns, and how.

    python curve.py --base smollm2 --lm smollm2 --data scifact --documents 1500 --signal objective --output out

``--signal`` says what trains: "objective" (the Revela objective alone: no pair is marked), "contrastive" (InfoNCE on
pairs that structure gives away, keywords and spans: the control), or "both". All start from the same weights and see
the same texts. Queries and judgements only score. Every evaluation is one line of OUTPUT/SET-SIGNAL-SEED.jsonl, with
the seconds that training alone took; the last vectors of queries and passages stand beside it, for fusion.

The same command runs on a GPU: ``--group-size 32 --tokens 160 --minutes 3``.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from revela_rag.corpus import load_corpus
from revela_rag.evaluation import RetrievalData, dense_run, load_beir, score_run
from revela_training.assemble import build_collator, build_dataset, build_lm, build_retriever, plan_steps
from revela_training.backbone import TrainableRetriever
from revela_training.batching import GroupDataset
from revela_training.collate import GroupCollator
from revela_training.config import AdaptConfig
from revela_training.distributed import World
from revela_training.model import RevelaModel
from revela_training.precision import use_bf16
from revela_training.step import Step
from revela_training.units import make_units
from revela_training.workspace import Workspace

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


@dataclass
class Curve:
    """One training with its evaluations.

    Args:
        data: what is searched and scored.
        config: settings, all filled in.
        output: file of the lines.
        evaluated_tokens: tokens of queries and passages that are read in an evaluation.
    """

    data: RetrievalData
    config: AdaptConfig
    output: Path
    evaluated_tokens: int
    _seconds: float = 0.0
    _losses: list[dict[str, float]] = field(default_factory=list)

    def run(self, *, every: int, minutes: float | None) -> None:
        """Train and evaluate until the steps or the minutes of training are over."""
        records = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in self.data.corpus.items()]
        chunks = load_corpus(records).chunks
        dataset = build_dataset(make_units(chunks), chunks, set(), self.config, World())
        self.config = plan_steps(dataset, self.config, World())
        retriever = build_retriever(self.config)
        reader, tokenizer = build_lm(self.config)
        work = Workspace(self.output.with_suffix(""), identity={}, resume=False, world=World())
        try:
            collator = build_collator(retriever, tokenizer, dataset, self.config, work)
            model = RevelaModel(retriever, reader, self.config).to(retriever.device).train()
            model.retriever_learns = True
            for step in self._steps(model, dataset, collator, minutes):
                if step % every == 0:
                    self._evaluate(retriever, step)
            self._evaluate(retriever, step, keep=True)
        finally:
            work.remove()
            work.close()

    def _steps(
        self, model: RevelaModel, dataset: GroupDataset, collator: GroupCollator, minutes: float | None
    ) -> Iterator[int]:
        config = self.config
        total, together = config.max_steps or 0, config.groups_per_step
        parameters = model.retriever.trainable_parameters()
        optimizer = torch.optim.AdamW(
            parameters, lr=config.retriever_lr or 0.0, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        compute = Step(model, config, world=World(), bf16=use_bf16(config))
        for step in range(1, total + 1):
            start = time.perf_counter()
            done = max((step - 1) / total, self._seconds / (60 * minutes) if minutes else 0.0)
            for group in optimizer.param_groups:
                group["lr"] = (config.retriever_lr or 0.0) * min(1.0, step / 10, max(0.02, 2 * (1 - done)))
            batch = collator([dataset[(step - 1) * together + i] for i in range(together)])
            result = compute(_moved(batch, model.retriever.device))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self._seconds += time.perf_counter() - start
            self._losses.append(result.metrics)
            if step % 5 == 0:
                log.info("step %d, %.0f s: %s", step, self._seconds, _means(self._losses[-5:]))
            over = minutes is not None and self._seconds >= 60 * minutes
            yield step
            if over:
                return

    def _evaluate(self, retriever: TrainableRetriever, step: int, *, keep: bool = False) -> None:
        data = self.data
        texts = [f"{title}\n{text}" if title else text for title, text in data.corpus.values()]
        vectors = []
        for role, some in (("query", list(data.queries.values())), ("document", texts)):
            compute = "bfloat16" if use_bf16(self.config) else "float32"
            made = retriever.embed(some, role, max_length=self.evaluated_tokens, compute_dtype=compute)
            vectors.append(made.float().numpy(force=True))
        run = dense_run(*vectors, list(data.queries), list(data.corpus))
        found = score_run(run, data.qrels)
        line = {"step": step, "seconds": round(self._seconds, 1), **{m: round(found.mean(m), 4) for m in found.metrics}}
        line |= _means(self._losses)
        self._losses.clear()
        log.info("%s", line)
        with self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if keep:
            for name, value in zip(("queries", "passages"), vectors, strict=True):
                np.save(self.output.with_suffix(f".{name}.npy"), value.astype(np.float16))


def _means(entries: list[dict[str, float]]) -> dict[str, float]:
    names = {name for entry in entries for name in entry}
    return {
        name: round(float(np.mean([entry[name] for entry in entries if name in entry])), 3) for name in sorted(names)
    }


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    if isinstance(batch, dict):
        return {name: _moved(value, device) for name, value in batch.items()}
    return batch.to(device) if torch.is_tensor(batch) else batch


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="model that becomes a retriever")
    parser.add_argument("--lm", required=True, help="LM that reads")
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="BEIR layout")
    parser.add_argument("--split", help="file in qrels/ (default: test, or the only one)")
    parser.add_argument("--signal", choices=SIGNALS, action="append", help="default: objective")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--minutes", type=float, help="of training, each; evaluations do not count")
    parser.add_argument("--every", type=int, default=50, metavar="STEPS", help="between evaluations")
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
    given = dict(pair.split("=", 1) for pair in args.set)
    args.output.mkdir(parents=True, exist_ok=True)
    for folder in args.data:
        for signal in args.signal or ["objective"]:
            data = part(load_beir(folder, split=args.split), queries=args.queries, documents=args.documents)
            settings: dict[str, Any] = {
                **{"adapter": "lora", "lora_rank": 32, "lora_alpha": 32, "retriever_lr": 4e-4},
                **{"query_part": "first_half", "groups_per_step": 1, "batching": "related", "self_distillation": 0.0},
                **{"contrastive_pairs": 24, "contrastive_negatives": 16},
                **{"base": args.base, "lm": args.lm, "max_steps": args.steps, "seed": args.seed},
                **{"group_size": args.group_size, "max_tokens": args.tokens, "retriever_max_tokens": args.tokens},
                **SIGNALS[signal],
                **{name: json.loads(value) for name, value in given.items()},
            }
            file = args.output / f"{folder.name}-{signal}-{args.seed}{args.name and f'-{args.name}'}.jsonl"
            file.unlink(missing_ok=True)
            log.info("%s: %d documents, %d queries, %s", folder.name, len(data.corpus), len(data.queries), signal)
            Curve(data, AdaptConfig(**settings), file, args.evaluated_tokens).run(
                every=args.every, minutes=args.minutes
            )


if __name__ == "__main__":
    main()
