"""The training loop around the model: how long the device waits for input, and what cutting a step costs.

    python benchmarks/speed/training_loop.py --source docs --output benchmarks/results/speed [--device cuda]

Input: tokens from the memory-mapped store against tokenising in the loop, as a share of a whole step. Padding: texts
of like length encoded together against one padded batch. Pieces: a step in fewer groups at once or with the gradient
cache (GradCache) against the step in one graph. The floor beside each time is the part that computes no padding.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import best_seconds, machine, table, write

from revela_rag.corpus import load_corpus
from revela_training.config import AdaptConfig
from revela_training.data.batching import Group, GroupDataset, bm25_neighbours
from revela_training.data.collate import GroupCollator
from revela_training.data.tokens import tokenize_for_lm, tokenize_for_retriever
from revela_training.data.units import make_units
from revela_training.loop.distributed import World
from revela_training.loop.model import RevelaModel
from revela_training.loop.precision import use_bf16
from revela_training.loop.step import Embeddings, Step
from revela_training.loop.trainer import train
from revela_training.objective.lm import load_lm
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.embedding import pool, tokenize

GROUPS = 40


class Loop:
    """Everything one adapter needs for steps.

    Args:
        options: of the command line.
        adapter: "linear" or "lora".
    """

    def __init__(self, options: argparse.Namespace, adapter: str) -> None:
        settings = AdaptConfig(
            group_size=options.group_size,
            groups_per_step=2,
            max_tokens=options.max_tokens,
            lora_rank=16,
            lora_dropout=0.0,
            lm_warmup_steps=0,
            max_steps=options.steps,
            lm_lr=1e-4,
            retriever_lr=1e-4,
            checkpoint_steps=10**6,
            revela_weight=1.0,
        )
        self.config = make_plan(settings, adapter)
        self.device = torch.device(options.device)
        units = make_units(load_corpus(options.source, show_progress=False).chunks)[: options.units]
        self.dataset = GroupDataset(
            units, group_size=options.group_size, length=2 * GROUPS, neighbours=bm25_neighbours(units)
        )
        self.texts = self.dataset.texts
        self.retriever = TrainableRetriever(
            options.base, adapter=adapter, lora_rank=16, lora_dropout=0.0, device=options.device
        )
        lm, self.tokenizer = load_lm(options.lm)
        cached = passages = None
        if adapter == "linear":
            vectors = self.retriever.embed_base(self.texts, "document", max_length=160)
            cached = (vectors, vectors, vectors)
        else:
            passages = tokenize_for_retriever(self.texts, self.retriever, "document")
        start = time.perf_counter()
        reader = tokenize_for_lm(self.texts, self.tokenizer, max_tokens=options.max_tokens)
        self.tokenising = time.perf_counter() - start
        self.collator = GroupCollator(reader, passages=passages)
        self.model = RevelaModel(self.retriever, lm, self.config, cached=cached).to(self.device)
        self.model.retriever_learns = True
        self.model.train()
        self.groups = [self.dataset[i] for i in range(2)]

    def batch(self, groups: Sequence[Group]) -> dict[str, Any]:
        """On the device."""
        return _moved(self.collator(groups), self.device)

    def tokenise(self, groups: Sequence[Group]) -> None:
        """The named alternative to the collator: what a step's texts cost when they are tokenised in the loop."""
        texts = [self.texts[i] for group in groups for i in group.texts]
        length = self.config.max_tokens
        self.tokenizer(texts, truncation=True, max_length=length, padding=True, return_tensors="pt")
        if self.config.adapter == "lora":
            tokenize(self.retriever.model, texts, prompt="", length=160, device=torch.device("cpu"))

    def step(self, batch: dict[str, Any], **changes: Any) -> Callable[[], None]:
        """A call that computes all gradients."""
        config = self.config.replace(**changes)
        step = Step(self.model, config, world=World(), bf16=use_bf16(config.precision))

        def call() -> None:
            self.model.zero_grad(set_to_none=True)
            step(batch)

        return call


def input_share(loop: Loop, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one step by what they are spent on, and the wait of a real run."""
    numbers = iter(range(2 * GROUPS))
    choose = _mean(lambda: [loop.dataset[next(numbers)] for _ in range(2)], GROUPS - 2)
    collate = _mean(lambda: loop.collator(loop.groups), 50)
    tokenise = _mean(lambda: loop.tokenise(loop.groups), 10)
    compute = best_seconds(loop.step(loop.batch(loop.groups)), device=options.device, repeats=options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        log = train(loop.model, loop.dataset, loop.collator, loop.config, folder=Path(folder), show_progress=False)
    loop.model.to(loop.device)
    waits = [entry["input_wait"] for entry in log if "input_wait" in entry]
    return {
        "choose": choose,
        "collate": collate,
        "tokenise": tokenise,
        "compute": compute,
        "stored_share": (choose + collate) / (choose + collate + compute),
        "tokenise_share": (choose + tokenise) / (choose + tokenise + compute),
        "run_share": waits[-1],
        "tokenise_once_per_text": loop.tokenising / len(loop.texts),
    }


def padding(loop: Loop, options: argparse.Namespace) -> dict[str, float]:
    """LoRA forward and backward of a step's texts: together in one padded batch, and with those of like length."""
    batch = loop.batch(loop.groups)
    features = batch["passages"]
    parameters = loop.retriever.trainable_parameters()

    def together() -> None:
        torch.autograd.grad(pool(loop.retriever.model, dict(features)).sum(), parameters)

    def like_lengths() -> None:
        made = Embeddings(loop.model, batch, None, bf16=use_bf16(loop.config.precision))
        made.passages.grad = torch.ones_like(made.passages)
        loop.model.zero_grad(set_to_none=True)
        made.backward()

    mask, reader = features["attention_mask"], batch["attention_mask"]
    return {
        "together": best_seconds(together, device=options.device, repeats=options.repeats),
        "like_lengths": best_seconds(like_lengths, device=options.device, repeats=options.repeats),
        "padding": 1 - float(mask.float().mean()),
        "lm_padding": 1 - float(reader.float().mean()),
    }


def pieces(loop: Loop, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds and, on a GPU, peak bytes above what lives between steps, of a step cut in several ways."""
    half = options.group_size // 2
    ways = {
        "one graph": {},
        "1 group at once": {"groups_at_once": 1},
        f"GradCache, {half} texts": {"retriever_chunk": half},
        f"both, {half} texts": {"groups_at_once": 1, "retriever_chunk": half},
    }
    found: dict[str, dict[str, float]] = {}
    batch = loop.batch(loop.groups)
    for name, changes in ways.items():
        call = loop.step(batch, **changes)
        found[name] = {"seconds": best_seconds(call, device=options.device, repeats=options.repeats)}
        if options.device == "cuda":
            loop.model.zero_grad(set_to_none=True)
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            call()
            found[name]["bytes"] = torch.cuda.max_memory_allocated() - before
    return found


def report(result: dict[str, Any]) -> str:
    """The tables."""
    waits = [
        (
            adapter,
            *(1e3 * r[name] for name in ("choose", "collate", "tokenise", "compute")),
            *(100 * r[name] for name in ("stored_share", "tokenise_share", "run_share")),
        )
        for adapter, r in result["input"].items()
    ]
    names = ("choose", "collate", "tokenise", "compute")
    pad = result["padding"]
    whole = result["pieces"]["one graph"]
    cut = [
        (name, r["seconds"], r["seconds"] / whole["seconds"], *([r["bytes"] / 1e6] if "bytes" in r else []))
        for name, r in result["pieces"].items()
    ]
    memory = ["MB"] if "bytes" in whole else []
    return "\n\n".join(
        [
            table(
                ["adapter", *(f"{name} ms" for name in names), "stored %", "in the loop %", "waited in a run %"], waits
            ),
            table(
                ["retriever forward + backward", "s", "x one batch"],
                [
                    ("one padded batch", pad["together"], 1.0),
                    ("texts of like length", pad["like_lengths"], pad["like_lengths"] / pad["together"]),
                    ("floor: no padding", pad["together"] * (1 - pad["padding"]), 1 - pad["padding"]),
                ],
            ),
            f"{100 * pad['lm_padding']:.0f} % of what the LM computes is padding.",
            table(["step with LoRA", "s", "x one graph", *memory], cut),
        ]
    )


def plot(result: dict[str, Any], figure: Any) -> None:
    """Share of a step that is input."""
    axes = figure.add_subplot()
    adapters = list(result["input"])
    for offset, (name, label) in enumerate(
        [("stored_share", "stored tokens"), ("tokenise_share", "tokenised in loop")]
    ):
        values = [100 * result["input"][adapter][name] for adapter in adapters]
        axes.bar(np.arange(len(adapters)) + 0.4 * offset, values, width=0.35, label=label)
    axes.set_xticks(np.arange(len(adapters)) + 0.2, adapters)
    axes.set_ylabel("input, % of a step")
    axes.legend()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="folder with the corpus")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--base", default="all-MiniLM-L6-v2")
    parser.add_argument("--lm", default=None)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    linear = Loop(options, "linear")
    result: dict[str, Any] = {"machine": machine(options.device), "input": {"linear": input_share(linear, options)}}
    del linear
    lora = Loop(options, "lora")
    result |= {"padding": padding(lora, options), "pieces": pieces(lora, options)}
    result["input"]["lora"] = input_share(lora, options)
    write(options.output, "training_loop", result, report(result), lambda figure: plot(result, figure))


def _mean(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _moved(entry, device) for name, entry in value.items()}
    return value.to(device) if torch.is_tensor(value) else value


if __name__ == "__main__":
    main()
